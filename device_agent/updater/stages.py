"""What is done in each state. Every stage may be run again after a restart, and ends with the event that comes next.

A stage raises LeptonError where it fails; whether that is a fault that passes or a failure is the error's own
`permanent`.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from device_agent.core.batch import first_batch, next_candidate
from device_agent.core.choice import candidates, obstacles
from device_agent.core.deployment import Action, Event, Signal
from device_agent.link.transfer import Progress
from device_agent.serve.engine import ServedModel
from device_agent.threads import in_thread
from device_agent.trial import Trial, golden_check, self_test
from device_agent.updater.model import Model
from device_agent.updater.parts import Parts, now_ms
from device_agent.updater.serving import go_back, slot_record
from lepton_edge import durable
from lepton_edge.bundle.golden import Golden, read_golden
from lepton_edge.bundle.manifest import GOLDEN, MANIFEST, Manifest, Variant
from lepton_edge.errors import DiskFullError, HashMismatchError, RuntimeUnavailableError, SelfTestError
from lepton_edge.wire.chunks import BlobRef
from lepton_edge.wire.goal import ModelGoal, Probation
from lepton_edge.wire.messages import Choice

_LOG = logging.getLogger(__name__)
_DONE = Signal(Event.DONE)
_MORE = Signal(Event.MORE)
_SPARE_BYTES = 1024 * 1024
"""Left free for journal, goal and telemetry when files are fetched."""
_LONGEST_SLEEP_MS = 900_000
_WATCH_S = 0.1
_REASON = 200


@dataclass(frozen=True)
class Job:
    """One model's deployment, as a stage sees it. wanted: what the goal says, while it names this deployment."""

    model: Model
    wanted: ModelGoal | None
    parts: Parts

    @property
    def entry(self) -> ModelGoal:
        """The goal's entry, without which a deployment cannot go forward, only back."""
        if self.wanted is None:
            raise RuntimeError(f"{self.model.name}: the goal does not name this deployment")
        return self.wanted


Stage = Callable[[Job], Awaitable[Signal]]


async def begin(job: Job) -> Signal:
    """Nothing: `pending` is over as soon as somebody looks."""
    job.model.trial = job.model.previous = job.model.manifest = None
    return _DONE


# -- metadata


async def fetch_meta(job: Job) -> Signal:
    """Fetch the manifest and check whose it is, before any other byte is fetched."""
    job.model.learn(version=(await _manifest(job)).version)
    return _DONE


async def _manifest(job: Job) -> Manifest:
    """The verified manifest: from memory, from disk, or fetched (again, if the disk lost it)."""
    model, blobs, ref = job.model, job.parts.blobs, job.entry.manifest
    if model.manifest is None:
        while not await in_thread(blobs.complete, ref):
            async with job.parts.downloads:
                await _fetch(job, ref, _took(job))
        data = await in_thread(blobs.read, ref)
        model.manifest = job.parts.verifier.verify_manifest(model.name, job.entry, data)
    return model.manifest


async def _fetch(job: Job, ref: BlobRef, on_bytes: Progress) -> None:
    """Fetch what is lacking of one blob, if anything is."""
    if await in_thread(job.parts.blobs.holds, ref):
        return
    partial = await in_thread(job.parts.blobs.partial, ref)
    try:
        await job.parts.transfer.fetch(partial, on_bytes)
    finally:
        partial.close()


def _took(job: Job) -> Progress:
    def took(count: int) -> None:
        job.model.learn(fetched=job.model.current.work.fetched + count)

    return took


# -- fit and files


async def check_fit(job: Job) -> Signal:
    """Whether any variant can run here, and its files fit the disk."""
    manifest = await _manifest(job)
    able = candidates(manifest, job.parts.device, limits=job.entry.limits)
    if not able:
        reasons = obstacles(manifest, job.parts.device, limits=job.entry.limits)
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise RuntimeUnavailableError(f"no variant can run here: {listed}")
    batch = first_batch(able, job.entry.limits.max_candidates)
    await _check_space(job, _files(manifest, batch))
    job.model.learn(batch=batch, rejected={}, measured=[], choice=None, slot=job.model.trial_slot)
    return _DONE


