"""Calls of functions, model-local ones and those that an operator's schema brings, written out as nodes."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from converters.importers.rewriting import Names
from lepton_edge.errors import ModelError

Key = tuple[str, str, str]
"""Domain, name and overload (IR version 10) of a function."""
MAX_NODES = 1_000_000
"""Nodes after inlining: far above any real network, far below what exhausts memory."""
MAX_DEPTH = 64
"""Functions that call functions, graphs within graphs: exporters reach 5 or so; Python's stack ends at 1000 calls."""


def local_functions(model: onnx.ModelProto) -> dict[Key, onnx.FunctionProto]:
    """The model's own functions."""
    return {(function.domain, function.name, function.overload): function for function in model.functions}


def call_key(node: onnx.NodeProto) -> Key:
    """Which function a node calls, if it calls one."""
    return (node.domain, node.op_type, node.overload)


def check_calls(model: onnx.ModelProto, *, where: str) -> None:
    """Refuse functions that call themselves, and calls that multiply beyond `MAX_NODES`.

    Raises:
        ModelError: naming the function.
    """
    local = local_functions(model)
    if len(local) != len(model.functions):
        raise ModelError(f"{where}: damaged: two functions have one name")
    sizes: dict[Key, int] = {}
    depths: dict[Key, int] = {}
    for key in local:
        _measure(key, local, sizes, depths, where)
        if depths[key] > MAX_DEPTH:
            raise ModelError(f"{where}: function {key[1]!r}: calls more than {MAX_DEPTH} deep: export the model again")
    total = sum(_size(node, sizes) for node in _flat(model.graph.node))
    if total > MAX_NODES:
        raise ModelError(f"{where}: its functions written out give {total} nodes, at most {MAX_NODES} are accepted")


def _measure(
    root: Key, local: Mapping[Key, onnx.FunctionProto], sizes: dict[Key, int], depths: dict[Key, int], where: str
) -> None:
    """Fill in how many nodes a function gives when written out, and how deep it calls; depth first, no recursion."""
    stack, open_keys = [root], set[Key]()
    while stack:
        key = stack[-1]
        if key in sizes:
            stack.pop()
            continue
        body = list(_flat(local[key].node))
        called = {call_key(node) for node in body} & local.keys() - sizes.keys()
        if called & (open_keys | {key}):
            raise ModelError(f"{where}: function {key[1]!r} of domain {key[0]!r} calls itself")
        if called:
            open_keys.add(key)
            stack.extend(called)
            continue
        open_keys.discard(key)
        sizes[key] = min(sum(_size(node, sizes) for node in body), 2 * MAX_NODES)
        depths[key] = 1 + max((depths.get(call_key(node), 0) for node in body), default=0)
        stack.pop()


def _size(node: onnx.NodeProto, sizes: Mapping[Key, int]) -> int:
    return sizes.get(call_key(node), 1)


def _flat(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    found = []
    for node in nodes:
        found.append(node)
        for entry in node.attribute:
            for graph in (*([entry.g] if entry.HasField("g") else []), *entry.graphs):
                found += _flat(graph.node)
    return found


def instantiate(call: onnx.NodeProto, function: onnx.FunctionProto, names: Names) -> list[onnx.NodeProto]:
    """The nodes of a function's body in place of a call: names made unique, attributes filled in.

    Source: ONNX IR specification, Functions.
    """
    given = {entry.name: entry for entry in call.attribute}
    for default in function.attribute_proto:
        given.setdefault(default.name, default)
    inputs = dict(zip(function.input, [*call.input, *[""] * len(function.input)], strict=False))
    outputs = {formal: actual for formal, actual in zip(function.output, call.output, strict=False) if actual}
    through = {formal: outputs.pop(formal) for formal in list(outputs) if formal in inputs}
    filler = _Filler(inputs | outputs, given, names, call.name or next(iter(call.output), call.op_type))
    body = [filler.node(node) for node in function.node]
    body += [helper.make_node("Identity", [inputs[formal]], [actual]) for formal, actual in through.items()]
    return body


class _Filler:
    """Copies nodes of a function's body with the caller's names and attributes."""

    def __init__(
        self, values: dict[str, str], attributes: Mapping[str, onnx.AttributeProto], names: Names, prefix: str
    ) -> None:
        self._values = values
        self._attributes = attributes
        self._names = names
        self._prefix = prefix

    def node(self, node: onnx.NodeProto) -> onnx.NodeProto:
        copy = onnx.NodeProto(op_type=node.op_type, domain=node.domain, overload=node.overload)
        copy.input.extend(self._value(name) for name in node.input)
        copy.output.extend(self._value(name) for name in node.output)
        copy.name = self._names.fresh(f"{self._prefix}/{node.name or node.op_type}")
        for entry in node.attribute:
            made = self._attribute(entry)
            if made is not None:
                copy.attribute.append(made)
        return copy

    def _value(self, name: str) -> str:
        if name and name not in self._values:
            self._values[name] = self._names.fresh(f"{self._prefix}/{name}")
        return self._values[name] if name else ""

    def _attribute(self, entry: onnx.AttributeProto) -> onnx.AttributeProto | None:
        copy = onnx.AttributeProto()
        if entry.ref_attr_name:
            if entry.ref_attr_name not in self._attributes:
                return None
            copy.CopyFrom(self._attributes[entry.ref_attr_name])
            copy.name = entry.name
            return copy
        copy.CopyFrom(entry)
        if entry.HasField("g"):
            copy.g.CopyFrom(self._graph(entry.g))
        if entry.graphs:
            del copy.graphs[:]
            copy.graphs.extend(self._graph(graph) for graph in entry.graphs)
        return copy

    def _graph(self, graph: onnx.GraphProto) -> onnx.GraphProto:
        copy = onnx.GraphProto()
        copy.CopyFrom(graph)
        for value in (*copy.input, *copy.output, *copy.value_info, *copy.initializer):
            value.name = self._value(value.name)
        del copy.node[:]
        copy.node.extend(self.node(node) for node in graph.node)
        return copy
