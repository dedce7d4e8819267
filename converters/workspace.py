"""A conversion's scratch folder: one a conversion, gone with it, and swept up by the next one where it was killed.

A folder is locked for as long as its process lives. The kernel lets go of the lock when the process dies, however it
dies; so a folder whose lock can be had belongs to nobody and is deleted.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lepton_edge.errors import DiskFullError

PREFIX = "lepton-edge-"
LOCK = ".lock"
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Workspace:
    """A folder for files that live as long as this object: delete it with `close`, with `with`, or by dropping it."""

    def __init__(self, parent: Path | None = None) -> None:
        """Make the folder in `parent`, the system's temporary folder by default.

        Raises:
            DiskFullError: no space for it.
        """
        parent = parent or Path(tempfile.gettempdir())
        sweep(parent)
        with disk_full_named(parent):
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = _locked(self.path)
        self._finish = weakref.finalize(self, _remove, self.path, lock)

    def close(self) -> None:
        """Delete the folder; once is enough."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def disk_full_named(folder: Path) -> Iterator[None]:
    """Say of a full disk below `folder` what can be done about it.

    Raises:
        DiskFullError: in place of the OSError that told so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = error.filename or folder
        raise DiskFullError(
            f"no space left for {where}: free some space, or let TMPDIR name a folder on another disk"
        ) from error


def sweep(parent: Path) -> None:
    """Delete the folders in `parent` that killed processes of this user left."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _locked(folder: Path) -> int:
    """Give `folder` its lock, held from the first moment that another process can see it."""
    unready = folder / f"{LOCK}.new"
    handle = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    unready.rename(folder / LOCK)
    return handle


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
