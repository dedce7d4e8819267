"""Which layers lose the accuracy: both graphs run on the same samples, and what stands for the same tensor is compared.

A quantised graph keeps the names of the float tensors, so no search is needed; where it quantises a tensor, what its
readers get is the dequantised form. A layer's error is RMS(quantised - float) / standard deviation of float; what it
adds is its error less the worst error among its inputs.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx

from converters.ort import open_plain
from lepton_edge.bundle.binding import Arrays
from lepton_edge.runtimes.onnxruntime import OnnxExecutor
from lepton_edge.typed import Record

_COMPUTING = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Softmax", "LayerNormalization"}
_ACTIVATIONS = {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish"}
_DEQUANTISED = "_dequantized"
MAX_SAMPLES = 4
TOP = 3


class Blame(Record, frozen=True, kw_only=True):
    """A layer that adds error.

    Attributes:
        layer: the node's name in the canonical graph.
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
        prepared: the float file of the canonical graph that was quantised.
        quantised: the QDQ file made from it.
        inputs: samples by input name, the first axis the samples; a few are enough.
    """
    lossy = onnx.ModelProto.FromString(quantised)
    errors = _tensor_errors(prepared, lossy, _counterparts(prepared, lossy), inputs)
    producers = {name: node for node in prepared.graph.node for name in node.output}
    found = []
    for name, error in errors.items():
        layer = _layer_behind(producers[name], producers)
        if layer is not None:
            added = error - _worst_input(layer, producers, errors)
            found.append(Blame(layer=layer.name, operator=layer.op_type, error=error, added=added))
    return sorted(found, key=lambda one: -one.added)[:TOP]


def _counterparts(prepared: onnx.ModelProto, lossy: onnx.ModelProto) -> dict[str, str]:
    """Float tensor -> what stands for it in the quantised graph."""
    inside = {name for node in lossy.graph.node for name in node.output}
    found = {}
    for node in prepared.graph.node:
        for name in node.output:
            other = next((form for form in (f"{name}{_DEQUANTISED}", name) if form in inside), None)
            if other:
                found[name] = other
    return found


def _layer_behind(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The computing layer whose result this is: an activation is fused into the layer before it."""
    if node.op_type in _COMPUTING:
        return node
    before = producers.get(node.input[0]) if node.op_type in _ACTIVATIONS and node.input else None
    return before if before is not None and before.op_type in _COMPUTING else None


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
    prepared: onnx.ModelProto, lossy: onnx.ModelProto, pairs: dict[str, str], inputs: Arrays
) -> dict[str, float]:
    """Relative error by float tensor; a constant or an integer tensor has none."""
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        exact = _watched(prepared, list(pairs), Path(folder) / "exact.onnx")
        rough = _watched(lossy, list(pairs.values()), Path(folder) / "rough.onnx")
    squares, spread = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    for sample in _first_samples(inputs):
        wanted, got = exact.execute(sample), rough.execute(sample)
        for name, other in pairs.items():
            if np.issubdtype(wanted[name].dtype, np.floating):
                difference = got[other].astype(np.float64) - wanted[name].astype(np.float64)
                squares[name] += float(np.mean(difference**2))
                spread[name] += float(np.var(wanted[name].astype(np.float64)))
    return {name: float(np.sqrt(squares[name] / spread[name])) for name in pairs if spread[name] > 0}


def _first_samples(inputs: Arrays) -> Iterable[Arrays]:
    count = min(MAX_SAMPLES, len(next(iter(inputs.values()))))
    return [{name: array[index : index + 1] for name, array in inputs.items()} for index in range(count)]


def _watched(model: onnx.ModelProto, names: list[str], file: Path) -> OnnxExecutor:
    """Load a copy whose tensors `names` are outputs too; unoptimised, so that none of them is fused away."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    file.write_bytes(copy.SerializeToString())
    return open_plain(file, threads=1, optimise=False)
