"""Constants out of the bytes that TFLite stores: the other direction of `encode`."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.tflite.model import Tensor

_OUTSIDE = 1
"""Buffer.offset up to this value says nothing: 0 is the default, 1 what writers put there before they know."""
_STRANGE = {"bfloat16": "<u2", "complex64": "<c8", "complex128": "<c16", "bool": "?", "int4": "i1"}


def stored_bytes(buffer: Any, data: memoryview) -> memoryview | None:
    """The bytes of a Buffer table, inside of the flatbuffer or behind it; None where it is empty.

    Raises:
        ValueError: it lies outside of the file.
    """
    found = buffer.DataAsNumpy()
    if isinstance(found, np.ndarray) and len(found):
        return found.data
    offset, size = buffer.Offset(), buffer.Size()
    if offset <= _OUTSIDE or not size:
        return None
    if offset + size > len(data):
        raise ValueError(f"constants from byte {offset} to {offset + size} of {len(data)}")
    return data[offset : offset + size]


def array_of(stored: memoryview, tensor: Tensor) -> npt.NDArray[np.generic]:
    """A constant of the tensor's shape: a view of `stored` but for int4 and strings. bfloat16 stays 16-bit integers.

    Raises:
        ValueError: the bytes are more or fewer than shape and type need.
    """
    if tensor.dtype == "string":
        return np.array(_strings(stored, math.prod(tensor.shape)), object).reshape(tensor.shape)
    if tensor.dtype in {"resource", "variant"}:
        raise ValueError(f"a constant of type {tensor.dtype}")
    count = math.prod(tensor.shape)
    if tensor.dtype == "int4":
        return _nibbles(stored, count).reshape(tensor.shape)
    dtype = np.dtype(_STRANGE.get(tensor.dtype) or tensor.dtype).newbyteorder("<")
    _check(len(stored), count * dtype.itemsize, tensor)
    return np.frombuffer(stored, dtype).reshape(tensor.shape)


def _check(have: int, want: int, tensor: Tensor) -> None:
    if have != want:
        raise ValueError(f"{have} bytes of data where {tensor.dtype} of shape {list(tensor.shape)} needs {want}")


def _nibbles(stored: memoryview, count: int) -> npt.NDArray[np.int8]:
    """The first of two elements lies in the low half of their byte."""
    if len(stored) != (count + 1) // 2:
        raise ValueError(f"{len(stored)} bytes of data for {count} elements of int4")
    both = np.frombuffer(stored, np.int8)
    pairs = np.stack([np.left_shift(both, 4) >> 4, both >> 4], axis=1)
    return pairs.reshape(-1)[:count].astype(np.int8)


def _strings(stored: memoryview, count: int) -> list[bytes]:
    """Source of the form: tensorflow/lite/string_util.h (count, offsets with one more for the end, characters)."""
    if len(stored) < 4 * (count + 2) or int.from_bytes(stored[:4], "little") != count:
        raise ValueError(f"{len(stored)} bytes of data do not hold {count} strings")
    ends = np.frombuffer(stored, "<i4", count + 1, 4).tolist()
    if any(not 0 <= a <= b <= len(stored) for a, b in pairwise(ends)):
        raise ValueError("strings that lie outside of their data")
    return [bytes(stored[a:b]) for a, b in pairwise(ends)]
