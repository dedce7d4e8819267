"""The graph's tensors as values of a program."""

from functools import partial

import numpy as np
import onnx_ir as ir

from converters.tflite.model import DType
from converters.write.tflite.lowering import CannotLowerError
from converters.write.tflite.program import Size, Value

_TYPES: dict[ir.DataType, DType] = {
    ir.DataType.FLOAT: "float32",
    # TFLite's kernels compute in float32 alone: wider and narrower floats become that.
    ir.DataType.DOUBLE: "float32",
    ir.DataType.FLOAT16: "float32",
    ir.DataType.INT8: "int8",
    ir.DataType.INT16: "int16",
    ir.DataType.INT32: "int32",
    ir.DataType.INT64: "int64",
    ir.DataType.UINT8: "uint8",
    ir.DataType.UINT16: "uint16",
    ir.DataType.UINT32: "uint32",
    ir.DataType.UINT64: "uint64",
    ir.DataType.BOOL: "bool",
}
_KEPT_HALF_BYTES = 1024
"""Float16 constants from this size on stay float16 in the file."""


def dtype_of(value: ir.Value) -> DType:
    """The type that stands for a tensor's own.

    Raises:
        CannotLowerError: one that TFLite does not have, or an unknown one.
    """
    found = _TYPES.get(value.dtype) if value.dtype is not None else None
    if found is None or not isinstance(value.type, ir.TensorType | None):
        kind = value.type if value.dtype is None else value.dtype.name
        raise CannotLowerError(f"TFLite has no tensors like {value.name!r} ({kind or 'of unknown type'})")
    return found


def shape_of(value: ir.Value) -> tuple[Size, ...]:
    """Sizes; a name for each open one.

    Raises:
        CannotLowerError: the number of axes is not known.
    """
    if value.shape is None:
        raise CannotLowerError(f"the shape of {value.name!r} is not known")
    return tuple(
        size if isinstance(size, int) else (size.value or f"{value.name}_{axis}")
        for axis, size in enumerate(value.shape)
    )


def activation(value: ir.Value) -> Value:
    """A tensor that is computed or fed. Raises CannotLowerError as `dtype_of` and `shape_of`."""
    return Value(value.name or "", shape_of(value), dtype_of(value))


def constant(value: ir.Value) -> Value:
    """An initialiser. Raises CannotLowerError as `dtype_of`."""
    tensor = value.const_value
    if tensor is None:
        raise AssertionError(f"{value.name} is no constant")
    dtype, shape = dtype_of(value), tuple(int(size) for size in tensor.shape.numpy())
    name = value.name or ""
    if tensor.dtype in {ir.DataType.DOUBLE, ir.DataType.FLOAT16}:
        data = ir.LazyTensor(partial(_as_float32, tensor), dtype=ir.DataType.FLOAT, shape=ir.Shape(shape))
        half = tensor.dtype == ir.DataType.FLOAT16 and tensor.nbytes >= _KEPT_HALF_BYTES
        stored = Value(f"{name}_float16", shape, "float16", data=tensor) if half else None
        return Value(name, shape, dtype, data=data, stored=stored)
    return Value(name, shape, dtype, data=tensor)


def _as_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(np.float32))
