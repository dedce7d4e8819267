"""The schema's generated accessors over bytes that nobody vouches for.

Generated accessors ask a table object for everything: where a field lies, what number stands there, how long a vector
is. The one that flatc's runtime gives them believes every offset. `CheckedTable` answers the same questions, looks
first whether the answer lies inside of the file, and counts what is visited, so that neither offsets that point
anywhere, nor tables that contain themselves, nor one table listed a million times cost more than the file is worth.
Source: FlatBuffers, Internals (tables, vtables, vectors); the generated code of schema.fbs (what it asks for).
"""

# ruff: noqa: N802 - the names are those that generated code calls
# ruff: noqa: SLF001 - generated classes hold their table in `_tab` and have no other door

from collections.abc import Iterator, Sequence
from struct import unpack_from
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.tflite.enums import SCHEMA
from lepton_edge.errors import ModelError

MAX_TABLES = 200_000
"""Tables in a file; the largest models have some ten thousand tensors and operators."""
_TABLE_BYTES = 8
"""The least that a table takes with the offset that leads to it."""
_READ_FACTOR = 2
"""Bytes of vectors and strings that may be read, as a multiple of the file: writers store a vector once per use."""
_FREE_BYTES = 1 << 16
_OFFSET_BYTES = 4
_LARGEST = 1 << 32
"""Offsets are of 32 bits; only constants may lie further on."""


class Walk:
    """One walk over one file.

    Args:
        data: the whole file.
        where: how messages name it.
    """

    def __init__(self, data: memoryview, where: str) -> None:
        self.data = data
        self.where = where
        self._most = self._tables = min(MAX_TABLES, len(data) // _TABLE_BYTES + 1)
        self._bytes = _READ_FACTOR * len(data) + _FREE_BYTES

    def root(self, name: str) -> Any:
        """The root table, which the file's first four bytes lead to."""
        made = getattr(SCHEMA, name)()
        made._tab = CheckedTable(self, 0, name)
        made._tab.Pos = made._tab.Indirect(0)
        return made

    def child(self, found: Any, label: str) -> Any:
        """A table that an accessor has given, made safe; None stays None."""
        if found is not None:
            found._tab = CheckedTable(self, found._tab.Pos, label)
        return found

    def children(self, table: Any, field: str) -> Iterator[Any]:
        """The tables of a vector, made safe; none where the field is absent."""
        for index in range(getattr(table, f"{field}Length")()):
            yield self.child(getattr(table, field)(index), f"{table._tab.label}.{field}[{index}]")

    def member(self, table: Any, field: str, kind: str) -> Any:
        """What a union's field holds, as the class `kind` of the schema."""
        made = getattr(SCHEMA, kind)()
        made._tab = CheckedTable(self, getattr(table, field)().Pos, f"{table._tab.label}.{field}")
        return made

    def damaged(self, label: str, what: str) -> ModelError:
        return ModelError(f"{self.where}: damaged: {label}: {what}: get the file again")

    def visit(self, label: str) -> None:
        """Count one table."""
        self._tables -= 1
        if self._tables < 0:
            raise self.damaged(label, f"more than {self._most} tables in {len(self.data)} bytes")

    def read(self, size: int, label: str) -> None:
        """Count bytes of vectors and strings."""
        self._bytes -= size
        if self._bytes < 0:
            raise self.damaged(label, "the same bytes are listed again and again")


class CheckedTable:
    """Stands where generated code expects `flatbuffers.table.Table`.

    Attributes:
        Bytes: the file.
        Pos: of the table.
        label: how messages name it.
    """

    def __init__(self, walk: Walk, pos: int, label: str) -> None:
        self.walk = walk
        self.Bytes = walk.data
        self.Pos = pos
        self.label = label
        walk.visit(label)

    def Get(self, flags: Any, off: int) -> Any:
        """The number at `off`; `flags` says of which type."""
        return flags.py_type(self._number(flags.packer_type.format, flags.bytewidth, off))

    def Offset(self, slot: int) -> int:
        """Where a field lies in the table; 0 where it is absent."""
        vtable = self.Pos - self._number("<i", 4, self.Pos)
        if slot + 2 > self._number("<H", 2, vtable):
            return 0
        return self._number("<H", 2, vtable + slot)

    def Indirect(self, off: int) -> int:
        """Where an offset leads."""
        to = off + self._number("<I", _OFFSET_BYTES, off)
        if to >= min(len(self.Bytes), _LARGEST):
            raise self.walk.damaged(self.label, f"it leads to byte {to} of {len(self.Bytes)}")
        return to

    def Union(self, found: Any, off: int) -> None:
        found.Pos = self.Indirect(self.Pos + off)
        found.Bytes = self.Bytes

    def Vector(self, off: int) -> int:
        """Where a vector's first element lies."""
        return self.Indirect(self.Pos + off) + _OFFSET_BYTES

    def VectorLen(self, off: int) -> int:
        """How many elements a vector has, of which each takes one byte at least."""
        return self._length(self.Vector(off))

    def String(self, off: int) -> bytes:
        start = self.Indirect(off) + _OFFSET_BYTES
        length = self._length(start)
        self.walk.read(length, self.label)
        return bytes(self.Bytes[start : start + length])

    def GetVectorAsNumpy(self, flags: Any, off: int) -> npt.NDArray[np.generic]:
        """A vector as a view of the file."""
        start, dtype = self.Vector(off), np.dtype(flags.name).newbyteorder("<")
        length = self._length(start, dtype.itemsize)
        if dtype.itemsize > 1:
            self.walk.read(length * dtype.itemsize, self.label)
        found: npt.NDArray[np.generic] = np.frombuffer(self.Bytes, dtype, length, start)
        return found

    def _length(self, start: int, width: int = 1) -> int:
        length = self._number("<I", 4, start - _OFFSET_BYTES)
        if length * width > len(self.Bytes) - start:
            raise self.walk.damaged(self.label, f"a vector of {length} elements at byte {start} of {len(self.Bytes)}")
        return length

    def _number(self, form: str, width: int, at: int) -> int:
        if not 0 <= at <= len(self.Bytes) - width:
            raise self.walk.damaged(self.label, f"it leads to byte {at} of {len(self.Bytes)}")
        if at % width:
            raise self.walk.damaged(self.label, f"byte {at} is no place for a number of {width} bytes")
        number: int = unpack_from(form, self.Bytes, at)[0]
        return number


def numbers(found: object) -> Sequence[int]:
    """What an ...AsNumpy accessor gave as whole numbers; it gives 0 for an absent vector."""
    return [int(one) for one in found.tolist()] if isinstance(found, np.ndarray) else []
