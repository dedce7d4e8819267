"""Files that are whole or absent, whenever the power goes: write a temporary file, fsync, rename, fsync the folder.

All writing that must survive a crash goes through here and nowhere else. A temporary name ends in `.tmp`; whoever
owns a folder may delete such leftovers at start (`remove_leftovers`).
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lepton_edge.errors import DiskFullError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into one that an operator understands.

    Raises:
        DiskFullError: no space, or the quota is used up.
        StorageError: any other refusal of the file system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(f"no space left for {path}: free some space and try again") from error
        raise StorageError(f"{path}: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when the block ends well, and vanishes when not.

    Raises:
        DiskFullError, StorageError: the old file, if any, is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with translated(path):
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path`, whole or not at all. Raises DiskFullError or StorageError."""
    with replacing(path, mode=mode) as file:
        file.write(data)


def sync_tree(folder: Path) -> None:
    """Fsync every file and folder below `folder`, and `folder` itself."""
    for root, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(root))


def move_into_place(source: Path, target: Path) -> None:
    """Rename a complete folder or file to `target` durably. `target` must not be a non-empty folder."""
    with translated(target):
        if source.is_dir():
            sync_tree(source)
        source.replace(target)
        sync_folder(target.parent)


def remove(path: Path) -> None:
    """Delete a file or folder, if there, and make its absence durable."""
    with translated(path):
        if path.is_dir() and not path.is_symlink():
            # Renamed first: a crash in the middle leaves a leftover, never half a folder under its real name.
            doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            path.replace(doomed)
            sync_folder(path.parent)
            shutil.rmtree(doomed)
        elif path.exists() or path.is_symlink():
            path.unlink()
            sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete what a crash left half-written directly below `folder`."""
    if not folder.is_dir():
        return
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
