"""From the manifest to a filled slot: nothing is fetched before its signature holds, nothing twice."""

import shutil
from collections.abc import Mapping

from device_agent.core.batch import first_batch
from device_agent.core.choice import candidates, obstacles
from device_agent.core.deployment import Signal
from device_agent.link.transfer import Progress
from device_agent.threads import in_thread
from device_agent.updater.job import DONE, MORE, Job
from device_agent.updater.serving import slot_record
from lepton_edge import durable
from lepton_edge.bundle.manifest import GOLDEN, Manifest
from lepton_edge.errors import DiskFullError, RuntimeUnavailableError
from lepton_edge.wire.chunks import BlobRef

_SPARE_BYTES = 1024 * 1024
"""Left free for journal, goal and telemetry when files are fetched."""


async def fetch_meta(job: Job) -> Signal:
    """Fetch the manifest and check whose it is, before any other byte is fetched."""
    job.model.learn(version=(await manifest_of(job)).version)
    return DONE


async def manifest_of(job: Job) -> Manifest:
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


async def check_fit(job: Job) -> Signal:
    """Whether any variant can run here, and its files fit the disk."""
    manifest = await manifest_of(job)
    able = candidates(manifest, job.parts.device, limits=job.entry.limits)
    if not able:
        reasons = obstacles(manifest, job.parts.device, limits=job.entry.limits)
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise RuntimeUnavailableError(f"no variant can run here: {listed}")
    batch = first_batch(able, job.entry.limits.max_candidates)
    await _check_space(job, files_of(manifest, batch))
    job.model.learn(batch=batch, rejected={}, measured=[], choice=None, slot=job.model.trial_slot)
    return DONE


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


def files_of(manifest: Manifest, batch: list[str]) -> dict[str, BlobRef]:
    """What the variants of a batch need: path -> reference."""
    paths = [GOLDEN, *(manifest.variant(name).file for name in batch)]
    return {path: manifest.files[path] for path in paths}


def _unique(files: Mapping[str, BlobRef]) -> list[BlobRef]:
    return list({ref.sha256: ref for ref in files.values()}.values())


async def fetch_files(job: Job) -> Signal:
    """Fetch what the batch needs and the device lacks; the models take turns."""
    refs = _unique(files_of(await manifest_of(job), job.model.current.work.batch))
    total = sum(ref.size for ref in refs) or 1
    lacking = 0
    for ref in refs:
        lacking += await in_thread(job.parts.blobs.missing_bytes, ref)
    on_bytes = _progress(job, total - lacking, total)
    async with job.parts.downloads:
        for ref in refs:
            await _fetch(job, ref, on_bytes)
    return DONE


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
    for ref in _unique(files_of(await manifest_of(job), job.model.current.work.batch)):
        whole = await in_thread(job.parts.blobs.complete, ref) and whole
    return DONE if whole else MORE


async def stage(job: Job) -> Signal:
    """Fill the slot that is not live."""
    manifest, model, blobs = await manifest_of(job), job.model, job.parts.blobs
    files = files_of(manifest, model.current.work.batch)
    if not all([await in_thread(blobs.holds, ref) for ref in files.values()]):
        return MORE
    model.learn(choice=None)
    record = slot_record(model, [ref.sha256 for ref in files.values()], job.entry.limits.threads)
    data = await in_thread(blobs.read, job.entry.manifest)
    await in_thread(model.slots.stage, model.current.work.slot, record, data, files, blobs)
    return DONE
