"""Small edits that every pass is made of: read a constant, find the one reader, put a value in another's place."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]
Attribute = int | float | str | Sequence[int] | Sequence[float]

_STEM = "lepton_edge.stem"
"""Marks a value or node made here: the naming pass gives it a name that begins with this."""
_COUNT = "lepton_edge.count"
_STANDARD = {"", "ai.onnx"}


def is_op(node: ir.Node | None, *types: str) -> bool:
    """Whether `node` is one of these standard operators."""
    return node is not None and node.domain in _STANDARD and node.op_type in types


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is an initialiser that no caller may feed."""
    return value is not None and value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initialiser that no caller may feed; it may be a read-only view."""
    if value is None or not is_constant(value):
        return None
    assert value.const_value is not None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds."""
    if value is None or not is_constant(value):
        return None
    assert value.const_value is not None
    if value.const_value.size != 1:
        return None
    item = value.const_value.numpy().reshape(-1)[0]
    return float(item) if np.issubdtype(item.dtype, np.number) or item.dtype == np.bool_ else None


def ints(value: ir.Value | None) -> list[int] | None:
    """The integers of a constant of rank 0 or 1."""
    array = constant(value)
    if array is None or array.ndim > 1 or not np.issubdtype(array.dtype, np.integer):
        return None
    return [int(item) for item in array.reshape(-1)]


def attribute_ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    found = node.attributes.get(name)
    return list(default) if found is None else [int(item) for item in found.as_ints()]


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    found = node.attributes.get(name)
    return default if found is None else found.as_float()


def attribute_string(node: ir.Node, name: str, default: str) -> str:
    found = node.attributes.get(name)
    return default if found is None else found.as_string()


def has_bodies(node: ir.Node) -> bool:
    """Whether the node holds graphs of its own (If, Loop, Scan)."""
    return any(item.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for item in node.attributes.values())


def producer(value: ir.Value | None, *types: str) -> ir.Node | None:
    """The standard operator of one of these types that makes `value`, where there is one."""
    node = value.producer() if value is not None else None
    return node if node is not None and is_op(node, *types) else None


def readers(value: ir.Value) -> list[ir.Node]:
    """Every node that reads the value, those inside of bodies too; twice where it is read twice."""
    return [usage.node for usage in value.uses()]


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads `value`, once, in the same graph; None for a graph output."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    made = value.producer()
    return node if made is None or node.graph is made.graph else None


def main_graph(node: ir.Node) -> ir.Graph:
    """The graph that holds the node (functions are inlined before any pass runs)."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def stem_of(value: ir.Value) -> str:
    """The name that new values beside `value` begin with."""
    stem = value.meta.get(_STEM)
    return stem if isinstance(stem, str) else value.name or "value"


def mark(item: ir.Value | ir.Node, stem: str) -> None:
    item.meta[_STEM] = stem


def marked(item: ir.Value | ir.Node) -> str | None:
    stem = item.meta.get(_STEM)
    return stem if isinstance(stem, str) else None


def wrap(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let `tensor` be the constant that `value` holds, with its type and shape."""
    value.const_value = tensor
    value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)


def lazily(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A wrapper with a name of its own: the source's tensor is not renamed with the value that holds it."""
    return ir.LazyTensor(
        lambda: tensor, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), cache=True, name=tensor.name
    )


def fresh(graph: ir.Graph) -> str:
    """A name that nothing else has; the naming pass replaces it."""
    count = int(graph.meta.get(_COUNT, 0)) + 1
    graph.meta[_COUNT] = count
    return f"lepton_edge~{count}"


def add_constant(graph: ir.Graph, array: npt.ArrayLike, stem: str) -> ir.Value:
    """A new initialiser; the array is wrapped, not copied."""
    data = np.asarray(array)
    value = ir.Value(
        name=fresh(graph),
        shape=ir.Shape(data.shape),
        type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
        const_value=ir.Tensor(data),
    )
    assert value.const_value is not None
    value.const_value.name = value.name
    mark(value, stem)
    graph.register_initializer(value)
    return value


