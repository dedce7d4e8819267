"""Squeeze moved down through elementwise operators, so that it meets the Unsqueeze of the next 1-D convolution."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Attribute,
    add_constant,
    add_node,
    attribute_int,
    constant,
    ints,
    is_constant,
    is_op,
    name_after,
    producer,
    settled,
    stem_of,
    take_place,
)
from converters.graph.canonical.layout import moved_axes
from converters.graph.canonical.operators import BINARY, UNARY
from converters.graph.shapes import rank_of

_HEIGHT = 2


def sink_squeezes(model: ir.Model) -> bool:
    """Move a Squeeze of a height of 1 below the elementwise operators and concatenations that read it.

    Requires: `one_to_two_d`, ranks. Ensures: no elementwise operator, and no Concat over channels or length, all of
    whose inputs that are no constants are squeezed so.
    """
    changed = False
    for node in list(model.graph):
        if (
            node.graph is None
            or len(node.outputs) != 1
            or not is_op(node, "Concat", "Pad", "ReduceMean", *UNARY, *BINARY)
        ):
            continue
        data = data_inputs(node)
        sources = [_unsqueezed(value) for value in data]
        if not sources or not any(source is not None for source in sources):
            continue
        inputs = [source or _lifted(model.graph, value) for source, value in zip(sources, data, strict=True)]
        attributes = _attributes(node)
        if any(value is None for value in inputs) or attributes is None:
            continue
        _rewrite(model.graph, node, inputs, attributes)
        changed = True
    return settled(model.graph, changed=changed)


def data_inputs(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs that have the output's axes: not the bounds of a Clip, nor the axes of a mean."""
    return node.inputs[:1] if is_op(node, "Pad", "ReduceMean", *UNARY) else node.inputs


def _unsqueezed(value: ir.Value | None) -> ir.Value | None:
    node = producer(value, "Squeeze")
    if node is None or len(node.inputs) < 2 or ints(node.inputs[1]) != [_HEIGHT]:
        return None
    source = node.inputs[0]
    return source if source is not None and rank_of(source) == 4 else None


def _lifted(graph: ir.Graph, value: ir.Value | None) -> ir.Value | None:
    """A constant operand of rank 3 at most with a height of 1."""
    if value is None or not is_constant(value):
        return None
    array = constant(value)
    if array is None or array.ndim > 3:
        return None
    if array.ndim <= 1:
        return value
    return add_constant(graph, np.expand_dims(array, array.ndim - 1), stem_of(value))


def _attributes(node: ir.Node) -> dict[str, Attribute] | None:
    made: dict[str, Attribute] = {name: item.value for name, item in node.attributes.items()}
    if is_op(node, "ReduceMean"):
        axes = ints(node.inputs[1]) if len(node.inputs) > 1 else None
        return {} if axes in ([2], [-1]) else None
    if is_op(node, "Pad") and moved_axes(node) is None:
        return None
    if is_op(node, "Concat"):
        axis = attribute_int(node, "axis", 0) % 3
        made["axis"] = axis + (axis >= _HEIGHT)
    return made


def _rewrite(
    graph: ir.Graph, node: ir.Node, inputs: Sequence[ir.Value | None], attributes: dict[str, Attribute]
) -> None:
    stem = stem_of(node.outputs[0])
    kind = "GlobalAveragePool" if is_op(node, "ReduceMean") else node.op_type
    rest = list(node.inputs[1:]) if is_op(node, "Pad", *UNARY) else []
    axes = moved_axes(node) if is_op(node, "Pad") else None
    if axes is not None:
        lifted = [axis + (axis >= _HEIGHT) for axis in axes]
        fill = rest[1] if len(rest) > 1 else None
        rest = [rest[0], fill, add_constant(graph, np.array(lifted, np.int64), f"{stem}/axes")]
    dtype = node.outputs[0].dtype
    wide = add_node(node, kind, [*inputs, *rest], attributes, name=node.name, stem=f"{stem}/2d", dtype=dtype)
    gone = [_HEIGHT] if not is_op(node, "ReduceMean") or attribute_int(node, "keepdims", 1) else [_HEIGHT, _HEIGHT + 1]
    axis = add_constant(graph, np.array(gone, np.int64), "height_axis")
    low = add_node(node, "Squeeze", [wide, axis])
    take_place(low, node.outputs[0])
    name_after(low, "Squeeze")
