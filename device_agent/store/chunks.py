"""A blob that is still arriving: its bytes, and a bitmap of the chunks that are surely on disk.

The bytes are fsynced before the bitmap that claims them. A power loss can thus only lose claims, never make a false
one; a disk can still lie, so claims are hashed again when the file is opened and whenever the whole turns out wrong.
"""

import base64
import binascii
import logging
import os
from pathlib import Path
from typing import Self

from device_agent.store import documents
from lepton_edge import durable
from lepton_edge.typed import Record
from lepton_edge.wire.chunks import BlobRef, sha256

_LOG = logging.getLogger(__name__)


class _Claims(Record, frozen=True, kw_only=True):
    """have: base64 of one byte a chunk, 1 = on disk."""

    blob: str
    have: str
    v: int = 1


class PartialBlob:
    """The chunks of one blob that have arrived. Not for two threads at once; blocking."""

    def __init__(self, folder: Path, ref: BlobRef) -> None:
        """Open or begin it. Raises DiskFullError or StorageError."""
        self.ref = ref
        self.path = folder / f"{ref.sha256}.data"
        self._claims = folder / f"{ref.sha256}.have"
        self._offsets = ref.offsets()
        self._held = self._read_claims()
        self.unsynced = 0
        with durable.translated(self.path):
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.recheck()

    def _read_claims(self) -> list[bool]:
        count = len(self.ref.chunks)
        claims = documents.load(self._claims, _Claims)
        if claims is None or claims.blob != self.ref.sha256:
            return [False] * count
        try:
            have = base64.b64decode(claims.have, validate=True)
        except binascii.Error:
            have = b""
        # A wrong length would shift no claim, but says that the file is damaged: better to fetch again.
        return [byte == 1 for byte in have] if len(have) == count else [False] * count

    @property
    def lacking(self) -> list[bool]:
        return [not held for held in self._held]

    @property
    def is_complete(self) -> bool:
        return all(self._held)

    @property
    def held_bytes(self) -> int:
        return sum(size for held, (_, size) in zip(self._held, self.ref.chunks, strict=True) if held)

    def put(self, index: int, data: bytes) -> bool:
        """Take in a chunk that came from anywhere.

        Returns:
            Whether it was wanted and is what the reference names; anything else is ignored.

        Raises:
            DiskFullError, StorageError: it could not be written.
        """
        if not 0 <= index < len(self._held) or self._held[index]:
            return False
        digest, size = self.ref.chunks[index]
        if len(data) != size or sha256(data) != digest:
            return False
        with durable.translated(self.path):
            self._write(self._offsets[index], data)
        self._held[index] = True
        self.unsynced += 1
        return True

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._handle, view, offset)
            view, offset = view[written:], offset + written

    def flush(self) -> None:
        """Make the chunks durable, then the claims. Raises DiskFullError or StorageError."""
        if not self.unsynced:
            return
        with durable.translated(self.path):
            os.fsync(self._handle)
        have = base64.b64encode(bytes(self._held)).decode("ascii")
        documents.save(self._claims, _Claims(blob=self.ref.sha256, have=have))
        self.unsynced = 0

    def recheck(self) -> int:
        """Hash every claimed chunk again; drop, count and log those that are wrong."""
        wrong = [index for index, held in enumerate(self._held) if held and not self._is_right(index)]
        for index in wrong:
            self._held[index] = False
        if wrong:
            _LOG.warning("%s: %d of its chunks are damaged and are fetched again", self.path.name, len(wrong))
            self.unsynced += len(wrong)
            self.flush()
        return len(wrong)

    def adopt(self, source: Path) -> None:
        """Start from the bytes of another file: keep each chunk of it that is right."""
        with durable.translated(source), source.open("rb") as file:
            for index, (_, size) in enumerate(self.ref.chunks):
                self.put(index, file.read(size))
        self.flush()

    def _is_right(self, index: int) -> bool:
        digest, size = self.ref.chunks[index]
        with durable.translated(self.path):
            return sha256(os.pread(self._handle, size, self._offsets[index])) == digest

    def close(self) -> None:
        os.close(self._handle)

    def discard(self) -> None:
        """Forget it all."""
        self.close()
        for path in (self._claims, self.path):
            durable.remove(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
