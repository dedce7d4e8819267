"""The bundle: one model's variants with all that a device needs to choose, prove and run one of them."""

import io
from pathlib import Path
from typing import Protocol

import msgspec

from lepton_edge import durable
from lepton_edge.bundle.archive import ArchiveReader, FolderReader, write_archive
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
from lepton_edge.errors import BundleError
from lepton_edge.typed import encode
from lepton_edge.wire.chunks import BlobRef, blob_ref

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


class _MemoryReader:
    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def sizes(self) -> dict[str, int]:
        return {name: len(data) for name, data in self._files.items()}

    def read(self, name: str) -> bytes:
        return self._files[name]


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
    def create(cls, manifest: Manifest, files: dict[str, bytes]) -> "Bundle":
        """A new bundle; the manifest's `files` is filled in from `files` (path -> content).

        Raises:
            BundleError: as `read_manifest`.
        """
        refs = {path: blob_ref(data) for path, data in sorted(files.items())}
        document = encode(msgspec.structs.replace(manifest, files=refs))
        return cls(_MemoryReader({**files, MANIFEST: document}), f"{manifest.name}-{manifest.version}")

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

    def verify(self) -> "Bundle":
        """Check every file against its hash; returns self. Raises HashMismatchError or BundleError."""
        for path in self.manifest.files:
            self.read(path)
        return self

    def save(self, path: str | Path) -> Path:
        """Write the .lep file, whole or not at all; verified on the way."""
        files = {name: self.read(name) for name in self.manifest.files}
        files[MANIFEST] = self.manifest_bytes
        out = io.BytesIO()
        write_archive(out, files)
        durable.write(Path(path), out.getvalue())
        return Path(path)

    def _check_sizes(self) -> None:
        sizes = self._reader.sizes()
        for path, ref in self.manifest.files.items():
            if sizes.get(path) != ref.size:
                raise BundleError(f"{self._where}: {path} has {sizes.get(path)} bytes, the manifest says {ref.size}")
        extra = sorted(set(sizes) - set(self.manifest.files) - {MANIFEST})
        if extra:
            raise BundleError(f"{self._where}: {extra[0]} is not in the manifest")