async def _check_space(job: Job, files: Mapping[str, BlobRef]) -> None:
    lacking = 0
    for ref in _unique(files):
        lacking += await in_thread(job.parts.blobs.missing_bytes, ref)
    wanted = lacking + _SPARE_BYTES
    if _free_bytes(job) < wanted:
        await job.parts.make_room()
    if (free := _free_bytes(job)) < wanted:
        raise DiskFullError(f"{wanted} bytes are needed on {job.parts.layout.root}, {free} are free")


def _free_bytes(job: Job) -> int:
    with durable.translated(job.parts.layout.root):
        return shutil.disk_usage(job.parts.layout.root).free


def _files(manifest: Manifest, batch: list[str]) -> dict[str, BlobRef]:
    """What the variants of a batch need: path -> reference."""
    paths = [GOLDEN, *(manifest.variant(name).file for name in batch)]
    return {path: manifest.files[path] for path in paths}


def _unique(files: Mapping[str, BlobRef]) -> list[BlobRef]:
    return list({ref.sha256: ref for ref in files.values()}.values())


async def fetch_files(job: Job) -> Signal:
    """Fetch what the batch needs and the device lacks; the models take turns."""
    refs = _unique(_files(await _manifest(job), job.model.current.work.batch))
    total = sum(ref.size for ref in refs) or 1
    lacking = 0
    for ref in refs:
        lacking += await in_thread(job.parts.blobs.missing_bytes, ref)
    on_bytes = _progress(job, total - lacking, total)
    async with job.parts.downloads:
        for ref in refs:
            await _fetch(job, ref, on_bytes)
    return _DONE


def _progress(job: Job, held: int, total: int) -> Progress:
    count_bytes = _took(job)

    def took(count: int) -> None:
        nonlocal held
        held += count
        count_bytes(count)
        job.model.progress = held / total
        job.parts.changed()

    return took


async def verify_files(job: Job) -> Signal:
    """Hash every file whole; what the disk damaged is fetched again."""
    whole = True
    for ref in _unique(_files(await _manifest(job), job.model.current.work.batch)):
        whole = await in_thread(job.parts.blobs.complete, ref) and whole
    return _DONE if whole else _MORE


async def stage(job: Job) -> Signal:
    """Fill the slot that is not live."""
    manifest, model, blobs = await _manifest(job), job.model, job.parts.blobs
    files = _files(manifest, model.current.work.batch)
    if not all([await in_thread(blobs.holds, ref) for ref in files.values()]):
        return _MORE
    model.learn(choice=None)
    record = slot_record(model, [ref.sha256 for ref in files.values()], job.entry.limits.threads)
    data = await in_thread(blobs.read, job.entry.manifest)
    await in_thread(model.slots.stage, model.current.work.slot, record, data, files, blobs)
    return _DONE


# -- trial


async def run_self_test(job: Job) -> Signal:
    """Prove and measure the batch; keep the fastest that passes, or go for the next candidate."""
    manifest, model = await _manifest(job), job.model
    golden = await in_thread(_read_golden, job)
    best: Trial | None = None
    for name in model.current.work.batch:
        trial = await _try(job, manifest, manifest.variant(name), golden)
        if trial is not None and (best is None or trial.choice.p50_ms < best.choice.p50_ms):
            best = trial
    if best is None:
        return _try_next(job, manifest)
    choice = msgspec.structs.replace(best.choice, fetched=model.current.work.fetched)
    model.learn(choice=choice)
    variant = manifest.variant(choice.variant)
    files = _files(manifest, [choice.variant])
    record = slot_record(model, [ref.sha256 for ref in files.values()], job.entry.limits.threads)
    await in_thread(model.slots.record, model.current.work.slot, record)
    model.trial = ServedModel(
        manifest=manifest, bundle=model.current.bundle, variant=variant, session=best.session, choice=choice
    )
    return _DONE


def _read_golden(job: Job) -> Golden:
    path = job.model.slots.folder(job.model.current.work.slot) / GOLDEN
    with durable.translated(path):
        return read_golden(path.read_bytes())