def add_node(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Attribute] | None = None,
    *,
    name: str | None = None,
    stem: str | None = None,
    dtype: ir.DataType | None = None,
) -> ir.Value:
    """Insert a standard operator with one output before `before`.

    Args:
        name: a name from the source that the node carries on; without one it is named after `stem`.
        stem: what the output's name begins with; the first output of `before` without it.
        dtype: of the output; that of the first input without it.

    Returns:
        The output; its shape is left to the inference.
    """
    graph = main_graph(before)
    stem = stem_of(before.outputs[0]) if stem is None else stem
    made = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(dict(attributes or {})), name=name)
    value = made.outputs[0]
    value.name = fresh(graph)
    mark(value, stem)
    if name is None:
        mark(made, f"{stem}/{op_type}")
    first = next((item for item in inputs if item is not None), None)
    kind = dtype or (first.dtype if first is not None else None)
    value.type = None if kind is None else ir.TensorType(kind)
    graph.insert_before(before, made)
    return value


def take_place(new: ir.Value, old: ir.Value) -> None:
    """Let `new`, just made by `add_node`, carry on as `old`: its readers, place among the outputs, name, type, shape.

    The node of `new` also takes over the name of the node of `old`.
    """
    node, gone = new.producer(), old.producer()
    assert node is not None
    assert gone is not None
    new.shape, new.type = old.shape, old.type
    _swap_names(new, old)
    node.name = gone.name
    stem = marked(gone)
    node.meta.pop(_STEM, None)
    if stem is not None:
        mark(node, stem)
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def name_after(value: ir.Value, suffix: str) -> None:
    """Let the node of `value` be named after `value`, not carry on a name from the source."""
    node = value.producer()
    assert node is not None
    node.name = None
    mark(node, f"{stem_of(value)}/{suffix}")


def bypass(old: ir.Value, new: ir.Value) -> bool:
    """Let an existing value take the place of `old`; False where a graph output forbids it.

    A graph output keeps its name; an input, a constant or another output cannot become one.
    """
    if old.is_graph_output():
        if new.is_graph_output() or new.is_graph_input() or new.is_initializer() or new.producer() is None:
            return False
        if new.graph is not old.graph:
            return False
        _swap_names(new, old)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    return True


def give_output(new: ir.Value, old: ir.Value) -> None:
    """Let `new` be the graph output that `old` is, under its name; readers of `old` are left to the caller."""
    assert isinstance(old.graph, ir.Graph)
    new.shape, new.type = old.shape, old.type
    _swap_names(new, old)
    outputs = old.graph.outputs
    for index, value in enumerate(outputs):
        if value is old:
            outputs[index] = new


def _swap_names(new: ir.Value, old: ir.Value) -> None:
    name, old_stem = old.name, marked(old)
    old.name = f"{name}~{new.name}"
    new.name = name
    new.meta.pop(_STEM, None)
    if old_stem is not None:
        mark(new, old_stem)


def remove_dead(graph: ir.Graph) -> bool:
    """Remove nodes whose outputs nobody reads, then initialisers likewise; returns whether there were any.

    Nodes inside of bodies stay.
    """
    changed = False
    for node in reversed(graph):
        if all(not output.uses() and not output.is_graph_output() for output in node.outputs):
            _let_go(node)
            graph.remove(node, safe=True)
            changed = True
    return remove_unread(graph) or changed


def _let_go(node: ir.Node) -> None:
    """Let the nodes of a removed node's bodies read nothing: what they alone read is dead too."""
    if has_bodies(node):
        for item in node.attributes.values():
            for body in item.as_graphs() if item.type == ir.AttributeType.GRAPHS else ():
                _empty(body)
            if item.type == ir.AttributeType.GRAPH:
                _empty(item.as_graph())


def _empty(body: ir.Graph) -> None:
    for inner in body.all_nodes():
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)


def settled(graph: ir.Graph, *, changed: bool) -> bool:
    """End a pass: where it changed something, remove what nobody reads any more; returns `changed`."""
    if changed:
        remove_dead(graph)
    return changed


def remove_unread(graph: ir.Graph) -> bool:
    dead = [
        name
        for name, value in graph.initializers.items()
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input()
    ]
    for name in dead:
        del graph.initializers[name]
    return bool(dead)


def nodes_of(model: ir.Model, *types: str) -> Iterable[ir.Node]:
    """The main graph's nodes of these types as they are now; one that a pass removed meanwhile is left out."""
    for node in [node for node in model.graph if is_op(node, *types)]:
        if node.graph is not None:
            yield node
