"""Parts of a tensor taken before it is viewed, turned or even computed: queries, keys and values of one projection."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Array,
    add_constant,
    add_node,
    attribute_float,
    attribute_int,
    attribute_ints,
    constant,
    ints,
    is_op,
    producer,
    readers,
    settled,
    stem_of,
    take_place,
)
from converters.graph.canonical.reshapes import VIEWS, static_target
from converters.graph.shapes import Dim, factors

_MOST = 4
"""Parts that a product is cut into: each is a call of its own."""


class Piece(NamedTuple):
    """Entries start to stop of one axis.

    Attributes:
        node: that takes it.
        output: the part.
        dropped: whether the axis, of which it takes one entry, is gone.
    """

    node: ir.Node
    output: ir.Value
    axis: int
    start: int
    stop: int
    dropped: bool


def take_pieces_first(model: ir.Model) -> bool:
    """Move what takes parts of a tensor before the Transpose, the view or the product with weights that makes it.

    Requires: shapes. Ensures: no tensor that a Transpose or a view makes, and that is read in parts of one axis alone,
    where the axis can be named before it; no product of weights that is read in a few such parts, none of them twice.
    """
    changed = False
    for node in list(model.graph):
        if node.graph is None or not node.outputs or not is_op(node, *VIEWS, "Transpose", *_CUT):
            continue
        pieces = _pieces(node.outputs[0])
        if pieces and _advance(model.graph, node, pieces):
            changed = True
    return settled(model.graph, changed=changed)


def _pieces(value: ir.Value) -> list[Piece]:
    """How the readers of a value take it apart, along one axis; nothing where some reader takes more."""
    if value.shape is None or value.is_graph_output() or not value.uses():
        return []
    found: list[Piece] = []
    for node in dict.fromkeys(readers(value)):
        taken = _taken(node, value)
        if not taken:
            return []
        found += taken
    return found if len({piece.axis for piece in found}) == 1 else []


def _taken(node: ir.Node, value: ir.Value) -> list[Piece]:
    own = value.producer()
    if node.inputs[0] is not value or any(one is value for one in node.inputs[1:]) or own is None:
        return []
    if node.graph is not own.graph or not is_op(node, *_TAKERS):
        return []
    return _TAKERS[node.op_type](node, value)


def _gathered(node: ir.Node, value: ir.Value) -> list[Piece]:
    index, rank = constant(node.inputs[1]), len(value.shape or ())
    axis = attribute_int(node, "axis", 0) % max(rank, 1)
    if index is None or index.ndim:
        return []
    start = int(index)
    size = value.shape[axis] if value.shape is not None else None
    if start < 0 or (isinstance(size, int) and start >= size):
        start = start + size if isinstance(size, int) else -1
    return [Piece(node, node.outputs[0], axis, start, start + 1, dropped=True)] if start >= 0 else []


def _sliced(node: ir.Node, value: ir.Value) -> list[Piece]:
    starts, stops, axes = (ints(node.inputs[at]) if len(node.inputs) > at else None for at in (1, 2, 3))
    steps = ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if starts is None or stops is None or axes is None or steps != [1] or len(starts) != 1 or value.shape is None:
        return []
    axis = axes[0] % len(value.shape)
    size = value.shape[axis]
    if not isinstance(size, int):
        return []
    start, stop, _ = slice(starts[0], stops[0]).indices(size)
    return [Piece(node, node.outputs[0], axis, start, stop, dropped=False)] if start < stop else []


def _split(node: ir.Node, value: ir.Value) -> list[Piece]:
    axis = attribute_int(node, "axis", 0) % len(value.shape or (1,))
    sizes = [None if one.shape is None else one.shape[axis] for one in node.outputs]
    found, start = [], 0
    for output, size in zip(node.outputs, sizes, strict=True):
        if not isinstance(size, int):
            return []
        if output.uses() or output.is_graph_output():
            found.append(Piece(node, output, axis, start, start + size, dropped=False))
        start += size
    return found


_TAKERS = {"Gather": _gathered, "Slice": _sliced, "Split": _split}


def _advance(graph: ir.Graph, node: ir.Node, pieces: Sequence[Piece]) -> bool:
    if is_op(node, "Transpose"):
        return _before_transpose(graph, node, pieces)
    if is_op(node, *VIEWS):
        return _before_view(graph, node, pieces)
    return _before_product(graph, node, pieces)


def _before_transpose(graph: ir.Graph, node: ir.Node, pieces: Sequence[Piece]) -> bool:
    source = node.inputs[0]
    if source is None or source.shape is None:
        return False
    rank = len(source.shape)
    order = attribute_ints(node, "perm", range(rank)[::-1])
    for piece in pieces:
        part = _part(graph, piece, source, order[piece.axis], (piece.start, piece.stop))
        turned = _turned(piece, part, order)
        _finish(turned, piece)
    return True


def _turned(piece: Piece, part: ir.Value, order: Sequence[int]) -> ir.Value:
    """A dropped axis is named no more."""
    gone = order[piece.axis]
    kept = [axis - (axis > gone) for axis in order if axis != gone] if piece.dropped else list(order)
    return add_node(piece.node, "Transpose", [part], {"perm": kept}, stem=f"{stem_of(piece.output)}/turned")


def _part(graph: ir.Graph, piece: Piece, source: ir.Value, axis: int, entries: tuple[int, int]) -> ir.Value:
    """The entries of an axis; without the axis where the piece drops it and there is one."""
    (start, stop), stem = entries, f"{stem_of(piece.output)}/part"
    if piece.dropped and stop - start == 1:
        index = add_constant(graph, np.array(start, np.int64), f"{stem}/index")
        return add_node(piece.node, "Gather", [source, index], {"axis": axis}, stem=stem)
    bounds = [add_constant(graph, np.array([one], np.int64), f"{stem}/bound") for one in (start, stop, axis)]
    return add_node(piece.node, "Slice", [source, *bounds], stem=stem)


def _finish(made: ir.Value, piece: Piece) -> None:
    """Of a node with several outputs only one is taken over."""
    if len(piece.node.outputs) == 1:
        take_place(made, piece.output)
        return
    made.shape, made.type = piece.output.shape, piece.output.type
    piece.output.replace_all_uses_with(made, replace_graph_outputs=True)


def _before_view(graph: ir.Graph, node: ir.Node, pieces: Sequence[Piece]) -> bool:
    source, view = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or view.shape is None or any(p.output.is_graph_output() for p in pieces):
        return False
    found = _found_before(source.shape.dims, view.shape.dims, pieces[0].axis)
    if found is None:
        return False
    axis, inner = found
    dims = [_dims(view.shape.dims, piece) for piece in pieces]
    targets = [static_target(shape, source) for shape in dims]
    # The first open size may stay what the source's own is; a part of an open axis is never taken.
    if any(target is None for target in targets):
        return False
    for piece, target in zip(pieces, targets, strict=True):
        kept = piece._replace(dropped=False)
        part = _part(graph, kept, source, axis, (piece.start * inner, piece.stop * inner))
        stem = stem_of(piece.output)
        shape = add_constant(graph, np.array(target, np.int64), f"{stem}/shape")
        _finish(add_node(piece.node, "Reshape", [part, shape], stem=f"{stem}/view"), piece)
    return True


def _dims(view: Sequence[Dim], piece: Piece) -> tuple[Dim, ...]:
    middle = () if piece.dropped else (piece.stop - piece.start,)
    return (*view[: piece.axis], *middle, *view[piece.axis + 1 :])


def _found_before(source: Sequence[Dim], view: Sequence[Dim], axis: int) -> tuple[int, int] | None:
    """The source's axis that begins with an axis of its view, and how many of its entries stand for one there."""
    size = view[axis]
    if not isinstance(size, int):
        return None
    ahead = _product(view[:axis])
    for at, whole in enumerate(source):
        if not isinstance(whole, int) or whole == 1 or _product(source[:at]) != ahead or whole % size:
            continue
        inner, rest = whole // size, 1
        for later in view[axis + 1 :]:
            if rest == inner:
                break
            if not isinstance(later, int):
                return None
            rest *= later
        return (at, inner) if rest == inner else None
    return None


