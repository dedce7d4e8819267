"""The blob folder: contents by their hash, whole or absent."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from lepton_edge import durable
from lepton_edge.errors import BundleError, HashMismatchError, StorageError
from lepton_edge.wire.chunks import BlobRef, blob_ref_of_file, sha256


@asynccontextmanager
async def _in_thread(manager: AbstractContextManager[BinaryIO]) -> AsyncIterator[BinaryIO]:
    """Enter and leave `manager` in a worker thread: its fsync may take long."""
    file = await asyncio.to_thread(manager.__enter__)
    try:
        yield file
    except BaseException as error:
        await asyncio.to_thread(manager.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(manager.__exit__, None, None, None)


class BlobStore:
    """Files named by their SHA-256, below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def clean(self) -> None:
        """Delete what a crash left half-written."""
        for folder in self._root.glob("??"):
            durable.remove_leftovers(folder)

    def put(self, data: bytes) -> None:
        """Store small contents."""
        durable.write(self.path(sha256(data)), data, mode=0o600)

    async def receive(self, digest: str, size: int, parts: AsyncIterator[bytes]) -> None:
        """Store contents as they arrive; nothing stays of what turns out wrong.

        Raises:
            BundleError: more or fewer bytes than announced.
            HashMismatchError: they are not what `digest` names.
            StorageError, DiskFullError: they cannot be stored.
        """
        whole, got = hashlib.sha256(), 0
        async with _in_thread(durable.replacing(self.path(digest), mode=0o600)) as file:
            async for part in parts:
                got += len(part)
                if got > size:
                    raise BundleError(f"blob {digest[:12]}: more than the {size} bytes announced")
                whole.update(part)
                await asyncio.to_thread(file.write, part)
            if got != size:
                raise BundleError(f"blob {digest[:12]}: {got} bytes, {size} were announced: truncated")
            if whole.hexdigest() != digest:
                raise HashMismatchError(f"blob {digest[:12]}: the bytes hash to {whole.hexdigest()[:12]}")

    def check(self, ref: BlobRef, *, what: str) -> None:
        """Raise BundleError unless the contents here are cut into the very chunks that `ref` names."""
        try:
            with self.path(ref.sha256).open("rb") as file:
                got = blob_ref_of_file(file)
        except OSError as cause:
            raise StorageError(f"blob {ref.sha256[:12]}: {cause.strerror or cause}") from cause
        if got != ref:
            raise BundleError(f"{what}: its chunks are not those of its content")

    def read_chunk(self, ref: BlobRef, number: int) -> bytes:
        """Raises StorageError: the contents are gone, or damaged on the disk."""
        digest, size = ref.chunks[number]
        offset = sum(size for _, size in ref.chunks[:number])
        try:
            with self.path(ref.sha256).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as cause:
            raise StorageError(f"blob {ref.sha256[:12]}: {cause.strerror or cause}") from cause
        if sha256(data) != digest:
            raise StorageError(
                f"blob {ref.sha256[:12]}: chunk {number} is damaged on the disk; publish the bundle again"
            )
        return data
