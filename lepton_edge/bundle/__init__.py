"""The bundle: one model's variants with all that a device needs to choose, prove and run one of them."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from lepton_edge import durable
from lepton_edge.bundle.archive import ArchiveReader, Content, FolderReader, write_archive
from lepton_edge.bundle.golden import Golden, read_golden
from lepton_edge.bundle.manifest import (
    GOLDEN,
    MANIFEST,
    Binding,
    Latency,
    Manifest,
    Metric,
    ModelSignature,
    TensorSpec,
    Variant,
    identity,
    read_manifest,
)
from lepton_edge.errors import BundleError, HashMismatchError
from lepton_edge.typed import encode
from lepton_edge.wire.chunks import CHUNK_SIZE, BlobRef, blob_ref, blob_ref_of_file

__all__ = [
    "GOLDEN",
    "MANIFEST",
    "Binding",
    "Bundle",
    "Golden",
    "Latency",
    "Manifest",
    "Metric",
    "ModelSignature",
    "TensorSpec",
    "Variant",
    "read_golden",
    "read_manifest",
]


class _Reader(Protocol):
    def sizes(self) -> dict[str, int]: ...
    def read(self, name: str) -> bytes: ...
    def pieces(self, name: str) -> Iterator[bytes]: ...


class _LooseReader:
    """Files that are in memory, or lie anywhere on disk."""

    def __init__(self, files: Mapping[str, bytes | Path]) -> None:
        self._files = files

    def sizes(self) -> dict[str, int]:
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self._files.items()
        }

    def read(self, name: str) -> bytes:
        content = self._files[name]
        return content if isinstance(content, bytes) else content.read_bytes()

    def pieces(self, name: str) -> Iterator[bytes]:
        content = self._files[name]
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            while piece := file.read(CHUNK_SIZE):
                yield piece


def _named(content: bytes | Path) -> BlobRef:
    if isinstance(content, bytes):
        return blob_ref(content)
    with content.open("rb") as file:
        return blob_ref_of_file(file)


class Bundle:
    """A bundle in memory, in a folder or in a .lep file. Its files are read, and checked, when asked for."""

    def __init__(self, reader: _Reader, where: str) -> None:
        """Use `create` or `open`."""
        self._reader = reader
        self._where = where
        self.manifest_bytes = reader.read(MANIFEST)
        self.manifest: Manifest = read_manifest(self.manifest_bytes)
        self._check_sizes()

    @classmethod
    def create(cls, manifest: Manifest, files: Mapping[str, bytes | Path]) -> "Bundle":
        """A new bundle; the manifest's `files` is filled in from `files`.

        Args:
            manifest: all but its `files`.
            files: path in the bundle -> content, or the file that holds it. Such a file is read a chunk at a time,
                now and whenever it is asked for, so it must stay as long as the bundle is used.

        Raises:
            BundleError: as `read_manifest`.
        """
        refs = {path: _named(content) for path, content in sorted(files.items())}
        document = encode(msgspec.structs.replace(manifest, files=refs))
        return cls(_LooseReader({**files, MANIFEST: document}), f"{manifest.name}-{manifest.version}")

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Open a .lep file or an unpacked folder.

        Raises:
            BundleError: missing, truncated, oversized, an unsafe path, or a manifest that is not valid. The hashes
                of the files are checked by `read` and `verify`.
        """
        path = Path(path)
        if path.is_dir():
            return cls(FolderReader(path), str(path))
        return cls(ArchiveReader(path), str(path))

    @property
    def digest(self) -> str:
        """The bundle's identity: the SHA-256 of its manifest."""
        return identity(self.manifest_bytes)

    @property
    def label(self) -> str:
        """NAME-VERSION."""
        return f"{self.manifest.name}-{self.manifest.version}"

    @property
    def manifest_ref(self) -> BlobRef:
        return blob_ref(self.manifest_bytes)

    def read(self, path: str) -> bytes:
        """A file's content, verified.

        Raises:
            HashMismatchError: it is not what the manifest names.
            BundleError: the manifest names no such file.
        """
        ref = self.manifest.files.get(path)
        if ref is None:
            raise BundleError(f"{self._where}: {path} is not in the manifest")
        return ref.verify(self._reader.read(path), what=f"{self._where}: {path}")

    def golden(self) -> Golden:
        return read_golden(self.read(GOLDEN))

    def pieces(self, path: str) -> Iterator[bytes]:
        """A file's content in pieces of at most 64 KiB; the last one comes before the hash is checked.

        Raises:
            HashMismatchError: at the end: what came is not what the manifest names.
            BundleError: the manifest names no such file.
        """
        ref = self.manifest.files.get(path)
        if ref is None:
            raise BundleError(f"{self._where}: {path} is not in the manifest")
        digest = hashlib.sha256()
        for piece in self._reader.pieces(path):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != ref.sha256:
            raise HashMismatchError(f"{self._where}: {path}: sha256 {digest.hexdigest()}, expected {ref.sha256}")

    def verify(self) -> "Bundle":
        """Check every file against its hash; returns self. Raises HashMismatchError or BundleError."""
        for path in self.manifest.files:
            for _ in self.pieces(path):
                pass
        return self

    def extract(self, path: str, target: Path) -> Path:
        """Write one file, whole or not at all, verified on the way. Raises as `pieces`, DiskFullError, StorageError."""
        with durable.replacing(target) as out:
            out.writelines(self.pieces(path))
        return target

    def save(self, path: str | Path) -> Path:
        """Write the .lep file, whole or not at all; verified on the way.

        Raises:
            HashMismatchError, BundleError: a file is not what the manifest names.
            DiskFullError, StorageError: it cannot be written.
        """
        files = {name: Content(ref.size, self.pieces(name)) for name, ref in self.manifest.files.items()}
        files[MANIFEST] = Content(len(self.manifest_bytes), [self.manifest_bytes])
        with durable.replacing(Path(path)) as out:
            write_archive(out, files)
        return Path(path)

    def _check_sizes(self) -> None:
        sizes = self._reader.sizes()
        for path, ref in self.manifest.files.items():
            if sizes.get(path) != ref.size:
                raise BundleError(f"{self._where}: {path} has {sizes.get(path)} bytes, the manifest says {ref.size}")
        extra = sorted(set(sizes) - set(self.manifest.files) - {MANIFEST})
        if extra:
            raise BundleError(f"{self._where}: {extra[0]} is not in the manifest")
