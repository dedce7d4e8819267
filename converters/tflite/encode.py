"""Constants as the bytes that TFLite stores: little-endian, two int4 to a byte, strings behind a table of offsets."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from converters.tflite.model import Tensor

_WIDTHS = {"bfloat16": 2, "complex64": 8, "complex128": 16}
_INT4 = (-8, 7)


def nbytes(tensor: Tensor) -> int:
    """Bytes that a constant takes in the file, without reading it (strings are read)."""
    count = math.prod(tensor.shape)
    if tensor.dtype == "int4":
        return (count + 1) // 2
    if tensor.dtype == "string":
        return len(content(tensor))
    return count * (_WIDTHS.get(tensor.dtype) or np.dtype(tensor.dtype).itemsize)


def content(tensor: Tensor) -> memoryview:
    """The bytes of a constant: a view of its array where the array lies in memory as the file wants it.

    Raises:
        ValueError: the data are not of the tensor's shape or type: a mistake of whoever made the tensor.
    """
    if tensor.data is None:
        raise ValueError(f"{tensor.name} is no constant")
    array = tensor.data if isinstance(tensor.data, np.ndarray) else tensor.data.numpy()
    if array.shape != tensor.shape:
        raise ValueError(f"{tensor.name} has the shape {tensor.shape}, its data {array.shape}")
    if tensor.dtype == "string":
        return memoryview(_strings([_bytes(one) for one in array.reshape(-1).tolist()]))
    if tensor.dtype == "int4":
        return memoryview(_nibbles(tensor.name, array).data)
    if array.dtype.name != tensor.dtype:
        raise ValueError(f"{tensor.name} is {tensor.dtype}, its data {array.dtype.name}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _nibbles(name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """The first of two elements lies in the low half of their byte."""
    if array.dtype.name not in {"int4", "int8"}:
        raise ValueError(f"{name} is int4, its data {array.dtype.name}")
    wide = array.reshape(-1).astype(np.int8)
    if wide.size and (wide.min() < _INT4[0] or wide.max() > _INT4[1]):
        raise ValueError(f"{name} is int4, its data go from {wide.min()} to {wide.max()}")
    low = np.resize(np.append(wide, np.int8(0)), (wide.size + 1) // 2 * 2).view(np.uint8) & 0xF
    packed: npt.NDArray[np.uint8] = np.bitwise_or(low[0::2], np.left_shift(low[1::2], np.uint8(4)), dtype=np.uint8)
    return packed


def _strings(entries: Sequence[bytes]) -> bytes:
    """Source of the form: tensorflow/lite/string_util.h (count, offsets with one more for the end, characters)."""
    first = 4 * (len(entries) + 2)
    ends = np.cumsum([first, *map(len, entries)])
    return np.array([len(entries), *ends], "<i4").tobytes() + b"".join(entries)


def _bytes(entry: object) -> bytes:
    return entry if isinstance(entry, bytes) else str(entry).encode()
