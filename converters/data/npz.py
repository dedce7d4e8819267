"""DATA in an .npz file: one array per model input by its name (or `x`), and optional targets `y`.

Nothing is believed before it is checked: the archive's list of members, each member's declared size, and the size that
its header promises must agree. Members that are stored as they are (numpy.savez) stay in the file and are read sample
by sample; compressed ones are unpacked once into a scratch file.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from converters.data.dataset import ArrayDataset
from converters.data.stored import Descriptor, Rows, StoredRows
from converters.data.targets import NO_TARGETS, Targets, as_targets
from lepton_edge.bundle.binding import Array
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError

MAX_MEMBERS = 256
MAX_DIRECTORY = 1024 * 1024
"""Bytes of the archive's list of members, which zipfile reads whole."""
MAX_UNPACKED = 8 * 1024 * 1024 * 1024
"""Bytes that compressed members may unpack to; one that was stored costs nothing."""
_BLOCK = 4 * 1024 * 1024
_HEADER_LIMIT = 64 * 1024
_END, _LOCAL = b"PK\x05\x06", struct.Struct("<4s22xHH")
_NOT_NPZ = (zipfile.BadZipFile, ValueError, EOFError, KeyError, zlib.error, struct.error, NotImplementedError)


class _Header(NamedTuple):
    """What an .npy header says: size of the header itself, type, shape, and whether the first axis runs fastest."""

    size: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool


def open_npz(path: Path, signature: ModelSignature, *, class_names: Sequence[str] = ()) -> ArrayDataset:
    """Open the file; its samples are read when they are asked for, in the types that they were stored in.

    Raises:
        DataError: unreadable, no .npz, pickled objects inside, more than it may unpack to, or arrays that do not fit
            the model.
        DiskFullError: no space to unpack compressed members.
    """
    try:
        arrays = _members(path)
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except _NOT_NPZ as cause:
        raise DataError(f"{path}: no .npz file of plain arrays, or a truncated one ({cause})") from cause
    return from_arrays(arrays, signature, where=str(path), class_names=class_names)


def from_arrays(
    arrays: Mapping[str, Rows], signature: ModelSignature, *, where: str, class_names: Sequence[str] = ()
) -> ArrayDataset:
    """Match arrays to inputs by name; `y`, or `y_OUTPUT` for each of several outputs, are targets.

    Raises:
        DataError: a name is missing or means nothing, or an array does not fit.
    """
    names = [spec.name for spec in signature.inputs]
    given = dict(arrays)
    targets = _take_targets(given, signature, class_names, where)
    if len(names) == 1 and "x" in given and names[0] not in given:
        given[names[0]] = given.pop("x")
    if sorted(given) != sorted(names):
        hint = " (or x)" if len(names) == 1 else ""
        raise DataError(f"{where}: holds the arrays {sorted(given)}, the model takes {names}{hint}; labels are named y")
    return ArrayDataset(given, targets, signature=signature, where=where)


def _take_targets(given: dict[str, Rows], signature: ModelSignature, class_names: Sequence[str], where: str) -> Targets:
    """Remove the targets from the arrays that were given."""
    inputs = {spec.name for spec in signature.inputs}
    outputs = [spec.name for spec in signature.outputs]
    if "y" in given and "y" not in inputs:
        first = outputs[0] if outputs else "y"
        return as_targets(given.pop("y"), output=first, class_names=class_names, where=where)
    found = {name: given.pop(f"y_{name}") for name in outputs if f"y_{name}" in given and f"y_{name}" not in inputs}
    for name, rows in found.items():
        if rows.dtype.kind not in "biuf":
            raise DataError(f"{where}: y_{name} holds {rows.dtype}; give numbers")
    return Targets(values=found) if found else NO_TARGETS


def _members(path: Path) -> dict[str, Rows]:
    file = Descriptor.opened(path)
    size = os.fstat(file.number).st_size
    if size >= 6 and file.read(0, 6) == b"\x93NUMPY":
        raise DataError(f"{path}: one bare array; save it with numpy.savez({path.name!r}, x=..., y=...)")
    _check_directory(file, size)
    with path.open("rb") as handle, zipfile.ZipFile(handle) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_MEMBERS or len({entry.filename for entry in entries}) != len(entries):
            raise ValueError(f"{len(entries)} members, at most {MAX_MEMBERS} with different names are accepted")
        packed = sum(entry.file_size for entry in entries if entry.compress_type != zipfile.ZIP_STORED)
        if packed > MAX_UNPACKED:
            raise DataError(
                f"{path}: would unpack to {packed} bytes, at most {MAX_UNPACKED} are accepted: "
                "save it with numpy.savez, which does not compress"
            )
        return {entry.filename.removesuffix(".npy"): _member(archive, entry, file, size) for entry in entries}


