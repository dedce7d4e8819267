"""Control flow that is decided already: If by a constant is its branch, a short Loop by constants is written out."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    bypass,
    fresh,
    has_bodies,
    ints,
    lazily,
    mark,
    nodes_of,
    producer,
    scalar,
    settled,
    stem_of,
    take_place,
    wrap,
)

MAX_TRIPS = 32
MAX_NODES = 2048
"""A Loop that would become more nodes than this stays a Loop."""


def inline_ifs(model: ir.Model) -> bool:
    """Put the chosen branch in the place of an If whose condition is constant.

    Requires: constants folded. Ensures: no If of the main graph has a constant condition.
    """
    changed = False
    for node in nodes_of(model, "If"):
        condition = scalar(node.inputs[0])
        if condition is None:
            continue
        branch = node.attributes["then_branch" if condition else "else_branch"].as_graph()
        results = list(branch.outputs)
        branch.outputs.clear()
        moved = splice(model.graph, node, branch)
        hand_over(node, [moved.get(value, value) for value in results])
        changed = True
    return settled(model.graph, changed=changed)


def unroll_loops(model: ir.Model) -> bool:
    """Write out a Loop whose number of trips is constant, at most 32, and whose condition never changes.

    Requires: constants folded. Ensures: no such Loop of the main graph that becomes at most 2048 nodes.
    """
    changed = False
    for node in nodes_of(model, "Loop"):
        trips = ints(node.inputs[0]) if node.inputs[0] is not None else None
        body = node.attributes["body"].as_graph()
        if not trips or not _runs_on(node, body) or not 0 < trips[0] <= MAX_TRIPS:
            continue
        if trips[0] * max(1, sum(1 for _ in body.all_nodes())) > MAX_NODES:
            continue
        _unroll(model.graph, node, body, trips[0])
        changed = True
    return settled(model.graph, changed=changed)


def _runs_on(node: ir.Node, body: ir.Graph) -> bool:
    """Whether the condition is true at the start and after each trip."""
    start, after = node.inputs[1], body.outputs[0]
    if start is not None and not scalar(start):
        return False
    maker = producer(after, "Identity")
    if maker is not None and maker.inputs[0] is not None:
        after = maker.inputs[0]
    if after is body.inputs[1]:
        return True
    maker = producer(after, "Constant")
    tensor = after.const_value if after.is_initializer() else None
    if maker is not None and "value" in maker.attributes:
        tensor = maker.attributes["value"].as_tensor()
    return tensor is not None and tensor.size == 1 and bool(tensor.numpy().all())


def _unroll(graph: ir.Graph, node: ir.Node, body: ir.Graph, trips: int) -> None:
    states: list[ir.Value | None] = list(node.inputs[2:])
    scans: list[list[ir.Value]] = [[] for _ in body.outputs[1 + len(states) :]]
    stem = stem_of(node.outputs[0])
    for trip in range(trips):
        count = add_constant(graph, np.array(trip, np.int64), f"{stem}/trip")
        go_on = add_constant(graph, np.array(True), f"{stem}/condition")  # noqa: FBT003
        made = splice_copy(graph, node, body, [count, go_on, *states])[1:]
        states = made[: len(states)]
        for collected, value in zip(scans, made[len(states) :], strict=True):
            assert value is not None
            collected.append(value)
    stacked = [_stack(graph, node, values) for values in scans]
    hand_over(node, [*(value for value in states if value is not None), *stacked])


def _stack(graph: ir.Graph, node: ir.Node, values: Sequence[ir.Value]) -> ir.Value:
    stem = stem_of(node.outputs[0])
    axis = add_constant(graph, np.array([0], np.int64), f"{stem}/axis")
    rows = [add_node(node, "Unsqueeze", [value, axis], stem=f"{stem}/row") for value in values]
    return add_node(node, "Concat", rows, {"axis": 0}, stem=f"{stem}/rows")


def splice_copy(
    graph: ir.Graph, node: ir.Node, body: ir.Graph, given: Sequence[ir.Value | None]
) -> list[ir.Value | None]:
    """Put a copy of a body before `node`, with `given` for its inputs; what it gives."""
    copy = body.clone(allow_outer_scope_values=True)
    fed = dict(zip(copy.inputs, given, strict=True))
    results = list(copy.outputs)
    copy.outputs.clear()
    for inner, outer in fed.items():
        for usage in list(inner.uses()):
            usage.node.replace_input_with(usage.idx, outer)
    moved = splice(graph, node, copy)
    return [moved.get(value, fed.get(value, value)) for value in results]


def splice(graph: ir.Graph, node: ir.Node, body: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Move a body's constants and nodes before `node`; their names may be in use there, so they are marked.

    Returns the constants in their new place.
    """
    constants: dict[ir.Value, ir.Value] = {}
    for value in list(body.initializers.values()):
        stem = value.name or "constant"
        tensor = value.const_value
        del body.initializers[stem]
        if tensor is not None:
            moved = add_constant(graph, np.zeros(0, np.float32), stem)
            wrap(moved, lazily(tensor))
            value.replace_all_uses_with(moved)
            constants[value] = moved
    inside = list(body)
    body.remove(inside)
    graph.insert_before(node, inside)
    for inner in inside:
        for value in inner.outputs:
            if value.name:
                mark(value, value.name)
                value.name = fresh(graph)
            if not has_bodies(inner):
                value.shape = None
    return constants


def hand_over(node: ir.Node, results: Sequence[ir.Value]) -> None:
    """Let these values take the place of a node's outputs."""
    for old, new in zip(node.outputs, results, strict=True):
        if old.uses() or old.is_graph_output():
            if bypass(old, new):
                continue
            take_place(add_node(node, "Identity", [new]), old)