def _product(dims: Sequence[Dim]) -> tuple[int, tuple[str, ...]] | None:
    count, symbols = 1, []
    for size in dims:
        number, symbol = factors(size)
        count *= number
        if symbol is not None:
            symbols.append(symbol)
    return None if "" in symbols else (count, tuple(sorted(symbols)))


def _before_product(graph: ir.Graph, node: ir.Node, pieces: Sequence[Piece]) -> bool:
    """Cut the weights, or the constant that is added."""
    value, data = node.outputs[0], _data(node)
    last = len(value.shape or ()) - 1
    apart = sorted((piece.start, piece.stop) for piece in pieces)
    overlap = any(one[1] > other[0] for one, other in pairwise(apart))
    if data is None or overlap or len(pieces) > _MOST or any(p.axis != last or p.dropped for p in pieces):
        return False
    if is_op(node, "Add") and producer(data, "MatMul") is None:
        return False
    for piece in pieces:
        first = _part(graph, piece, data, last, (piece.start, piece.stop)) if is_op(node, "Add") else data
        inputs: list[ir.Value | None] = [first]
        inputs += [_cut(graph, node, index, piece) for index in range(1, len(node.inputs))]
        _finish(add_node(piece.node, node.op_type, inputs, _options(node), stem=f"{stem_of(piece.output)}/part"), piece)
    return True


def _data(node: ir.Node) -> ir.Value | None:
    """What is multiplied, or added to, where all else is constant."""
    rest = node.inputs[1:]
    return node.inputs[0] if all(one is None or constant(one) is not None for one in rest) else None


def _cut(graph: ir.Graph, node: ir.Node, index: int, piece: Piece) -> ir.Value | None:
    value, array = node.inputs[index], constant(node.inputs[index])
    if value is None or array is None or not array.ndim:
        return value
    turned = is_op(node, "Gemm") and index == 1 and attribute_int(node, "transB", 0) == 1
    axis = 0 if turned else array.ndim - 1
    if array.shape[axis] == 1 and not is_op(node, "MatMul"):
        return value
    made: Array = array.take(range(piece.start, piece.stop), axis)
    return add_constant(graph, made, stem_of(value))


def _options(node: ir.Node) -> dict[str, int | float]:
    if not is_op(node, "Gemm"):
        return {}
    return {name: attribute_int(node, name, 0) for name in ("transA", "transB")} | {
        name: attribute_float(node, name, 1.0) for name in ("alpha", "beta")
    }


_CUT = ("MatMul", "Gemm", "Add")
