"""Loading what a slot holds, and letting it answer."""

import logging

import msgspec

from device_agent.core.deployment import Event, restart_signal
from device_agent.serve.engine import ServedModel
from device_agent.store.slots import SlotRecord
from device_agent.updater.model import Model
from device_agent.updater.parts import Parts
from lepton_edge.errors import LeptonError, StorageError
from lepton_edge.runtimes import open_session
from lepton_edge.wire.messages import State

_LOG = logging.getLogger(__name__)


def load_slot(model: Model, slot: str, bundle: str) -> ServedModel:
    """Open the variant that a slot's self-test chose. Blocking.

    Raises:
        LeptonError: the slot is empty, damaged, of another bundle, or no longer runs here.
    """
    record = model.slots.read(slot)
    if record is None or record.choice is None or record.bundle != bundle:
        raise StorageError(f"{model.name}: slot {slot} does not hold bundle {bundle[:16]}")
    manifest = model.slots.manifest(slot, bundle)
    variant = manifest.variant(record.choice.variant)
    file = model.slots.check_file(slot, variant.file, manifest.files[variant.file])
    session = open_session(file, manifest.signature, variant, threads=record.threads)
    return ServedModel(manifest=manifest, bundle=bundle, variant=variant, session=session, choice=record.choice)


def restore(model: Model, parts: Parts) -> None:
    """At start, before any network: let the last good model answer. Blocking.

    A slot in probation whose machine lost power goes on answering, because its probation resumes. What cannot be
    loaded any more is forgotten, so that the goal deploys it anew.
    """
    if model.is_removed:
        return
    current, committed = model.journal.current, model.journal.committed
    if current and current.state is State.PROBATION and _resumes(model, parts) and _restore_trial(model, parts):
        return
    if committed is None:
        return
    try:
        parts.engine.install(load_slot(model, committed.slot, committed.bundle))
    except LeptonError as error:
        _LOG.warning("%s: the committed model cannot be loaded and is deployed again: %s", model.name, error)
        _forget_committed(model)


def _resumes(model: Model, parts: Parts) -> bool:
    return restart_signal(model.current, parts.boot_id).event is Event.POWER_LOST


def _restore_trial(model: Model, parts: Parts) -> bool:
    try:
        model.trial = load_slot(model, model.current.work.slot, model.current.bundle)
    except LeptonError as error:
        _LOG.warning("%s: the model on probation cannot be loaded: %s", model.name, error)
        return False
    parts.engine.install(model.trial)
    return True


def _forget_committed(model: Model) -> None:
    journal, lost = model.journal, model.journal.committed
    keep_current = journal.current is None or lost is None or journal.current.id != lost.deployment
    model.journal = msgspec.structs.replace(journal, committed=None, current=journal.current if keep_current else None)


def go_back(model: Model, parts: Parts) -> None:
    """Let the committed model answer again, or none where none was. Blocking; may be repeated.

    Requests come first, the disk second: a full disk must not keep a bad model in place.

    Raises:
        LeptonError: the committed model does not load; nothing answers then.
    """
    committed = model.journal.committed
    if model.trial is not None and parts.engine.serving(model.name) is model.trial:
        _replace_trial(model, parts)
    model.trial = model.previous = None
    model.slots.switch(committed.slot if committed else None)


def _replace_trial(model: Model, parts: Parts) -> None:
    committed = model.journal.committed
    if committed is None:
        parts.engine.remove(model.name)
    elif model.previous is not None:
        parts.engine.install(model.previous)
    else:
        try:
            parts.engine.install(load_slot(model, committed.slot, committed.bundle))
        except LeptonError:
            parts.engine.remove(model.name)
            raise


def slot_record(model: Model, files: list[str], threads: int) -> SlotRecord:
    """What is written beside the slot of the current deployment."""
    current = model.current
    return SlotRecord(
        deployment=current.id, bundle=current.bundle, files=files, choice=current.work.choice, threads=threads
    )
