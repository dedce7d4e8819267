"""Which blobs somebody still needs."""

import logging
from collections.abc import Iterable

from device_agent.store.blobs import Blobs
from device_agent.store.slots import SLOTS
from device_agent.updater.model import Model
from lepton_edge.bundle.manifest import read_manifest
from lepton_edge.errors import LeptonError
from lepton_edge.wire.chunks import BlobRef
from lepton_edge.wire.goal import Goal

_LOG = logging.getLogger(__name__)


def sweep(models: Iterable[Model], goal: Goal | None, blobs: Blobs, *, now_ms: int, keep_s: float) -> int:
    """Delete the slots of models removed longer ago than `keep_s` seconds, then every blob out of reach. Blocking.

    Returns:
        How many bytes that freed.

    Raises:
        StorageError: a file cannot be deleted.
    """
    reachable: set[str] = set()
    for model in models:
        if model.is_removed and now_ms - model.journal.removed_ms >= keep_s * 1000:
            for slot in SLOTS:
                model.slots.discard(slot)
        reachable |= model.slots.reachable()
        entry = goal.models.get(model.name) if goal else None
        committed = model.journal.committed
        if entry and (committed is None or committed.deployment != entry.deployment):
            reachable |= _needed(entry.manifest, blobs)
    freed = blobs.collect(reachable)
    if freed:
        _LOG.info("deleted blobs that nobody needs any more: %d bytes", freed)
    return freed


def _needed(manifest: BlobRef, blobs: Blobs) -> set[str]:
    """The manifest and all files that it names: which of them the device will want is not known yet."""
    needed = {manifest.sha256}
    if blobs.holds(manifest):
        try:
            needed |= {ref.sha256 for ref in read_manifest(blobs.read(manifest)).files.values()}
        except LeptonError as error:
            _LOG.debug("manifest %s: %s", manifest.sha256, error)
    return needed
