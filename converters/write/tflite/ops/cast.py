"""Changes of type."""

import numpy as np
import onnx_ir as ir

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.widen import cast, same
from converters.write.tflite.table import lowers

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
    """Numbers that the target type cannot hold: integers keep their low bits; of floats ONNX leaves it open.

    Floats of all widths are float32 in the file.
    """
    x, output = low.input(0), low.output()
    if target in _FLOATS:
        cast(low, x, "float32", output) if x.dtype != "float32" else same(low, x, output)
    elif x.dtype == "float32" and target not in {ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64}:
        # Through a type that holds more, so that numbers out of range wrap around as ONNX Runtime's do.
        wide = cast(low, x, "int64" if target == ir.DataType.UINT32 else "int32")
        cast(low, wide, output.dtype, output)
    else:
        cast(low, x, output.dtype, output)


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
