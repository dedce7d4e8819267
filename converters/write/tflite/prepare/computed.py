"""QuantizeLinear and DequantizeLinear whose scale or zero point is computed: plain arithmetic.

TFLite's tensors have constant scales. In float32 the steps are exact, and so is rounding half to even.
Source: ONNX operators QuantizeLinear and DequantizeLinear.
"""

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_int,
    is_constant,
    is_op,
    main_graph,
    take_place,
)

_LIMITS = {ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127)}
_STEPS = {*_LIMITS, ir.DataType.INT32}


def has_computed_scale(node: ir.Node) -> bool:
    """Whether it is a node that `spell_out` takes: of 8 bits, one scale or one along an axis, not all constant."""
    if not is_op(node, "QuantizeLinear", "DequantizeLinear") or attribute_int(node, "block_size", 0):
        return False
    quantises = node.op_type == "QuantizeLinear"
    source, scale = node.inputs[0], node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    kind = node.outputs[0].dtype if quantises else (source.dtype if source is not None else None)
    if kind not in (_LIMITS if quantises else _STEPS) or scale is None or scale.shape is None or source is None:
        return False
    alike = len(scale.shape) < 2 and source.shape is not None
    along = len(scale.shape) == 1 and scale.shape[0] != 1
    computed = not is_constant(scale) or (zero is not None and not is_constant(zero))
    return alike and (computed or (quantises and along))


def spell_out(node: ir.Node) -> bool:
    """Write (x - zero) * scale, or round(x / scale) + zero cut to the type's range, in the node's place."""
    source, scale = node.inputs[0], node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    assert source is not None
    assert scale is not None
    factor = _laid(node, _real(node, scale))
    shift = None if zero is None else _laid(node, _real(node, zero))
    if node.op_type == "DequantizeLinear":
        value = _real(node, source)
        value = value if shift is None else add_node(node, "Sub", [value, shift])
        made = add_node(node, "Mul", [value, factor])
        if node.outputs[0].dtype not in {None, ir.DataType.FLOAT}:
            made = _cast(node, made, node.outputs[0].dtype or ir.DataType.FLOAT)
    else:
        kind = node.outputs[0].dtype or ir.DataType.UINT8
        made = add_node(node, "Round", [add_node(node, "Div", [_real(node, source), factor])])
        made = made if shift is None else add_node(node, "Add", [made, shift])
        bounds = [add_constant(main_graph(node), np.float32(one), "bound") for one in _LIMITS[kind]]
        made = _cast(node, add_node(node, "Clip", [made, *bounds]), kind)
    take_place(made, node.outputs[0])
    main_graph(node).remove(node)
    return True


def _real(node: ir.Node, value: ir.Value) -> ir.Value:
    return value if value.dtype == ir.DataType.FLOAT else _cast(node, value, ir.DataType.FLOAT)


def _cast(node: ir.Node, value: ir.Value, kind: ir.DataType) -> ir.Value:
    return add_node(node, "Cast", [value], {"to": kind.value}, dtype=kind)


def _laid(node: ir.Node, value: ir.Value) -> ir.Value:
    """Numbers along the node's axis, so that they broadcast against its tensor; one stays one."""
    source, scale = node.inputs[0], node.inputs[1]
    if source is None or source.shape is None or scale is None or scale.shape is None or not len(scale.shape):
        return value
    shape = [1] * len(source.shape)
    if scale.shape[0] != 1:
        shape[attribute_int(node, "axis", 1)] = -1
    else:
        shape = []
    target = add_constant(main_graph(node), np.array(shape, np.int64), "shape")
    return add_node(node, "Reshape", [value, target])
