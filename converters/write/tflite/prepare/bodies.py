"""Operators that ONNX defines by a function, written out as its body."""

from typing import Protocol, cast

import onnx
import onnx_ir as ir
from onnx import defs, helper

from converters.graph.canonical.control import hand_over, splice
from converters.graph.canonical.edit import has_bodies, main_graph
from converters.importers.functions import instantiate
from converters.importers.opset import to_opset
from converters.importers.rewriting import Names
from converters.write.tflite.table import find
from lepton_edge.errors import ModelError

_OPSET = 20
_RANDOM = {"Bernoulli"}


class _Bodies(Protocol):
    """What onnx's type stubs leave out of OpSchema."""

    function_opset_versions: list[int]
    context_dependent_function_opset_versions: list[int]

    def get_function_with_opset_version(self, version: int, /) -> bytes: ...
    def get_context_dependent_function_with_opset_version(
        self, version: int, node: bytes, types: list[bytes], /
    ) -> bytes: ...


def has_body(node: ir.Node) -> bool:
    """Whether the operator has no row in the table of lowerings, and a function that stands for it."""
    if node.domain not in {"", "ai.onnx"} or node.op_type in _RANDOM or find(node.op_type, _OPSET) is not None:
        return False
    if has_bodies(node) or not defs.has(node.op_type, _OPSET, ""):
        return False
    bodies = cast("_Bodies", defs.get_schema(node.op_type, _OPSET, ""))
    versions = [*bodies.function_opset_versions, *bodies.context_dependent_function_opset_versions]
    return any(version <= _OPSET for version in versions)


def write_out(node: ir.Node) -> bool:
    """Put the function's nodes in the node's place; False where ONNX has none for this use, or a type is not known."""
    function = _function(node)
    if function is None:
        return False
    graph = main_graph(node)
    body = _body(node, function)
    for inner, outer in zip(list(body.inputs), [one for one in node.inputs if one is not None], strict=True):
        inner.replace_all_uses_with(outer, replace_graph_outputs=True)
    results = list(body.outputs)
    body.outputs.clear()
    moved = splice(graph, node, body)
    given = iter(moved.get(value, value) for value in results)
    kept = [output for output in node.outputs if output.name]
    made = dict(zip(kept, given, strict=True))
    hand_over(node, [made.get(output, output) for output in node.outputs])
    graph.remove(node, safe=True)
    return True


def _function(node: ir.Node) -> onnx.FunctionProto | None:
    schema = defs.get_schema(node.op_type, _OPSET, "")
    bodies = cast("_Bodies", schema)
    typed = [at for at in bodies.context_dependent_function_opset_versions if at <= _OPSET]
    plain = [at for at in bodies.function_opset_versions if at <= _OPSET]
    try:
        if typed:
            types = [_type(value).SerializeToString() for value in node.inputs]
            call = _call(node).SerializeToString()
            data = bodies.get_context_dependent_function_with_opset_version(typed[-1], call, types)
        else:
            data = bodies.get_function_with_opset_version(plain[-1])
        found = onnx.FunctionProto.FromString(data)
    except (RuntimeError, ValueError):
        return None
    return found if found.node else None


def _call(node: ir.Node) -> onnx.NodeProto:
    """The node with its schema's defaults written on it."""
    made = ir.serde.serialize_node(node)
    present = {entry.name for entry in made.attribute}
    for name, attribute in defs.get_schema(node.op_type, _OPSET, "").attributes.items():
        if attribute.default_value.type and name not in present:
            made.attribute.append(attribute.default_value)
    return made


def _type(value: ir.Value | None) -> onnx.TypeProto:
    made = onnx.TypeProto()
    if value is not None and value.type is not None:
        ir.serde.serialize_type_into(made, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(made, value.shape)
    return made


def _body(node: ir.Node, function: onnx.FunctionProto) -> ir.Graph:
    """The function's nodes as a graph of the opset of all others, whose inputs are what the node reads."""
    call = _call(node)
    own = max((one.version for one in function.opset_import if one.domain in {"", "ai.onnx"}), default=_OPSET)
    read = [value for value in node.inputs if value is not None]
    inputs = [onnx.ValueInfoProto(name=f"in{at}", type=_type(value)) for at, value in enumerate(read)]
    names = iter(value.name for value in inputs)
    call.input[:] = [next(names) if name else "" for name in call.input]
    call.output[:] = [f"out{at}" if name else "" for at, name in enumerate(call.output)]
    outputs = [helper.make_empty_tensor_value_info(name) for name in call.output if name]
    made = instantiate(call, function, Names([*call.input, *call.output]))
    graph = helper.make_graph(made, "body", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", own)], ir_version=9)
    try:
        raised = to_opset(model, _OPSET, where=node.op_type)
    except ModelError as cause:
        raise AssertionError(f"the function of {node.op_type} is not of opset {own}") from cause
    return ir.serde.deserialize_graph(raised.graph)
