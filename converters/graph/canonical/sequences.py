"""Sequences whose members are known: what makes, changes and reads them becomes operators on the members themselves.

Exporters write hstack, stacks of views and split-and-rejoin through them, and no runtime but ONNX's own has them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.control import MAX_NODES, splice_copy
from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_int,
    bypass,
    ints,
    is_op,
    remove_dead,
    stem_of,
    take_place,
)
from converters.graph.shapes import static_shape

MAX_MEMBERS = 256
"""A sequence that would become more values than this stays one."""

Members = list[ir.Value]
Rows = Sequence[Members]
"""One an output."""
Known = dict[ir.Value, Members]


def unpack_sequences(model: ir.Model) -> bool:
    """Read the members of a sequence directly where the graph says which they are.

    Requires: constants folded. Ensures: in the main graph no SequenceAt, SequenceLength or ConcatFromSequence of such
    a sequence, and of the operators that make one only those whose sequence is read by others.
    """
    known: Known = {}
    changed = False
    for node in list(model.graph):
        if node.graph is None or not is_op(node, *_MAKERS, *_READERS):
            continue
        if node.op_type in _MAKERS:
            rows = _MAKERS[node.op_type](model.graph, node, known) or []
            known.update(pair for pair in zip(node.outputs, rows, strict=False) if len(pair[1]) <= MAX_MEMBERS)
        elif node.inputs[0] in known:
            changed |= _READERS[node.op_type](model.graph, node, known)
    remove_dead(model.graph)
    return changed


def _construct(_graph: ir.Graph, node: ir.Node, _known: Known) -> Rows | None:
    return [[value for value in node.inputs if value is not None]]


def _empty(_graph: ir.Graph, _node: ir.Node, _known: Known) -> Rows | None:
    return [[]]


def _insert(_graph: ir.Graph, node: ir.Node, known: Known) -> Rows | None:
    place = _place(node, 2, known, longer=1)
    if place is None or node.inputs[0] is None or node.inputs[1] is None:
        return None
    members = known[node.inputs[0]]
    return [[*members[:place], node.inputs[1], *members[place:]]]


def _erase(_graph: ir.Graph, node: ir.Node, known: Known) -> Rows | None:
    place = _place(node, 1, known)
    if place is None or node.inputs[0] is None:
        return None
    members = known[node.inputs[0]]
    return [[*members[:place], *members[place + 1 :]]]


def _place(node: ir.Node, index: int, known: Known, *, longer: int = 0) -> int | None:
    """A position counted from the front; the end, or the last member, where none is given."""
    if node.inputs[0] not in known:
        return None
    count = len(known[node.inputs[0]]) + longer
    given = node.inputs[index] if len(node.inputs) > index else None
    found = [count - 1] if given is None else ints(given)
    return found[0] % count if found and -count <= found[0] < count else None


def _split(graph: ir.Graph, node: ir.Node, _known: Known) -> Rows | None:
    """Slices of the tensor, one a member; without a `split` they have size 1, and no axis where keepdims is 0."""
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    axis = attribute_int(node, "axis", 0) % len(source.shape)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    sizes = _sizes(source.shape[axis], given)
    if sizes is None or not 0 < len(sizes) <= MAX_MEMBERS:
        return None
    stem = stem_of(node.outputs[0])
    axes = add_constant(graph, np.array([axis], np.int64), f"{stem}/axes")
    members, start = [], 0
    for size in sizes:
        bounds = [add_constant(graph, np.array([at], np.int64), f"{stem}/bound") for at in (start, start + size)]
        part = add_node(node, "Slice", [source, *bounds, axes], stem=f"{stem}/part")
        if given is None and attribute_int(node, "keepdims", 1) == 0:
            part = add_node(node, "Squeeze", [part, axes], stem=f"{stem}/member")
        members.append(part)
        start += size
    return [members]


def _sizes(whole: int | ir.SymbolicDim, given: ir.Value | None) -> list[int] | None:
    if not isinstance(whole, int):
        return None
    if given is None:
        return [1] * whole
    sizes, shape = ints(given), static_shape(given)
    if not sizes or min(sizes) < 1:
        return None
    if shape == ():
        return [min(sizes[0], whole - start) for start in range(0, whole, sizes[0])]
    return sizes if sum(sizes) == whole else None


def _at(_graph: ir.Graph, node: ir.Node, known: Known) -> bool:
    place = _place(node, 1, known)
    if place is None or node.inputs[0] is None:
        return False
    return _stand_for(node, known[node.inputs[0]][place])


def _length(graph: ir.Graph, node: ir.Node, known: Known) -> bool:
    assert node.inputs[0] is not None
    count = np.array(len(known[node.inputs[0]]), np.int64)
    return _stand_for(node, add_constant(graph, count, stem_of(node.outputs[0])))


def _stand_for(node: ir.Node, value: ir.Value) -> bool:
    if not bypass(node.outputs[0], value):
        take_place(add_node(node, "Identity", [value]), node.outputs[0])
    return True


def _concat(graph: ir.Graph, node: ir.Node, known: Known) -> bool:
    assert node.inputs[0] is not None
    members, axis = known[node.inputs[0]], attribute_int(node, "axis", 0)
    if not members:
        return False
    if attribute_int(node, "new_axis", 0):
        axes = add_constant(graph, np.array([axis], np.int64), f"{stem_of(node.outputs[0])}/axes")
        members = [add_node(node, "Unsqueeze", [value, axes]) for value in members]
    take_place(add_node(node, "Concat", members, {"axis": axis}), node.outputs[0])
    return True


def _map(graph: ir.Graph, node: ir.Node, known: Known) -> Rows | None:
    """One copy of the body for each member."""
    if node.inputs[0] not in known:
        return None
    count = len(known[node.inputs[0]])
    inputs = [known.get(value, [value] * count) for value in node.inputs if value is not None]
    if not count or any(len(row) != count for row in inputs):
        return None
    body = node.attributes["body"].as_graph()
    if count * max(1, sum(1 for _ in body.all_nodes())) > MAX_NODES:
        return None
    made = [splice_copy(graph, node, body, one) for one in zip(*inputs, strict=True)]
    return [[value for value in row if value is not None] for row in zip(*made, strict=True)]


_MAKERS: dict[str, Callable[[ir.Graph, ir.Node, Known], Rows | None]] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SplitToSequence": _split,
    "SequenceMap": _map,
}
_READERS: dict[str, Callable[[ir.Graph, ir.Node, Known], bool]] = {
    "SequenceAt": _at,
    "SequenceLength": _length,
    "ConcatFromSequence": _concat,
}
