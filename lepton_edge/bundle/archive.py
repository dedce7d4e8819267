"""The .lep file: one zip of a bundle's folder, entries sorted, stored, dated 1980, so equal bundles are equal bytes.

Reading trusts nothing: entries must be stored (so nothing can unpack to more than the file is), unencrypted, named
once, named safely, and no larger than the file itself; all this is checked before the first byte is read.
"""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lepton_edge.bundle.manifest import MANIFEST, MAX_MANIFEST, is_safe_path
from lepton_edge.errors import BundleError
from lepton_edge.wire.chunks import CHUNK_SIZE

_DATE = (1980, 1, 1, 0, 0, 0)
MAX_ENTRIES = 4096


class Content(NamedTuple):
    """What goes into one entry: its size in bytes, and the bytes in pieces."""

    size: int
    pieces: Iterable[bytes]


def write_archive(out: BinaryIO, files: Mapping[str, Content]) -> None:
    """Write the zip of `files` (path -> content), holding one piece at a time."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, date_time=_DATE)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            info.file_size = files[path].size
            with archive.open(info, "w") as entry:
                for piece in files[path].pieces:
                    entry.write(piece)


class ArchiveReader:
    """The files of a .lep, read one at a time."""

    def __init__(self, path: Path) -> None:
        """Raises BundleError: no zip, truncated, or an entry that breaks the rules above."""
        self._path = path
        self._sizes = self._check()

    def _check(self) -> dict[str, int]:
        try:
            with zipfile.ZipFile(self._path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as cause:
            raise BundleError(f"{self._path}: no bundle, or truncated ({cause})") from cause
        except OSError as cause:
            raise BundleError(f"{self._path}: {cause.strerror or cause}") from cause
        if len(entries) > MAX_ENTRIES:
            raise BundleError(f"{self._path}: {len(entries)} entries, at most {MAX_ENTRIES} are accepted")
        for entry in entries:
            self._check_entry(entry)
        sizes = {entry.filename: entry.file_size for entry in entries}
        if len(sizes) != len(entries):
            raise BundleError(f"{self._path}: two entries have one name")
        if sum(sizes.values()) > self._path.stat().st_size:
            raise BundleError(f"{self._path}: its entries claim more bytes than the file has")
        return sizes

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        where = f"{self._path}: entry {entry.filename[:80]!r}"
        if not is_safe_path(entry.filename):
            raise BundleError(f"{where}: its name could escape the folder")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise BundleError(f"{where}: compressed; the entries of a bundle are stored")
        if entry.flag_bits & 0x1:
            raise BundleError(f"{where}: encrypted")
        if entry.filename == MANIFEST and entry.file_size > MAX_MANIFEST:
            raise BundleError(f"{where}: {entry.file_size} bytes, at most {MAX_MANIFEST} are accepted")

    def sizes(self) -> dict[str, int]:
        return dict(self._sizes)

    def read(self, name: str) -> bytes:
        """Raises BundleError where the entry is missing or damaged."""
        return b"".join(self.pieces(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """The entry's bytes, CHUNK_SIZE at a time. Raises BundleError where it is missing or damaged."""
        if name not in self._sizes:
            raise BundleError(f"{self._path}: {name} is missing")
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(name) as entry:
                while piece := entry.read(CHUNK_SIZE):
                    yield piece
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as cause:
            raise BundleError(f"{self._path}: {name} is damaged ({cause})") from cause
        except OSError as cause:
            raise BundleError(f"{self._path}: {cause.strerror or cause}") from cause


class FolderReader:
    """The files of an unpacked bundle."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        """Raises BundleError for a symbolic link or an unsafe name."""
        found = {}
        for path in sorted(self._path.rglob("*")):
            name = path.relative_to(self._path).as_posix()
            if path.is_symlink() or not is_safe_path(name):
                raise BundleError(f"{self._path}: {name} is a link or has a name that is not allowed")
            if path.is_file():
                found[name] = path.stat().st_size
        return found

    def read(self, name: str) -> bytes:
        return b"".join(self.pieces(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """The file's bytes, CHUNK_SIZE at a time. Raises BundleError where it is missing."""
        if name not in self.sizes():
            raise BundleError(f"{self._path}: {name} is missing")
        with (self._path / name).open("rb") as file:
            while piece := file.read(CHUNK_SIZE):
                yield piece
