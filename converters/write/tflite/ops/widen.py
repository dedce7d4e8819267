"""Operands brought to a type and a rank that a kernel has.

Plain integers of 8 and 16 bits are widened to int32 and cut off again afterwards: casts between integers keep the low
bits, so that sums, differences and products wrap around as the graph's type does.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import known
from converters.write.tflite.program import Size, Together, Value

FLOAT: frozenset[DType] = frozenset({"float32"})
NUMBERS: frozenset[DType] = frozenset({"float32", "int32", "int64"})
SMALL: frozenset[DType] = frozenset({"bool", "int8", "uint8", "int16", "uint16"})
"""Whose values int32 holds."""
_INT64: frozenset[DType] = SMALL | {"int32", "uint32"}


def working_type(low: Lowering, dtype: DType, takes: frozenset[DType]) -> DType:
    """The narrowest type that a kernel takes and that holds all values of `dtype`."""
    found: DType | None = None
    if dtype in takes:
        found = dtype
    elif dtype in SMALL and "int32" in takes:
        found = "int32"
    elif dtype in _INT64 and "int64" in takes:
        found = "int64"
    if found is None:
        low.refuse(f"TFLite's kernel takes {', '.join(sorted(takes))}, not {dtype}")
    return found


def cast(low: Lowering, value: Value, dtype: DType, output: Value | None = None) -> Value:
    """A value in another type: integers keep their low bits; a constant is cast now."""
    if value.constant and output is None:
        return value if value.dtype == dtype else low.constant(value.array().astype(np.dtype(dtype)), what=value.name)
    if value.dtype == dtype:
        return value if output is None else low.copy(value, output)
    if "uint64" in {value.dtype, dtype}:
        low.refuse("TFLite cannot cast uint64")
    made = output or low.like(value, dtype=dtype)
    low.emit("CAST", [value], [made], {"in_data_type": value.dtype, "out_data_type": dtype}, rule=Together())
    return made


def aligned(low: Lowering, value: Value, rank: int) -> Value:
    """The same with axes of size 1 in front; constants may stay as they are."""
    if value.constant or value.rank == rank:
        return value
    return low.reshape(value, (1,) * (rank - value.rank) + value.shape)


def elementwise(
    low: Lowering,
    code: str,
    inputs: Sequence[Value],
    output: Value | None = None,
    *,
    takes: frozenset[DType] = FLOAT,
    shape: Sequence[Size] | None = None,
    gives: DType | None = None,
) -> Value:
    """Emit an operator that broadcasts, in a type that its kernel takes.

    Args:
        output: where it goes; a new value of `shape` where absent.
        takes: types of the kernel's inputs; those with scales are taken as they are.
        gives: the type of the result, where it is not the inputs'.
    """
    sizes = output.shape if output is not None else tuple(shape if shape is not None else inputs[0].shape)
    if any(value.quantization is not None for value in inputs):
        made = output or low.like(inputs[0], sizes)
        low.emit(code, [aligned(low, value, len(sizes)) for value in inputs], [made], rule=Together())
        return made
    dtype = working_type(low, inputs[0].dtype, takes)
    operands = [aligned(low, cast(low, value, dtype), len(sizes)) for value in inputs]
    if gives is not None or (output is not None and output.dtype == dtype):
        made = output or low.temp(sizes, gives or dtype)
        low.emit(code, operands, [made], rule=Together())
        return made
    made = low.temp(sizes, dtype)
    low.emit(code, operands, [made], rule=Together())
    return made if output is None else cast(low, made, output.dtype, output)


def narrowed(low: Lowering, value: Value) -> Value:
    """int64 parameters as int32, cut to its range: the largest numbers stand for "to the end"."""
    if value.dtype != "int64" or value.constant:
        data = np.clip(value.array(), -(2**31) + 1, 2**31 - 1) if value.constant else None
        return value if data is None else low.constant(data.astype(np.int32), what=value.name)
    limit = np.int64(2**31 - 1)
    capped = elementwise(low, "MINIMUM", [value, low.constant(limit)], takes=NUMBERS)
    return cast(low, elementwise(low, "MAXIMUM", [capped, low.constant(-limit)], takes=NUMBERS), "int32")


def integers(value: Value) -> npt.NDArray[np.int64]:
    """The numbers of a constant of integers."""
    return np.asarray(value.array(), np.int64)


def constant_ints(value: Value | None) -> list[int] | None:
    """The numbers of a constant; of a tensor that is fed and has no entries too. None where they are not known."""
    if value is None:
        return None
    if 0 in value.shape:
        return []
    return [int(entry) for entry in value.array().reshape(-1)] if value.constant else None


def fill(low: Lowering, array: npt.ArrayLike, output: Value) -> None:
    """Write a constant to an output. One without entries has no bytes in a file, and is filled when it is run."""
    data = np.asarray(array).astype(np.dtype(output.dtype))
    if data.size:
        low.reshape(low.constant(data), output.shape, output)
        return
    sizes = low.constant(np.array(data.shape, np.int32))
    low.emit("FILL", [sizes, low.constant(np.zeros((), data.dtype))], [output])


def same(low: Lowering, value: Value, output: Value) -> None:
    """Write a value as it is."""
    low.copy(value, output)


def static(low: Lowering, value: Value, what: str) -> tuple[int, ...]:
    """A shape without open sizes."""
    sizes = known(value.shape)
    if sizes is None:
        low.refuse(f"{what} {list(value.shape)} has open sizes")
    return sizes
