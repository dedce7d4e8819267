"""The canonical graph as an ONNX file that old runtimes load."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir
from onnx import checker, helper, shape_inference

from converters.ort import first_line
from converters.write.lower import all_nodes, lower
from converters.write.runtimes import min_runtime
from converters.write.stream import Field, initializer, model_size, write_model
from converters.write.versions import FLOOR, TOP
from lepton_edge import durable
from lepton_edge.errors import ModelError, NotYetSupportedError
from lepton_edge.version import VERSION

MAX_BYTES = 2**31 - 1
"""protobuf reads no larger message, and a variant is one file."""
MAX_IR_VERSION = 9
_SMALL = 1024
"""Constants up to this many elements (shapes, axes, scales) are shown to the checker, larger ones only as types."""


class Written(NamedTuple):
    """What was written.

    Attributes:
        opset: of the standard operators.
        ir_version: of the file.
        min_runtime: the oldest ONNX Runtime release that runs it, such as "1.12".
    """

    opset: int
    ir_version: int
    min_runtime: str


def write_onnx(model: ir.Model, path: Path) -> Written:
    """Write a graph at the lowest opset and IR version that express it; whole, or not at all.

    Equal graphs give equal bytes. The weights are streamed: no second copy of them is made.

    Args:
        model: a canonical graph at opset 20, perhaps with QuantizeLinear and DequantizeLinear; it is not changed.
        path: the .onnx file, replaced if it exists.

    Raises:
        NotYetSupportedError: the file would be larger than 2 GiB.
        ModelError: the graph is not valid ONNX, or not at opset 20: a mistake of the passes that made it.
        DiskFullError, StorageError: the file cannot be written.
    """
    if model.opset_imports.get("", TOP) != TOP:
        raise ModelError(f"{path}: the graph is at opset {model.opset_imports['']}, not {TOP}: canonicalise it first")
    copy = model.clone()
    _with_types(copy)
    opset = lower(copy)
    ir_version = _ir_version(copy)
    shell, fields = _parts(copy, ir_version)
    size = model_size(shell, fields)
    if size > MAX_BYTES:
        raise NotYetSupportedError(
            f"not yet: {path}: {size} bytes; files above 2 GiB come later: use a smaller model or a lower precision"
        )
    _check(shell, copy, path)
    with durable.replacing(path) as file:
        write_model(file, shell, fields)
    operators = {(node.domain, node.op_type) for node in all_nodes(copy.graph)}
    return Written(opset, ir_version, min_runtime(opset=opset, ir_version=ir_version, operators=operators))


def _ir_version(model: ir.Model) -> int:
    """The lowest that the standard pairs with the opsets."""
    pairs = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return max(
        int(helper.find_min_ir_version_for(pairs, ignore_unknown=True)), helper.OP_SET_ID_VERSION_MAP["ai.onnx", FLOOR]
    )


def _with_types(model: ir.Model) -> None:
    """Fill in types that a pass left out: a tensor of unknown type holds its node at the newest opset."""
    outputs = [value for node in all_nodes(model.graph) for value in node.outputs if value.name]
    if all(value.type is not None for value in outputs):
        return
    proto = _skeleton(_shell(model, model.ir_version or MAX_IR_VERSION), model)
    inferred = shape_inference.infer_shapes(proto)
    known = {value.name: value for graph in _graphs(inferred.graph) for value in (*graph.value_info, *graph.output)}
    for value in outputs:
        if value.type is None and value.name in known:
            value.type = ir.serde.deserialize_type_proto_for_type(known[value.name].type)
            value.shape = value.shape or ir.serde.deserialize_type_proto_for_shape(known[value.name].type)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies in it; a name means the same in all of them."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(body)


def _parts(model: ir.Model, ir_version: int) -> tuple[onnx.ModelProto, list[Field]]:
    fields = [initializer(value, _tensor(value)) for value in model.graph.initializers.values()]
    return _shell(model, ir_version), fields


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:
        raise ModelError(f"constant {value.name!r} of the graph has no values: a pass lost them")
    return value.const_value


def _shell(model: ir.Model, ir_version: int) -> onnx.ModelProto:
    """The model without the weights of its main graph."""
    held = dict(model.graph.initializers)
    model.graph.initializers.clear()
    try:
        graph = ir.serde.serialize_graph(model.graph)
    finally:
        for value in held.values():
            model.graph.register_initializer(value)
    _strip(graph)
    shell = onnx.ModelProto(ir_version=ir_version, producer_name="lepton-edge", producer_version=VERSION, graph=graph)
    used = {node.domain for node in all_nodes(model.graph)} | {""}
    for domain in sorted(used - {"ai.onnx"}):
        shell.opset_import.append(helper.make_opsetid(domain, model.opset_imports.get(domain, 1)))
    return shell


def _strip(whole: onnx.GraphProto) -> None:
    """Remove what runtimes infer or ignore, and what could differ between equal graphs."""
    for graph in _graphs(whole):
        for name in ("value_info", "doc_string", "quantization_annotation", "metadata_props"):
            graph.ClearField(name)
        for node in graph.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
            for attribute in node.attribute:
                attribute.ClearField("doc_string")


def _skeleton(shell: onnx.ModelProto, model: ir.Model) -> onnx.ModelProto:
    """The model with its large constants as inputs: everything but their values."""
    copy = onnx.ModelProto()
    copy.CopyFrom(shell)
    for name, value in model.graph.initializers.items():
        tensor = _tensor(value)
        if tensor.size <= _SMALL:
            named = ir.serde.serialize_tensor(tensor)
            named.name = name
            copy.graph.initializer.append(named)
        else:
            shape = [int(size) for size in tensor.shape.numpy()]
            copy.graph.input.append(helper.make_tensor_value_info(name, tensor.dtype.value, shape))
    return copy


def _check(shell: onnx.ModelProto, model: ir.Model, path: Path) -> None:
    """The full check of the standard's own checker, without a copy of the weights."""
    try:
        checker.check_model(_skeleton(shell, model), full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as cause:
        raise ModelError(f"{path}: the graph to be written is not valid ONNX: {first_line(cause)}") from cause
