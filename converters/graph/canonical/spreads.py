"""What an Expand spreads: gates and norms over what they scale, class tokens and ids over the batch."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Array,
    add_constant,
    add_node,
    attribute_int,
    constant,
    nodes_of,
    producer,
    settled,
    stem_of,
    take_place,
)
from converters.graph.canonical.operators import BINARY
from converters.graph.shapes import Dim, dims_equal

_LARGEST = 1 << 20
"""Entries of a constant that is added in place of a part."""


def drop_spreads(model: ir.Model) -> bool:
    """Let an elementwise operator spread an operand itself, where its other operand has the shape for that.

    Requires: shapes. Ensures: no such operator reads an Expand, or rows of a constant table picked by an Expand of one
    index, whose axes are all in the other operand.
    """
    changed = False
    for node in nodes_of(model, *BINARY):
        for index, other in ((0, 1), (1, 0)) if len(node.inputs) > 1 else ():
            value, beside = node.inputs[index], node.inputs[other]
            source = _source(model.graph, value, node) if value is not None else None
            if value is None or source is None or beside is None or beside is value:
                continue
            if _spread_by(value, source, beside):
                node.replace_input_with(index, source)
                changed = True
    return settled(model.graph, changed=changed)


def _source(graph: ir.Graph, value: ir.Value, node: ir.Node) -> ir.Value | None:
    """What is spread; a constant made here where it is one row of a table."""
    spread = producer(value, "Expand")
    if spread is not None:
        return spread.inputs[0]
    pick = producer(value, "Gather")
    table = constant(pick.inputs[0]) if pick is not None and attribute_int(pick, "axis", 0) == 0 else None
    ids = producer(pick.inputs[1], "Expand") if pick is not None else None
    one = constant(ids.inputs[0]) if ids is not None else None
    if table is None or one is None or one.size != 1 or not -len(table) <= int(one.reshape(-1)[0]) < len(table):
        return None
    return add_constant(graph, np.array(table[int(one.reshape(-1)[0])]), f"{stem_of(node.outputs[0])}/row")


def _spread_by(value: ir.Value, source: ir.Value, beside: ir.Value) -> bool:
    if value.shape is None or source.shape is None or beside.shape is None:
        return False
    rank = len(value.shape)
    if len(beside.shape) < rank or len(source.shape) > rank:
        return False
    own = (1,) * (rank - len(source.shape)) + tuple(source.shape.dims)
    others = tuple(beside.shape.dims)[len(beside.shape) - rank :]
    wanted = zip(value.shape.dims, own, others, strict=True)
    return all(dims_equal([size], [one]) or dims_equal([size], [other]) for size, one, other in wanted)


def pad_for_constants(model: ir.Model) -> bool:
    """Write Concat of a tensor and constants that are spread over its batch as Pad, and Add of a constant.

    Requires: shapes. Ensures: no Concat of floats with one computed input, the others Expands of constants, along an
    axis of known size. What is added behind it, as positions are, joins the constant.
    """
    changed = False
    for node in nodes_of(model, "Concat"):
        changed |= _pad(model.graph, node)
    return settled(model.graph, changed=changed)


def _pad(graph: ir.Graph, node: ir.Node) -> bool:
    spreads = [producer(value, "Expand") for value in node.inputs]
    if len(spreads) < 2 or spreads.count(None) != 1:
        return False
    place = spreads.index(None)
    data = node.inputs[place]
    if data is None or data.shape is None or data.dtype != ir.DataType.FLOAT or constant(data) is not None:
        return False
    axis = attribute_int(node, "axis", 0) % len(data.shape)
    own = data.shape[axis]
    parts = [None if one is None else _part(one, data.shape.dims, axis) for one in spreads]
    if not isinstance(own, int) or sum(part is None for part in parts) != 1:
        return False
    found = [part for part in parts if part is not None]
    shape = np.broadcast_shapes(*((*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in found))
    total = own + sum(part.shape[axis] for part in found)
    if np.prod(shape) * total > _LARGEST:
        return False
    rows = [_rows(np.zeros((), np.float32) if part is None else part, shape, axis, own) for part in parts]
    ahead = sum(part.shape[axis] for part in parts[:place] if part is not None)
    behind = total - own - ahead
    stem = stem_of(node.outputs[0])
    pads = add_constant(graph, np.array([ahead, behind], np.int64), f"{stem}/pads")
    axes = add_constant(graph, np.array([axis], np.int64), f"{stem}/axes")
    wide = add_node(node, "Pad", [data, pads, None, axes], {"mode": "constant"}, stem=f"{stem}/wide")
    fixed = add_constant(graph, np.concatenate(rows, axis), f"{stem}/constants")
    take_place(add_node(node, "Add", [wide, fixed]), node.outputs[0])
    return True


def _part(spread: ir.Node, dims: Sequence[Dim], axis: int) -> Array | None:
    """The constant with the tensor's rank, whole along the axis; None where it is spread over more than that has."""
    array, shape = constant(spread.inputs[0]), spread.outputs[0].shape
    if array is None or shape is None or len(shape) != len(dims) or array.ndim > len(dims):
        return None
    size = shape[axis]
    fits = all(
        dims_equal([one], [other]) for at, (one, other) in enumerate(zip(shape, dims, strict=True)) if at != axis
    )
    if not fits or not isinstance(size, int):
        return None
    made = array.reshape((1,) * (len(dims) - array.ndim) + array.shape)
    return np.repeat(made, size, axis) if made.shape[axis] == 1 else made


def _rows(part: Array, shape: Sequence[int], axis: int, own: int) -> Array:
    count = part.shape[axis] if part.ndim else own
    return np.broadcast_to(part, (*shape[:axis], count, *shape[axis + 1 :]))
