"""Blob references: the one struct that names bytes everywhere, and the chunks that carry them.

A blob is cut into chunks of at most 64 KiB, each with its own hash, so that a receiver can verify and keep every
chunk alone, in any order. The cutter may change (content-defined cuts, say); the wire format does not.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from lepton_edge.errors import BundleError, HashMismatchError, MessageError
from lepton_edge.typed import Record

CHUNK_SIZE = 64 * 1024
MAX_CHUNKS = 65_536
MAX_BLOB_SIZE = MAX_CHUNKS * CHUNK_SIZE
MAX_BITS = 4096
"""Most chunks that one `need` message asks for."""

_HEX = frozenset("0123456789abcdef")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hex (and so safe as a file name and topic level)."""
    return len(text) == 64 and _HEX.issuperset(text)


class BlobRef(Record, frozen=True, kw_only=True):
    """The name of some bytes: their hash, size in bytes, and chunks as (sha256, size) in order."""

    sha256: str
    size: int
    chunks: list[tuple[str, int]]

    def check(self, *, what: str, max_size: int = MAX_BLOB_SIZE) -> "BlobRef":
        """Return self if it is consistent and within the caps; nothing may be fetched before.

        Raises:
            BundleError: sizes do not add up, a cap is passed, or a hash is no hash.
        """
        if not 0 <= self.size <= max_size:
            raise BundleError(f"{what}: size {self.size} is not within 0..{max_size} bytes")
        if len(self.chunks) > MAX_CHUNKS:
            raise BundleError(f"{what}: {len(self.chunks)} chunks, at most {MAX_CHUNKS} are accepted")
        if not is_digest(self.sha256) or not all(is_digest(digest) for digest, _ in self.chunks):
            raise BundleError(f"{what}: a hash is not 64 lower-case hex digits")
        if not all(0 < size <= CHUNK_SIZE for _, size in self.chunks):
            raise BundleError(f"{what}: a chunk's size is not within 1..{CHUNK_SIZE} bytes")
        if sum(size for _, size in self.chunks) != self.size:
            raise BundleError(f"{what}: the chunks do not add up to {self.size} bytes")
        return self

    def offsets(self) -> list[int]:
        """The byte offset of each chunk in the blob."""
        starts, at = [], 0
        for _, size in self.chunks:
            starts.append(at)
            at += size
        return starts

    def verify(self, data: bytes, *, what: str) -> bytes:
        """Return `data` if these are the bytes named. Raises HashMismatchError."""
        if len(data) != self.size:
            raise HashMismatchError(f"{what}: {len(data)} bytes, expected {self.size}")
        got = sha256(data)
        if got != self.sha256:
            raise HashMismatchError(f"{what}: sha256 {got}, expected {self.sha256}")
        return data


def blob_ref(data: bytes) -> BlobRef:
    """Cut `data` into fixed chunks and name it."""
    view = memoryview(data)
    cuts = [view[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)]
    return BlobRef(
        sha256=sha256(data),
        size=len(data),
        chunks=[(hashlib.sha256(cut).hexdigest(), len(cut)) for cut in cuts],
    )


def blob_ref_of_file(file: BinaryIO) -> BlobRef:
    """Like `blob_ref`, reading one chunk at a time."""
    whole, size, chunks = hashlib.sha256(), 0, []
    for chunk in _read_chunks(file):
        whole.update(chunk)
        size += len(chunk)
        chunks.append((sha256(chunk), len(chunk)))
    return BlobRef(sha256=whole.hexdigest(), size=size, chunks=chunks)


def _read_chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_SIZE):
        yield chunk


def pack_bits(lacking: Sequence[bool]) -> str:
    """Base64 of a bit field: bit i is bit i % 8, least significant first, of byte i // 8; 1 = lacking."""
    packed = bytearray((len(lacking) + 7) // 8)
    for index, bit in enumerate(lacking):
        if bit:
            packed[index // 8] |= 1 << (index % 8)
    return base64.b64encode(packed).decode("ascii")


def unpack_bits(text: str) -> list[int]:
    """The indices of the bits set.

    Raises:
        MessageError: not base64, or more than MAX_BITS bits.
    """
    if len(text) > 4 * ((MAX_BITS // 8 + 2) // 3):
        raise MessageError(f"need: more than {MAX_BITS} chunks in one message")
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise MessageError("need: bits are not base64") from cause
    if len(packed) * 8 > MAX_BITS:
        raise MessageError(f"need: more than {MAX_BITS} chunks in one message")
    return [8 * byte + bit for byte, value in enumerate(packed) for bit in range(8) if value >> bit & 1]
