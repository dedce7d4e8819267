"""int8 without data for TFLite: weights in int8 behind a DequantizeLinear, everything else float.

TFLite calls such files hybrid: a matrix product quantises its input at run time and multiplies in int8, other readers
have int8 weights made float. Of an embedding int8 rows are gathered, and only the gathered rows become float.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.quantize.channels import Steps, nearest
from converters.quantize.insert import Inserter
from converters.quantize.nodata import DynamicResult

_MIN_ELEMENTS = 1024
"""Below this, scales and operators cost about as much as the bytes saved."""
_ERROR = 0.1
"""A layer's weights beyond this (root of squared error / squared weights) are no longer the same layer."""
_AXES = {"Conv": 0, "Gemm": 1, "MatMul": -1}
"""Operator -> the axis of the output channels in its weights, which have one scale each."""
_WEIGHT = 1
_TOLD = 64 * 1024
"""Bytes from which on a constant that stays float is worth a note."""


def quantize_hybrid(model: ir.Model) -> DynamicResult:
    """Hold the weights of a float graph in int8.

    Args:
        model: canonical, at opset 20; it is not changed.

    Returns:
        A new canonical graph; a weight that int8 does not carry well enough is float as before.
    """
    copy = model.clone()
    inserter = Inserter(copy.graph)
    notes = []
    for value in list(copy.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _MIN_ELEMENTS:
            continue
        reason = _hold(value, tensor.numpy(), inserter)
        if reason and tensor.nbytes >= _TOLD:
            notes.append(f"{value.name} stays float: {reason}")
    inserter.drop_unused()
    return DynamicResult(copy, notes)


def _hold(value: ir.Value, array: npt.NDArray[np.float32], inserter: Inserter) -> str:
    """Give a constant its int8 form; says why where it has none."""
    table = _is_table(value)
    axis = 0 if table else _axis(value)
    if axis is None:
        readers = sorted({use.node.op_type for use in value.uses()})
        return f"TFLite has no form of {', '.join(readers)} with int8 weights" if readers else ""
    if not np.isfinite(array).all():
        return "it holds NaN or Inf"
    made = nearest(array, [axis])
    if made.error > _ERROR:
        return f"int8 would carry it with an error of {100 * made.error:.1f} %, {100 * _ERROR:.0f} % is allowed"
    if table:
        _gather_rows(value, made, inserter)
    else:
        _dequantise(value, made, axis, inserter)
    return ""


def _axis(value: ir.Value) -> int | None:
    """The axis of the channels, where all that reads the constant takes it as weights of one shape."""
    rank = 0 if value.shape is None else len(value.shape)
    axes = set()
    for use in value.uses():
        axis = _AXES.get(use.node.op_type) if use.node.graph is value.graph and use.idx == _WEIGHT else None
        # One scale a column is one a channel only of a plain matrix.
        axes.add(None if axis is None or (use.node.op_type == "MatMul" and rank != 2) else axis % rank)
    return axes.pop() if len(axes) == 1 and not value.is_graph_output() else None


def _is_table(value: ir.Value) -> bool:
    """Whether whole rows are gathered from it, and nothing else is done."""
    return (
        bool(value.uses())
        and not value.is_graph_output()
        and all(
            use.node.op_type == "Gather"
            and use.idx == 0
            and use.node.graph is value.graph
            and use.node.attributes.get_int("axis", 0) == 0
            and value.shape is not None
            and len(value.shape) == 2
            for use in value.uses()
        )
    )


def _dequantise(value: ir.Value, made: Steps, axis: int, inserter: Inserter) -> None:
    scale = made.scale.reshape(-1)
    ends = [
        inserter.constant(f"{value.name}_int8", made.steps),
        inserter.constant(f"{value.name}_scale", scale),
        inserter.constant(f"{value.name}_zero_point", np.zeros(scale.shape, np.int8)),
    ]
    uses = list(value.uses())
    real = inserter.first()("DequantizeLinear", ends, f"{value.name}_real", ir.DataType.FLOAT, axis=axis)
    real.shape = value.shape
    for use in uses:
        use.node.replace_input_with(use.idx, real)


def _gather_rows(value: ir.Value, made: Steps, inserter: Inserter) -> None:
    """Rows of shape (..., columns) and their scales of shape (..., 1)."""
    table = inserter.constant(f"{value.name}_int8", made.steps)
    scale = inserter.constant(f"{value.name}_scale", made.scale)
    for use in list(value.uses()):
        node, name = use.node, str(use.node.name)
        at, shape = inserter.before(node), node.outputs[0].shape
        rows = at("Gather", [table, node.inputs[1]], f"{name}_rows", ir.DataType.INT8, axis=0)
        scales = at("Gather", [scale, node.inputs[1]], f"{name}_scales", ir.DataType.FLOAT, axis=0)
        real = at("Cast", [rows], f"{name}_real", ir.DataType.FLOAT, to=ir.DataType.FLOAT.value)
        rows.shape = real.shape = shape
        if shape is not None:
            scales.shape = ir.Shape([*shape.dims[:-1], 1])
        at.take_over(at("Mul", [real, scales], f"{name}_scaled", ir.DataType.FLOAT))
