"""Where things lie in the state folder, and that one process alone uses it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_edge import durable
from lepton_edge.errors import StorageError
from lepton_edge.names import is_name


class Layout:
    """The paths below a state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.goal = root / "goal.json"
        self.boot = root / "boot.json"
        self.ready = root / "agent.json"
        self.blobs = root / "blobs"
        self.partial = root / "partial"
        self.models = root / "models"
        self.telemetry = root / "telemetry"

    def model(self, name: str) -> Path:
        return self.models / name

    def known_models(self) -> list[str]:
        """The models that left a folder here."""
        if not self.models.is_dir():
            return []
        return sorted(path.name for path in self.models.iterdir() if path.is_dir() and is_name(path.name))

    def create(self) -> None:
        """Make the folders, and delete what a crash left half-written.

        Raises:
            StorageError: the folder cannot be written.
        """
        for folder in (self.root, self.blobs, self.partial, self.models, self.telemetry):
            with durable.translated(folder):
                folder.mkdir(parents=True, exist_ok=True)
                durable.remove_leftovers(folder)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the state folder for this process alone; the kernel lets go when the process ends, however it ends.

    Raises:
        StorageError: another agent uses it, or it cannot be written.
    """
    path = root / "lock"
    with durable.translated(path):
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(handle, root)
        yield
    finally:
        os.close(handle)


def is_in_use(root: Path) -> bool:
    """Whether an agent runs on this state folder."""
    path = root / "lock"
    if not path.exists():
        return False
    with durable.translated(path):
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _take(handle, root)
    except StorageError:
        return True
    finally:
        os.close(handle)
    return False


def _take(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        raise StorageError(f"{root} is in use by another agent: stop it, or give this one its own --state") from cause