def _check_directory(file: Descriptor, size: int) -> None:
    """Refuse a list of members that is too long before zipfile reads it (APPNOTE.TXT, section 4.3.16)."""
    tail_size = min(size, 65_557)
    tail = file.read(size - tail_size, tail_size)
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < 22:
        raise ValueError("it does not end as a zip file does")
    (directory,) = struct.unpack_from("<I", tail, place + 12)
    locator = tail.rfind(b"PK\x06\x06")
    if directory == 0xFFFFFFFF and locator >= 0 and len(tail) - locator >= 48:
        (directory,) = struct.unpack_from("<Q", tail, locator + 40)
    if directory > MAX_DIRECTORY:
        raise ValueError(f"its list of members has {directory} bytes, at most {MAX_DIRECTORY} are accepted")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Descriptor, size: int) -> Rows:
    """One array; raises ValueError and the like where it is not what it says."""
    if entry.flag_bits & 0x1:
        raise ValueError(f"{entry.filename} is encrypted")
    with archive.open(entry) as stream:
        header = _read_header(stream, entry)
        if entry.compress_type == zipfile.ZIP_STORED and not header.fortran:
            start = _data_start(file, entry) + header.size
            if entry.compress_size != entry.file_size or start - header.size + entry.file_size > size:
                raise ValueError(f"{entry.filename} reaches past the end of the file")
            return StoredRows(file, start, header.dtype, header.shape)
        return _unpacked(stream, header, file.name)


def _read_header(stream: IO[bytes], entry: zipfile.ZipInfo) -> _Header:
    start = stream.read(min(entry.file_size, _HEADER_LIMIT))
    buffer = io.BytesIO(start)
    version = np.lib.format.read_magic(buffer)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(buffer)
    else:
        raise ValueError(f"{entry.filename} is in .npy version {version}; versions 1 and 2 are read")
    if dtype.hasobject or dtype.fields is not None or not dtype.itemsize:
        raise ValueError(f"{entry.filename} holds {dtype}: pickled objects and records are not read")
    promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if any(axis < 0 for axis in shape) or buffer.tell() + promised != entry.file_size:
        raise ValueError(
            f"{entry.filename} is truncated, or not the {list(shape)} of {dtype} that it says: {entry.file_size} bytes"
        )
    stream.seek(buffer.tell())
    return _Header(buffer.tell(), dtype, tuple(int(axis) for axis in shape), fortran and len(shape) > 1)


def _data_start(file: Descriptor, entry: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose lengths may differ from the directory's."""
    magic, name_size, extra_size = _LOCAL.unpack(file.read(entry.header_offset, _LOCAL.size))
    if magic != b"PK\x03\x04":
        raise ValueError(f"{entry.filename} does not begin where the list of members says")
    return entry.header_offset + _LOCAL.size + int(name_size) + int(extra_size)


def _unpacked(stream: IO[bytes], header: _Header, where: str) -> Rows:
    """Copy a member to a scratch file; zipfile checks its CRC at the end."""
    scratch = Descriptor.scratch(where)
    while block := stream.read(_BLOCK):
        scratch.append(block)
    if header.fortran:
        return _turned(scratch, header)
    return StoredRows(scratch, 0, header.dtype, header.shape)


def _turned(scratch: Descriptor, header: _Header) -> Rows:
    """An array whose first axis runs fastest, with its samples made whole: some samples at a time."""
    if not np.prod(header.shape, dtype=object):
        return StoredRows(scratch, 0, header.dtype, header.shape)
    turned = Descriptor.scratch(scratch.name)
    with os.fdopen(os.dup(scratch.number), "rb") as handle:
        whole: Array = np.memmap(handle, header.dtype, "r", 0, header.shape, order="F")
        step = max(1, _BLOCK // max(1, whole[:1].nbytes))
        for start in range(0, len(whole), step):
            turned.append(np.ascontiguousarray(whole[start : start + step]).tobytes())
    return StoredRows(turned, 0, header.dtype, header.shape)
