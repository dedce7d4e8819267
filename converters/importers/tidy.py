"""What torch's exporter leaves to do in its graph: names, types of constants, traces of this machine."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.graph.signature import BATCH
from converters.importers.rewriting import Names, graphs

_SAME_TYPE = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Mod", "Equal", "Less", "Greater"}
"""Operators whose inputs are of one type in ONNX, and promoted in torch."""
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8}


def tidy(model: onnx.ModelProto, inputs: Sequence[str] | None, outputs: Sequence[str]) -> None:
    """Name inputs and outputs, give the batch its name, make constants fit, and drop stack traces; in place.

    Args:
        model: from torch's exporter.
        inputs: names for the inputs in order; None leaves them.
        outputs: names for the outputs in order.
    """
    _drop_traces(model)
    _rename(model.graph, inputs, outputs)
    _name_batch(model)
    _promote(model.graph)


def _drop_traces(model: onnx.ModelProto) -> None:
    """The exporter notes the user's code, with paths of this machine, on every node."""
    del model.metadata_props[:]
    for graph in graphs(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for part in (*graph.input, *graph.output, *graph.value_info, *graph.node, *graph.initializer):
            part.doc_string = ""
            del part.metadata_props[:]


def _rename(graph: onnx.GraphProto, inputs: Sequence[str] | None, outputs: Sequence[str]) -> None:
    """The exporter can name outputs too, but then takes a name twice where a value inside has it."""
    wishes: dict[str, str] = {}
    if inputs is not None and len(inputs) == len(graph.input):
        wishes |= {value.name: name for value, name in zip(graph.input, inputs, strict=True)}
    if len(outputs) == len(graph.output):
        given = {value.name: name for value, name in zip(graph.output, outputs, strict=True)}
        # An input that is an output as well, or a value that is two outputs, keeps its name.
        several = len(given) < len(graph.output)
        wishes |= {} if several else {old: new for old, new in given.items() if old not in wishes}
    taken = {name for inner in graphs(graph) for name in _names(inner)}
    names = Names(taken | set(wishes.values()))
    moved = {old: names.fresh(old) for old in wishes.values() if old in taken and old not in wishes}
    _apply(graph, {**moved, **wishes})


def _names(graph: onnx.GraphProto) -> set[str]:
    found = {value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)}
    for node in graph.node:
        found.update(node.input)
        found.update(node.output)
    return found


def _apply(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for inner in graphs(graph):
        for value in (*inner.input, *inner.output, *inner.value_info, *inner.initializer):
            value.name = names.get(value.name, value.name)
        for node in inner.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def _name_batch(model: onnx.ModelProto) -> None:
    dims = [value.type.tensor_type.shape.dim for value in model.graph.input]
    first = {dim[0].dim_param for dim in dims if dim and dim[0].dim_param}
    if len(first) != 1:
        return
    batch = first.pop()
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == batch:
                    dim.dim_param = BATCH


def _promote(graph: onnx.GraphProto) -> None:
    """Make integer constants beside floats floats: torch promotes them, and its exporter leaves that out at times."""
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = Names(_names(graph))
    for node in graph.node:
        if node.op_type not in _SAME_TYPE or node.domain:
            continue
        kinds = [types.get(name) or (constants[name].data_type if name in constants else 0) for name in node.input]
        floats = [kind for kind in kinds if kind in _FLOATS]
        for position, name in enumerate(node.input):
            if floats and name in constants and constants[name].data_type in _INTEGERS:
                dtype = helper.tensor_dtype_to_np_dtype(floats[0])
                array = np.asarray(numpy_helper.to_array(constants[name])).astype(dtype)
                made = numpy_helper.from_array(array, names.fresh(f"{name}_float"))
                graph.initializer.append(made)
                node.input[position] = made.name
