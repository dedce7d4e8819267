"""Names: every value and node has one that is unique, readable, and the same in each run."""

from collections.abc import Iterator

import onnx_ir as ir

from converters.graph.canonical.edit import marked

_SEPARATOR = "/"


def name_all(model: ir.Model) -> bool:
    """Name what the passes made after what it stands beside, and tell equal node names apart.

    Requires: nothing. Ensures: every node of the main graph, and every value of it, has a name of its own; names from
    the source stay, and no name of a body is used twice.
    """
    graph = model.graph
    taken = set(_value_names(model))
    for value in _own_values(graph):
        stem = marked(value)
        if stem is not None or not value.name:
            name = _unique(stem or "value", taken)
            if value.is_initializer():
                _rename_initialiser(value, name)
            else:
                value.name = name
    _name_nodes(model)
    return False


def _rename_initialiser(value: ir.Value, name: str) -> None:
    value.name = name


def _own_values(graph: ir.Graph) -> list[ir.Value]:
    made = [output for node in graph for output in node.outputs if output.uses() or output.is_graph_output()]
    return [*made, *graph.initializers.values()]


def _value_names(model: ir.Model) -> Iterator[str]:
    """The names that stay: those of inputs, of the source's values, and of everything in bodies."""
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs)):
            if value.name and marked(value) is None:
                yield value.name


def _unique(stem: str, taken: set[str]) -> str:
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name


def _name_nodes(model: ir.Model) -> None:
    """The first of a name keeps it: nodes of the source come before those that passes made."""
    taken = {node.name for graph in model.graphs() if graph is not model.graph for node in graph if node.name}
    later = []
    for node in model.graph:
        if node.name and marked(node) is None and node.name not in taken:
            taken.add(node.name)
        else:
            later.append(node)
    for node in later:
        node.name = (
            _unique(node.name or _made_name(node), taken) if marked(node) is None else _unique(_made_name(node), taken)
        )


def _made_name(node: ir.Node) -> str:
    """After the output: its name is unique already and says where the node stands."""
    output = node.outputs[0].name if node.outputs else None
    if output and output.endswith(f"{_SEPARATOR}{node.op_type}"):
        return output
    return f"{output}{_SEPARATOR}{node.op_type}" if output else node.op_type
