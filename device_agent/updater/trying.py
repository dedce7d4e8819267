"""The self-test: prove and measure what was staged, and keep the fastest variant that passes."""

import logging

import msgspec

from device_agent.core.batch import next_candidate
from device_agent.core.choice import candidates
from device_agent.core.deployment import Signal
from device_agent.core.reason import with_reason
from device_agent.serve.engine import ServedModel
from device_agent.threads import in_thread
from device_agent.trial import Trial, self_test
from device_agent.updater.fetching import files_of, manifest_of
from device_agent.updater.job import DONE, MORE, Job, read_staged_golden
from device_agent.updater.serving import slot_record
from lepton_edge.bundle.golden import Golden
from lepton_edge.bundle.manifest import Manifest, Variant
from lepton_edge.errors import HashMismatchError, RuntimeUnavailableError, SelfTestError
from lepton_edge.wire.messages import Choice

_LOG = logging.getLogger(__name__)
_REASON = 200


async def run_self_test(job: Job) -> Signal:
    """Prove and measure the batch; keep the fastest that passes, or go for the next candidate."""
    manifest, model = await manifest_of(job), job.model
    golden = await in_thread(read_staged_golden, job)
    best: Trial | None = None
    for name in model.current.work.batch:
        trial = await _try(job, manifest, manifest.variant(name), golden)
        if trial is not None and (best is None or trial.choice.p50_ms < best.choice.p50_ms):
            best = trial
    if best is None:
        return _try_next(job, manifest)
    work = model.current.work
    choice = msgspec.structs.replace(with_reason(best.choice, work.measured, work.rejected), fetched=work.fetched)
    model.learn(choice=choice)
    variant = manifest.variant(choice.variant)
    files = files_of(manifest, [choice.variant])
    record = slot_record(model, [ref.sha256 for ref in files.values()], job.entry.limits.threads)
    await in_thread(model.slots.record, model.current.work.slot, record)
    model.trial = ServedModel(
        manifest=manifest, bundle=model.current.bundle, variant=variant, session=best.session, choice=choice
    )
    return DONE


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
    return MORE
