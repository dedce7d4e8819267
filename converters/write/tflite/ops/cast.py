"""Changes of type."""

import numpy as np
import onnx_ir as ir

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.widen import cast, same
from converters.write.tflite.program import Together, Value
from converters.write.tflite.table import lowers
from converters.write.tflite.values import dtype_of

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}


@lowers("Cast", since=6)
def to_type(low: Lowering) -> None:
    _cast(low, ir.DataType(low.integer("to", 0)))


@lowers("CastLike", since=15)
def to_type_of(low: Lowering) -> None:
    target = low.node.inputs[1]
    if target is None or target.dtype is None:
        low.refuse("the type to cast to is not known")
    _cast(low, target.dtype)


def _cast(low: Lowering, target: ir.DataType) -> None:
    """Numbers that the target type cannot hold: integers keep their low bits; of floats ONNX leaves it open."""
    x, output, source = low.input(0), low.output(), low.node.inputs[0]
    dtype_of(low.node.outputs[0])
    kind = source.dtype if source is not None else None
    if target == ir.DataType.FLOAT16 and kind not in {
        ir.DataType.FLOAT16,
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.UINT8,
    }:
        _rounded(low, cast(low, x, "float32"), output)
    elif target in _FLOATS:
        cast(low, x, "float32", output) if x.dtype != "float32" else same(low, x, output)
    elif x.dtype == "float32" and target not in {ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64}:
        # Through a type that holds more, so that numbers out of range wrap around as ONNX Runtime's do.
        wide = cast(low, x, "int64" if target == ir.DataType.UINT32 else "int32")
        cast(low, wide, output.dtype, output)
    else:
        cast(low, x, output.dtype, output)


def _rounded(low: Lowering, x: Value, output: Value) -> None:
    """float32 with the digits of float16: there and back."""
    half = low.temp(x.shape, "float16")
    low.emit("CAST", [x], [half], {"in_data_type": "float32", "out_data_type": "float16"}, rule=Together())
    low.emit("CAST", [half], [output], {"in_data_type": "float16", "out_data_type": "float32"}, rule=Together())


@lowers("Identity", since=1, int8=True, moves=True)
def identity(low: Lowering) -> None:
    same(low, low.input(0), low.output())


@lowers("Dropout", since=12)
def dropout(low: Lowering) -> None:
    """Nothing is dropped in inference."""
    training = low.optional(2)
    if training is not None and (not training.constant or training.array().any()):
        low.refuse("it is for training")
    x = low.input(0)
    same(low, x, low.output())
    mask = low.optional_output(1)
    if mask is not None:
        sizes = [size if isinstance(size, int) else 1 for size in x.shape]
        if len([size for size in x.shape if isinstance(size, int)]) < x.rank:
            low.refuse("its mask has open sizes")
        low.reshape(low.constant(np.ones(sizes, np.bool_)), mask.shape, mask)
