"""The boot number: rises with each process, and is on disk before the first CONNECT."""

from pathlib import Path

from device_agent.store import documents
from lepton_edge.typed import Record


class _Boot(Record, frozen=True, kw_only=True):
    boot: int
    v: int = 1


class BootCounter:
    """max(last + 1, Unix milliseconds): a wiped folder starts above all earlier boots, if the clock is right; if it is
    not, the manager's ack says how far to jump.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.boot = 0

    def begin(self, now_ms: int) -> int:
        """Take this process's number. Raises DiskFullError or StorageError."""
        last = documents.load(self._path, _Boot)
        return self._take(max((last.boot if last else 0) + 1, now_ms))

    def overtake(self, known: int) -> int:
        """Take a number above one that the manager knows. Raises DiskFullError or StorageError."""
        return self._take(max(self.boot, known) + 1)

    def _take(self, boot: int) -> int:
        documents.save(self._path, _Boot(boot=boot))
        self.boot = boot
        return boot
