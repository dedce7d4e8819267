"""Complete blobs, shared by all models through their SHA-256; those still arriving lie beside them."""

import errno
import logging
import os
import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path

from device_agent.store.chunks import PartialBlob
from lepton_edge import durable
from lepton_edge.errors import HashMismatchError, StorageError
from lepton_edge.wire.chunks import BlobRef, blob_ref_of_file, is_digest

_LOG = logging.getLogger(__name__)
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


class Blobs:
    """The blob store. Blocking."""

    def __init__(self, folder: Path, partial: Path) -> None:
        self._folder = folder
        self._partial = partial

    def path(self, ref: BlobRef) -> Path:
        return self._folder / ref.sha256

    def holds(self, ref: BlobRef) -> bool:
        """Whether the blob is here, whole; `check` says whether the disk still has the right bytes."""
        path = self.path(ref)
        return path.is_file() and path.stat().st_size == ref.size

    def read(self, ref: BlobRef) -> bytes:
        """The verified bytes. Raises StorageError or HashMismatchError."""
        path = self.path(ref)
        with durable.translated(path):
            return ref.verify(path.read_bytes(), what=str(path))

    def partial(self, ref: BlobRef) -> PartialBlob:
        return PartialBlob(self._partial, ref)

    def missing_bytes(self, ref: BlobRef) -> int:
        if self.holds(ref):
            return 0
        if not (self._partial / f"{ref.sha256}.have").exists():
            return ref.size
        with self.partial(ref) as partial:
            return ref.size - partial.held_bytes

    def complete(self, ref: BlobRef) -> bool:
        """Hash the whole blob, and move it among the complete ones if it just arrived.

        Returns:
            False where chunks are lacking or were damaged on disk: these alone must be fetched again.

        Raises:
            HashMismatchError: each chunk is right and the whole is not, so the reference contradicts itself.
        """
        if self.holds(ref):
            return self._check_held(ref)
        with self.partial(ref) as partial:
            if not partial.is_complete:
                return False
            if not _is_whole(partial.path, ref):
                if partial.recheck():
                    return False
                raise HashMismatchError(f"blob {ref.sha256}: its chunks are right, the whole has another hash")
            partial.unsynced += 1
            partial.flush()
        durable.move_into_place(partial.path, self.path(ref))
        durable.remove(self._partial / f"{ref.sha256}.have")
        return True

    def _check_held(self, ref: BlobRef) -> bool:
        path = self.path(ref)
        if _is_whole(path, ref):
            return True
        _LOG.warning("%s is damaged: its wrong chunks are fetched again", path)
        # Copied, not moved: slots share the damaged file's bytes, and a file in use must not change under its reader.
        with self.partial(ref) as partial:
            partial.adopt(path)
        durable.remove(path)
        return False

    def link(self, ref: BlobRef, target: Path) -> None:
        """Put the blob at `target` too: as a hard link, or a copy where the file system has none.

        Raises:
            DiskFullError, StorageError
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.path(ref), target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise StorageError(f"{target}: {error.strerror}") from error
            with durable.translated(target):
                shutil.copyfile(self.path(ref), target)

    def collect(self, reachable: AbstractSet[str]) -> int:
        """Delete every blob that is not in `reachable`; returns how many bytes that freed, links not counted."""
        freed = 0
        for folder in (self._folder, self._partial):
            for path in list(folder.iterdir()):
                digest = path.name.split(".")[0]
                if is_digest(digest) and digest not in reachable:
                    freed += path.stat().st_blocks * 512 if path.stat().st_nlink == 1 else 0
                    path.unlink()
            durable.sync_folder(folder)
        return freed


def _is_whole(path: Path, ref: BlobRef) -> bool:
    with durable.translated(path), path.open("rb") as file:
        found = blob_ref_of_file(file)
    return found.sha256 == ref.sha256 and found.size == ref.size
