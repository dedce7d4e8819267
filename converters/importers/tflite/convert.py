"""From a TFLite file as values to one ONNX model."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from converters.graph.signature import BATCH
from converters.importers.rewriting import Names
from converters.importers.tflite.graph import Graph
from converters.importers.tflite.op import ONNX_TYPES, sizes
from converters.importers.tflite.read import check_operators, read_subgraph
from converters.importers.tflite.scope import Scope, is_steps
from converters.tflite.model import Tensor, TfliteModel
from lepton_edge.errors import ModelError, UnsupportedOperatorError

_OPSET, _IR_VERSION = 20, 9
_OPSET_INT16, _IR_VERSION_INT16 = 21, 10
"""The first in which steps may be of 16 bits."""


def to_onnx(model: TfliteModel, *, where: str, real: bool = False, open_axes: bool = True) -> onnx.ModelProto:
    """Make an ONNX graph that computes what the file computes, under the names that it gives inputs and outputs.

    Tensors that are steps of a scale stay that: they lie between QuantizeLinear and DequantizeLinear with the file's
    own scales and zero points, and so do inputs and outputs.

    Args:
        model: the file.
        where: how messages name it.
        real: make a float graph instead, without any rounding to steps.
        open_axes: leave axes open that the file leaves open.

    Raises:
        UnsupportedOperatorError: naming every operator that has no ONNX form.
        ModelError: a subgraph without inputs or outputs.
    """
    check_operators(model, where=where)
    main = model.main
    if not main.inputs or not main.outputs:
        raise ModelError(f"{where}: it has no inputs or no outputs, so there is nothing to run")
    inputs, outputs = border_names(model)
    graph = Graph(Names([*inputs.values(), *outputs]))
    scope = Scope(model, 0, graph, real=real, read=read_subgraph)
    for index, name in inputs.items():
        scope.bind(index, name)
    try:
        read_subgraph(scope)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"{where}: {error}", operator=error.operator) from error
    results = [scope.stored(index) for index in main.outputs]
    nodes = _named(graph, results, outputs, fixed=set(inputs.values()))
    ends = [main.tensors[index] for index in main.outputs]
    proto = helper.make_graph(
        nodes,
        main.name or "main",
        [_border(name, main.tensors[index], real=real, open_axes=open_axes) for index, name in inputs.items()],
        [_border(name, tensor, real=real, open_axes=open_axes) for name, tensor in zip(outputs, ends, strict=True)],
        list(graph.constants.values()),
    )
    return _model(proto, wide=not real and any(_is_wide(one) for sub in model.subgraphs for one in sub.tensors))


def border_names(model: TfliteModel) -> tuple[dict[int, str], list[str]]:
    """The names of inputs by tensor, and of outputs in order: those of the first signature of the main subgraph, else
    the tensors' own; made different where two are the same.
    """
    main = model.main
    signature = next((one for one in model.signatures if not one.subgraph), None)
    given = {index: name for name, index in signature.inputs.items()} if signature else {}
    taken = {index: name for name, index in signature.outputs.items()} if signature else {}
    names = Names([])
    inputs = {
        index: names.fresh(given.get(index) or main.tensors[index].name or f"input_{position}")
        for position, index in enumerate(main.inputs)
    }
    outputs = [
        names.fresh(taken.get(index) or main.tensors[index].name or f"output_{position}")
        for position, index in enumerate(main.outputs)
    ]
    return inputs, outputs


def _named(graph: Graph, results: Sequence[str], outputs: Sequence[str], *, fixed: set[str]) -> list[onnx.NodeProto]:
    """Give outputs their names; one that is an input, a constant or another output too gets a node of its own."""
    renamed: dict[str, str] = {}
    for result, name in zip(results, outputs, strict=True):
        if result in renamed or result in fixed or result in graph.constants:
            graph.nodes.append(helper.make_node("Identity", [result], [name], name=name))
        else:
            renamed[result] = name
    _rename(graph.nodes, renamed)
    return graph.nodes


def _rename(nodes: Sequence[onnx.NodeProto], renamed: Mapping[str, str]) -> None:
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g.node, renamed)


def _border(name: str, tensor: Tensor, *, real: bool, open_axes: bool) -> onnx.ValueInfoProto:
    dtype = "float32" if real and is_steps(tensor) else tensor.dtype
    shape: list[int | str] = list(tensor.shape)
    if open_axes:
        shape = [
            size if size is not None else (f"{name}_{axis}" if axis else BATCH)
            for axis, size in enumerate(sizes(tensor))
        ]
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], shape)


def _is_wide(tensor: Tensor) -> bool:
    return is_steps(tensor) and tensor.dtype == "int16"


def _model(graph: onnx.GraphProto, *, wide: bool) -> onnx.ModelProto:
    opset, version = (_OPSET_INT16, _IR_VERSION_INT16) if wide else (_OPSET, _IR_VERSION)
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = version
    made.producer_name = "lepton-edge"
    return made
