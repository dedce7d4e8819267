"""The journal: one file per model, written before each move of its deployment."""

from pathlib import Path

from device_agent.core.deployment import Deployment
from device_agent.store import documents
from lepton_edge.typed import Record
from lepton_edge.wire.messages import Choice


class Committed(Record, frozen=True, kw_only=True):
    """The last deployment that proved itself, and where its files lie."""

    deployment: str
    bundle: str
    version: str
    slot: str
    choice: Choice | None = None


class Journal(Record, frozen=True, kw_only=True):
    """What is known of one model.

    current: the deployment under way, or the last one that ended: it is never tried again under its id.
    removed_ms: when the goal stopped naming the model; 0 while it names it.
    """

    model: str
    current: Deployment | None = None
    committed: Committed | None = None
    removed_ms: int = 0
    v: int = 1


class JournalFile:
    """A model's journal on disk."""

    def __init__(self, folder: Path, model: str) -> None:
        self._path = folder / "journal.json"
        self._model = model

    def read(self) -> Journal | None:
        """None where there is none, or it is damaged."""
        journal = documents.load(self._path, Journal)
        if journal is not None and journal.model != self._model:
            documents.set_aside(self._path, f"it is of model {journal.model!r}")
            return None
        return journal

    def write(self, journal: Journal) -> None:
        """Durable when it returns. Raises DiskFullError or StorageError; the old entry then stands."""
        documents.save(self._path, journal)
