"""Samples in a scratch file, written one after another and read by their number."""

from array import array

import numpy as np

from converters.data.stored import Descriptor
from lepton_edge.bundle.binding import Arrays
from lepton_edge.errors import DataError

MAX_BYTES = 64 * 1024 * 1024 * 1024
MAX_SAMPLES = 16 * 1024 * 1024

Form = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, type and shape of each array of a sample."""


class Spool:
    """Mappings of arrays, which may differ in shape from sample to sample. Memory holds 16 bytes a sample."""

    def __init__(self, where: str) -> None:
        """Begin with none; `where` names their origin in messages. Raises DiskFullError."""
        self._file = Descriptor.scratch(where)
        self._where = where
        self._size = 0
        self._offsets, self._numbers = array("q"), array("q")
        self._forms: dict[Form, int] = {}
        self._by_number: list[Form] = []

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, sample: Arrays) -> None:
        """Write a sample behind the others.

        Raises:
            DataError: there are too many.
            DiskFullError: no space left.
        """
        form: Form = tuple((name, one.dtype.str, one.shape) for name, one in sample.items())
        if form not in self._forms:
            self._forms[form] = len(self._by_number)
            self._by_number.append(form)
        self._numbers.append(self._forms[form])
        self._offsets.append(self._size)
        for one in sample.values():
            self._file.append(np.ascontiguousarray(one).tobytes())
            self._size += one.nbytes
        if self._size > MAX_BYTES or len(self) > MAX_SAMPLES:
            raise DataError(
                f"{self._where}: more than {MAX_SAMPLES} samples or {MAX_BYTES} bytes: does it ever end? Give fewer"
            )

    def read(self, index: int) -> Arrays:
        """A sample's arrays. Raises DataError where the file cannot be read."""
        offset, sample = self._offsets[index], {}
        for name, kind, shape in self._by_number[self._numbers[index]]:
            dtype = np.dtype(kind)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            sample[name] = np.frombuffer(self._file.read(offset, size), dtype).reshape(shape)
            offset += size
        return sample