async def _try(job: Job, manifest: Manifest, variant: Variant, golden: Golden) -> Trial | None:
    """Test one variant; None where it fails, with the reason noted."""
    model, work = job.model, job.model.current.work
    folder = model.slots.folder(work.slot)
    try:
        trial = await in_thread(self_test, folder, manifest, variant, golden, limits=job.entry.limits)
    except (SelfTestError, RuntimeUnavailableError, HashMismatchError) as error:
        _LOG.warning("%s %s: variant %s fails here: %s", model.name, manifest.version, variant.name, error)
        model.learn(rejected={**work.rejected, variant.name: str(error)[:_REASON]})
        return None
    measured: list[Choice] = [choice for choice in work.measured if choice.variant != variant.name]
    model.learn(measured=[*measured, trial.choice])
    return trial


def _try_next(job: Job, manifest: Manifest) -> Signal:
    """All of the batch failed: fetch the next candidate, if there is one.

    Raises:
        SelfTestError: none is left.
    """
    work = job.model.current.work
    able = candidates(manifest, job.parts.device, limits=job.entry.limits)
    following = next_candidate(able, work.rejected)
    if following is None:
        listed = "; ".join(work.rejected.values())
        raise SelfTestError(f"no variant passes here: {listed}")
    job.model.learn(batch=[following])
    return _MORE


# -- going live


async def activate(job: Job) -> Signal:
    """Switch the slot, then the requests."""
    model, engine = job.model, job.parts.engine
    if model.trial is None:
        raise RuntimeError(f"{model.name}: activating without a passed self-test")
    await in_thread(model.slots.switch, model.current.work.slot)
    model.previous = engine.serving(model.name)
    engine.install(model.trial)
    return _DONE


async def watch(job: Job) -> Signal:
    """Probation: few errors while requests come, and the golden inputs where too few came."""
    model, probation = job.model, job.entry.probation
    deadline = time.monotonic() + probation.probation_s
    while (left := deadline - time.monotonic()) > 0:
        _check_health(job, probation)
        await asyncio.sleep(min(left, _WATCH_S))
    if _check_health(job, probation) < probation.probation_n and model.trial is not None:
        golden = await in_thread(_read_golden, job)
        await in_thread(golden_check, model.trial.session, model.trial.variant, golden)
    return _DONE


def _check_health(job: Job, probation: Probation) -> int:
    """The number of requests so far. Raises SelfTestError where too many failed."""
    health = job.parts.engine.health(job.model.name)
    if health.failures > probation.max_errors:
        raise SelfTestError(
            f"probation: {health.failures} of {health.requests} inferences failed, {probation.max_errors} are forgiven"
        )
    return health.requests


async def settle(job: Job) -> Signal:
    """Let go of the old model in memory, and of the candidates that were not chosen."""
    model = job.model
    committed = model.journal.committed
    serving = job.parts.engine.serving(model.name)
    if committed is not None and serving is not None and serving.bundle == committed.bundle:
        await in_thread(model.slots.prune, committed.slot, {MANIFEST, GOLDEN, serving.variant.file})
    model.previous = model.manifest = None
    return _DONE


async def sleep(job: Job) -> Signal:
    """Wait until it is time to try again; a clock that jumps back cannot make it wait for ever."""
    left_ms = job.model.current.until_ms - now_ms()
    await asyncio.sleep(min(max(left_ms, 0), _LONGEST_SLEEP_MS) / 1000)
    return Signal(Event.WAKE)


async def roll_back(job: Job) -> Signal:
    """The committed model answers again."""
    await in_thread(go_back, job.model, job.parts)
    return _DONE


async def discard(job: Job) -> Signal:
    """Clear the slot that the deployment had filled."""
    model = job.model
    model.trial = model.previous = model.manifest = None
    committed = model.journal.committed
    # A process that died in `activating` may have left the pointer on the slot that goes now.
    await in_thread(model.slots.switch, committed.slot if committed else None)
    await in_thread(model.slots.discard, model.trial_slot)
    return _DONE


STAGES: Mapping[Action, Stage] = {
    Action.BEGIN: begin,
    Action.FETCH_META: fetch_meta,
    Action.CHECK_FIT: check_fit,
    Action.FETCH_FILES: fetch_files,
    Action.VERIFY_FILES: verify_files,
    Action.STAGE: stage,
    Action.SELF_TEST: run_self_test,
    Action.ACTIVATE: activate,
    Action.WATCH: watch,
    Action.SETTLE: settle,
    Action.SLEEP: sleep,
    Action.ROLL_BACK: roll_back,
    Action.DISCARD: discard,
}
