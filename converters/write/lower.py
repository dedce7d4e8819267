"""The lowest opset that can express a graph, and the graph in it."""

from collections.abc import Iterator

import onnx_ir as ir

from converters.write.rewrites import REWRITES
from converters.write.versions import FLOOR, SAME, droppable, older, schema, since

_STANDARD = {"", "ai.onnx"}


def lower(model: ir.Model) -> int:
    """Bring a graph of opset 20 to the lowest opset that expresses it, in place.

    Returns:
        That opset, from 11 to 20.
    """
    nodes = [node for node in all_nodes(model.graph) if node.domain in _STANDARD]
    opset = max([FLOOR, *(lowest(node) for node in nodes)])
    for node in nodes:
        _bring_down(node, opset)
    model.opset_imports[""] = opset
    drop_unused(model.graph)
    return opset


def all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every node, those of nested bodies too."""
    yield from ir.traversal.RecursiveGraphIterator(graph)


def lowest(node: ir.Node) -> int:
    """The lowest opset in which this node, perhaps spelled in another way, computes the same."""
    version = since(node)
    while version > FLOOR:
        step = older(node, version)
        if step is not None:
            version = step
            continue
        rewrite = REWRITES.get((node.op_type, version))
        rewritten = rewrite.lowest(node) if rewrite is not None else None
        return version if rewritten is None else rewritten
    return version


def _bring_down(node: ir.Node, opset: int) -> None:
    version = since(node)
    while version > opset:
        step = older(node, version)
        if step is None:
            REWRITES[node.op_type, version].apply(node, opset)
            break
        version = step
    if node.graph is not None:
        _drop_late_attributes(node, opset)


def _drop_late_attributes(node: ir.Node, opset: int) -> None:
    """Attributes that came after an operator's first version here or after `opset`, at values that say nothing.

    Even where the opset knows them: ONNX Runtime copies a node's attributes to the int8 operator that takes its place,
    which does not (QLinearAveragePool and `dilations`, ONNX Runtime 1.32).
    """
    first = SAME.get(node.op_type, (since(node),))[-1]
    known = set(schema(node.op_type, first).attributes) & set(schema(node.op_type, opset).attributes)
    for name in [name for name in node.attributes if name not in known and droppable(node, name)]:
        node.attributes.pop(name)


def drop_unused(graph: ir.Graph) -> None:
    """Initialisers that nothing reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
