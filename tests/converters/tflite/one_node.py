"""ONNX models of one node, through the canonical form and the TFLite writer, against ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import helper, numpy_helper

from converters.graph.canonical import canonicalise
from converters.write.tflite import write_tflite

Array = npt.NDArray[Any]
KERNELS = {"xnnpack": OpResolverType.AUTO, "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def graph_of(
    operator: str,
    inputs: Mapping[str, Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    constants: Sequence[str] = (),
    outputs: int = 1,
) -> onnx.ModelProto:
    """A model of one node; those inputs that `constants` does not name are fed."""
    names = [name if value is not None else "" for name, value in inputs.items()]
    made = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(operator, names, made, **(attributes or {}))
    given = {name: np.asarray(value) for name, value in inputs.items() if value is not None}
    fed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
        if name not in constants
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in given.items() if name in constants]
    open_outputs = [helper.make_empty_tensor_value_info(name) for name in made]
    graph = helper.make_graph([node], "one node", fed, open_outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    for entry, value in zip(graph_outputs(model), answers(model, given), strict=True):
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, value.shape))
    return model


def graph_outputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return list(model.graph.output)


def answers(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """What ONNX Runtime computes."""
    session = onnxruntime.InferenceSession(
        onnx.shape_inference.infer_shapes(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = {entry.name for entry in session.get_inputs()}
    found = session.run(None, {name: value for name, value in feeds.items() if name in names})
    return [np.asarray(value) for value in found]


def litert(path: Path, feeds: Mapping[str, Array], kernels: str) -> dict[str, Array]:
    """What LiteRT computes, by the names of the outputs."""
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=KERNELS[kernels])
    entries = interpreter.get_input_details()
    for entry in entries:
        if tuple(entry["shape"]) != feeds[entry["name"]].shape:
            interpreter.resize_tensor_input(entry["index"], feeds[entry["name"]].shape)
    interpreter.allocate_tensors()
    for entry in entries:
        interpreter.set_tensor(entry["index"], feeds[entry["name"]].astype(entry["dtype"]))
    interpreter.invoke()
    return {entry["name"]: interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()}


def convert(model: onnx.ModelProto, path: Path) -> None:
    write_tflite(canonicalise(model, where="one.onnx"), path)


def check(
    path: Path,
    operator: str,
    inputs: Mapping[str, Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    constants: Sequence[str] = (),
    outputs: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> None:
    """Convert one node and hold both of LiteRT's kernel sets against ONNX Runtime: values, types and shapes."""
    model = graph_of(operator, inputs, attributes, constants=constants, outputs=outputs)
    given = {name: np.asarray(value) for name, value in inputs.items() if value is not None}
    want = answers(model, given)
    convert(model, path)
    for kernels in KERNELS:
        got = litert(path, given, kernels)
        for index, value in enumerate(want):
            found = got[f"y{index}"]
            assert found.shape == value.shape, kernels
            assert found.dtype == (np.float32 if value.dtype.kind == "f" else value.dtype), kernels
            if value.dtype.kind == "f":
                np.testing.assert_allclose(found, value, rtol=rtol, atol=atol, err_msg=kernels)
            else:
                np.testing.assert_array_equal(found, value, err_msg=kernels)
