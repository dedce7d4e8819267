"""Functions that the writer puts together are right for numbers near 0 too, as a share of the result."""

import math
from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper

from converters.graph.canonical import canonicalise
from converters.write.tflite import write_tflite
from tests.converters.tflite.fuzzing import run_file


def test_erf_keeps_its_digits_near_zero(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"], "erf")], "net", ends[:1], ends[1:])
    source: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    written = write_tflite(canonicalise(source, where="net"), tmp_path / "net.tflite")
    sizes = np.concatenate([np.logspace(-30, 1, 400), np.linspace(0.2, 0.3, 200)]).astype(np.float32)
    x = np.concatenate([sizes, -sizes])
    (got,) = run_file(Interpreter(str(tmp_path / "net.tflite"), num_threads=1), written, {"x": x})
    wanted = np.array([math.erf(float(one)) for one in x])
    assert float(np.max(np.abs(got - wanted) / np.abs(wanted))) < 2e-6
    ends_of_range = np.array([0.0, np.inf, -np.inf], np.float32)
    (got,) = run_file(Interpreter(str(tmp_path / "net.tflite"), num_threads=1), written, {"x": ends_of_range})
    assert got.tolist() == [0.0, 1.0, -1.0]
