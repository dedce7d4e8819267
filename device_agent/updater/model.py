"""One model on this device: its journal, its slots, and what the process holds of it in memory."""

from pathlib import Path

import msgspec

from device_agent.core.deployment import Deployment, Work
from device_agent.serve.engine import ServedModel
from device_agent.store.journal import Committed, Journal, JournalFile
from device_agent.store.slots import Slots, other
from lepton_edge.bundle.manifest import Manifest
from lepton_edge.wire.messages import State


class Model:
    """The state that a worker and its stages share.

    trial: what passed the self-test of the current deployment. previous: what answered before the trial did.
    manifest: of the current deployment, once verified. progress: share of the bytes fetched.
    stuck: code and reason, while the journal cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Read the journal; blocking. Raises StorageError."""
        self.name = name
        self.slots = Slots(folder)
        self.slots.create()
        self._file = JournalFile(folder, name)
        self.journal = self._file.read() or self._adopted()
        self.trial: ServedModel | None = None
        self.previous: ServedModel | None = None
        self.manifest: Manifest | None = None
        self.progress = 0.0
        self.stuck: tuple[str, str] | None = None

    def _adopted(self) -> Journal:
        """Without a journal, what the live slot says of itself: it passed its self-test and was made live."""
        slot = self.slots.active()
        record = self.slots.read(slot) if slot else None
        if slot is None or record is None or record.choice is None:
            return Journal(model=self.name)
        committed = Committed(
            deployment=record.deployment, bundle=record.bundle, version="", slot=slot, choice=record.choice
        )
        return Journal(model=self.name, committed=committed)

    @property
    def current(self) -> Deployment:
        """The deployment at hand. Raises RuntimeError where there is none."""
        if self.journal.current is None:
            raise RuntimeError(f"{self.name}: no deployment")
        return self.journal.current

    @property
    def is_open(self) -> bool:
        """Whether a deployment is under way."""
        return self.journal.current is not None and not self.journal.current.is_over

    @property
    def is_removed(self) -> bool:
        return self.journal.removed_ms > 0

    @property
    def trial_slot(self) -> str:
        """The slot that the next deployment may fill."""
        return other(self.journal.committed.slot if self.journal.committed else None)

    def learn(self, **changes: object) -> None:
        """Note what the deployment found out; it is written with the next move."""
        work: Work = msgspec.structs.replace(self.current.work, **changes)
        self.journal = msgspec.structs.replace(self.journal, current=msgspec.structs.replace(self.current, work=work))

    def write(self, journal: Journal) -> None:
        """Journal a move, then make it. Blocking. Raises DiskFullError or StorageError: the move is not made."""
        self._file.write(journal)
        self.journal = journal

    def moved(self, deployment: Deployment) -> Journal:
        """The journal after a move; a commit is part of the same entry."""
        changes: dict[str, object] = {"current": deployment, "removed_ms": 0}
        if deployment.state is State.COMMITTED:
            work = deployment.work
            changes["committed"] = Committed(
                deployment=deployment.id,
                bundle=deployment.bundle,
                version=work.version,
                slot=work.slot,
                choice=work.choice,
            )
        return msgspec.structs.replace(self.journal, **changes)
