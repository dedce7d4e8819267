"""Arrays that stay on disk: samples are read when they are asked for, so memory holds one block at a time.

Not mapped into memory: pages of a mapping count as the process's own as they are touched, so that a pass over the
samples would look, and under a container's limit be, as large as the file.
"""

import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from converters.workspace import disk_full_named
from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError


class Rows(Protocol):
    """An array whose first axis is the samples; slices of it are plain arrays."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> Array: ...


class Descriptor:
    """An open file that is closed when nobody needs it any more."""

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self._finish = weakref.finalize(self, os.close, number)

    @classmethod
    def opened(cls, path: Path) -> "Descriptor":
        """Open a file for reading. Raises OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), str(path))

    @classmethod
    def scratch(cls, name: str) -> "Descriptor":
        """A new file without a name in the system's temporary folder: it is gone when it is closed, or we are killed.

        Raises:
            DiskFullError: no space for it.
        """
        with disk_full_named(Path(tempfile.gettempdir())):
            number, path = tempfile.mkstemp(prefix="lepton-edge-samples-")
            Path(path).unlink()
        return cls(number, name)

    def append(self, data: bytes | memoryview) -> None:
        """Raises DiskFullError."""
        view = memoryview(data)
        with disk_full_named(Path(tempfile.gettempdir())):
            while view:
                view = view[os.write(self.number, view) :]

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes.

        Raises:
            DataError: the file has become shorter, or cannot be read.
        """
        parts = []
        try:
            while size and (part := os.pread(self.number, size, offset)):
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
        except OSError as cause:
            raise DataError(f"{self.name}: {cause.strerror or cause}") from cause
        if size:
            raise DataError(f"{self.name}: {size} bytes are missing: has it changed meanwhile?")
        return parts[0] if len(parts) == 1 else b"".join(parts)


class StoredRows:
    """An array in a file, in C order, from `offset` on."""

    def __init__(self, file: Descriptor, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._file, self._offset = file, offset
        self.dtype, self.shape = dtype, shape
        self._row_bytes = int(np.prod(shape[1:], dtype=object)) * dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, rows: slice, /) -> Array:
        start, stop, _ = slice(rows.start, rows.stop).indices(len(self))
        count = max(0, stop - start)
        data = self._file.read(self._offset + start * self._row_bytes, count * self._row_bytes)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
