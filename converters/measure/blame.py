"""Which layers lose the accuracy: both graphs run on the same samples, and tensors of one name are compared.

A quantised graph keeps the names of the float tensors that it computes, so no search is needed. A layer's error is
RMS(quantised - float) / standard deviation of float; what it adds is its error less the worst error among its inputs.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.ort import open_plain
from lepton_edge.bundle.binding import Arrays
from lepton_edge.runtimes.onnxruntime import OnnxExecutor
from lepton_edge.typed import Record

_COMPUTING = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Softmax", "LayerNormalization"}
MAX_SAMPLES = 4
TOP = 3


class Blame(Record, frozen=True, kw_only=True):
    """A layer that adds error.

    Attributes:
        layer: the node's name in the prepared float graph.
        operator: its type.
        error: relative error of its output (0 is exact; 1 is as large as the signal).
        added: how much of that its inputs did not have yet.
    """

    layer: str
    operator: str
    error: float
    added: float


def blame_layers(prepared: onnx.ModelProto, quantised: bytes, inputs: Arrays) -> list[Blame]:
    """Name the layers that add the most error, the worst first.

    Args:
        prepared: the float graph that was quantised.
        quantised: the QDQ file made from it.
        inputs: samples by input name, the first axis the samples; a few are enough.
    """
    lossy = onnx.ModelProto.FromString(quantised)
    errors = _tensor_errors(prepared, lossy, _shared_tensors(prepared, lossy), inputs)
    producers = {name: node for node in prepared.graph.node for name in node.output}
    found = []
    for node in lossy.graph.node:
        name = node.output[0] if node.op_type in _COMPUTING else ""
        if name in errors:
            added = errors[name] - _worst_input(producers[name], producers, errors)
            layer = node.name or producers[name].name
            found.append(Blame(layer=layer, operator=node.op_type, error=errors[name], added=added))
    return sorted(found, key=lambda one: -one.added)[:TOP]


def _shared_tensors(prepared: onnx.ModelProto, lossy: onnx.ModelProto) -> list[str]:
    inside = {name for node in lossy.graph.node for name in node.output}
    outputs = {value.name for value in prepared.graph.output}
    return [name for node in prepared.graph.node for name in node.output if name in inside - outputs]


def _worst_input(
    node: onnx.NodeProto, producers: dict[str, onnx.NodeProto], errors: dict[str, float], depth: int = 8
) -> float:
    """The largest known error upstream; looks through nodes (Relu, Reshape) whose own output is not shared."""
    worst = 0.0
    for name in node.input:
        if name in errors:
            worst = max(worst, errors[name])
        elif name in producers and depth:
            worst = max(worst, _worst_input(producers[name], producers, errors, depth - 1))
    return worst


def _tensor_errors(
    prepared: onnx.ModelProto, lossy: onnx.ModelProto, names: list[str], inputs: Arrays
) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        exact = _watched(prepared, names, Path(folder) / "exact.onnx")
        rough = _watched(lossy, names, Path(folder) / "rough.onnx")
    squares = dict.fromkeys(names, 0.0)
    spread = dict.fromkeys(names, 0.0)
    for sample in _first_samples(inputs):
        wanted, got = exact.execute(sample), rough.execute(sample)
        for name in names:
            if np.issubdtype(wanted[name].dtype, np.floating):
                difference = got[name].astype(np.float64) - wanted[name].astype(np.float64)
                squares[name] += float(np.mean(difference**2))
                spread[name] += float(np.var(wanted[name].astype(np.float64)))
    return {name: float(np.sqrt(squares[name] / spread[name])) for name in names if spread[name] > 0}


def _first_samples(inputs: Arrays) -> Iterable[Arrays]:
    count = min(MAX_SAMPLES, len(next(iter(inputs.values()))))
    return [{name: array[index : index + 1] for name, array in inputs.items()} for index in range(count)]


def _watched(model: onnx.ModelProto, names: list[str], file: Path) -> OnnxExecutor:
    """Load a copy whose tensors `names` are outputs too; unoptimised, so that none of them is fused away."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names if name not in known
    )
    for value in copy.graph.output:
        if value.name in names:
            value.ClearField("type")
    file.write_bytes(copy.SerializeToString())
    return open_plain(file, threads=1, optimise=False)
