"""Walks over nodes, nested graphs included, and what is known about operators."""

from collections.abc import Iterator

import onnx
from onnx import defs

from lepton_edge.errors import ModelError, UnsupportedOperatorError

_STANDARD = {"", "ai.onnx"}
_ORT_DOMAINS = {"com.microsoft", "ai.onnx.ml"}
_ORT_OWN = {"SimplifiedLayerNormalization"}
"""Operators that ONNX Runtime puts into ONNX's own domain."""
_QUANTISED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "MatMulNBits",
}


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of the bodies of If, Loop and Scan too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)
            for nested in attribute.graphs:
                yield from nodes(nested)


def node_label(node: onnx.NodeProto) -> str:
    """How messages name a node: its name, else what it computes."""
    return node.name or (node.output[0] if node.output else node.op_type)


def check_text(model: onnx.ModelProto, *, where: str) -> None:
    """Refuse names that are no UTF-8, which protobuf hands over as bytes: a damaged file.

    Raises:
        ModelError: naming no node, as its name cannot be read.
    """
    graph = model.graph
    named = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    names: list[object] = [value.name for value in named]
    names += [dim.dim_param for value in (*graph.input, *graph.output) for dim in value.type.tensor_type.shape.dim]
    names += [entry.domain for entry in model.opset_import]
    for function in model.functions:
        names += [function.name, function.domain, *function.input, *function.output, *function.attribute]
    bodies = [node for function in model.functions for node in nodes(onnx.GraphProto(node=function.node))]
    for node in (*nodes(graph), *bodies):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise ModelError(f"{where}: damaged: a name in it is no UTF-8 text")


def check_operators(model: onnx.ModelProto, *, where: str) -> None:
    """Refuse operators that nothing here can run, before any library meets them.

    Raises:
        UnsupportedOperatorError: naming the node, its type and its domain.
    """
    local = {(function.domain, function.name) for function in model.functions}
    bodies = [node for function in model.functions for node in nodes(onnx.GraphProto(node=function.node))]
    for node in (*nodes(model.graph), *bodies):
        known = (
            node.domain in _ORT_DOMAINS
            or node.op_type in _ORT_OWN
            or (node.domain in _STANDARD and defs.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain))
        )
        if not known and (node.domain, node.op_type) not in local:
            raise UnsupportedOperatorError(
                f"{where}: node {node_label(node)!r}: operator {node.op_type!r} of domain "
                f"{node.domain or 'ai.onnx'!r} is unknown: export the model with standard ONNX operators",
                operator=node.op_type,
            )


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether the graph holds integer arithmetic already; weights that are stored as integers alone are none."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return any(
        node.op_type in _QUANTISED and not (node.op_type == "DequantizeLinear" and node.input[0] in constants)
        for node in nodes(model.graph)
    )


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the weights are 16-bit floats and none is a 32-bit one; those that are cast before anything reads them
    count as what they become.
    """
    stored = _cast_to_float(model.graph)
    kinds = {onnx.TensorProto.FLOAT for _ in stored}
    kinds |= {tensor.data_type for tensor in model.graph.initializer if tensor.name not in stored}
    for node in nodes(model.graph):
        kinds |= {attribute.t.data_type for attribute in node.attribute if attribute.HasField("t")}
    halves = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    return bool(kinds & halves) and onnx.TensorProto.FLOAT not in kinds


def _cast_to_float(graph: onnx.GraphProto) -> set[str]:
    """Constants that nothing reads but a Cast to float32."""
    readers: dict[str, set[bool]] = {}
    for node in nodes(graph):
        cast = node.op_type == "Cast" and any(
            one.name == "to" and one.i == onnx.TensorProto.FLOAT for one in node.attribute
        )
        for name in node.input:
            readers.setdefault(name, set()).add(cast)
    return {tensor.name for tensor in graph.initializer if readers.get(tensor.name) == {True}}


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the model is written in."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=1)
