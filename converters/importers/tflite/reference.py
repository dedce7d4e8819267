"""The file itself in LiteRT, to hold its graph against."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.host import host_runtime
from converters.importers.tflite.convert import border_names
from converters.importers.tflite.scope import dequantized, is_steps
from converters.source import Reference
from converters.tflite.model import Operator, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file
from lepton_edge.bundle.binding import Arrays
from lepton_edge.runtimes import Executor

_HYBRID: Mapping[str, int] = {
    "BATCH_MATMUL": 1, "CONV_2D": 1, "CONV_3D": 1, "DEPTHWISE_CONV_2D": 1, "EMBEDDING_LOOKUP": 1, "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
}  # fmt: skip
"""Operators that take float activations and weights in steps, and which input holds these."""


def make_reference(model: TfliteModel, path: Path, *, provider: str | None = None) -> Reference:
    """The file in LiteRT; it is loaded at the first call.

    Of a file with float activations and int8 weights, its weights as floats: LiteRT rounds activations to int8 while
    such a file runs, each time to other steps, which is no part of what the file says.

    Args:
        model: of the file.
        path: of the file.
        provider: of LiteRT: which of its kernels.
    """
    inputs, outputs = border_names(model)
    loaded: list[Executor] = []

    def run(arrays: Arrays) -> Arrays:
        if not loaded:
            loaded.append(_load(model, path, [*inputs.values()], outputs, provider))
        return {name: array for name, array in loaded[0].execute(arrays).items() if name in outputs}

    return run


def _load(
    model: TfliteModel, path: Path, inputs: Sequence[str], outputs: Sequence[str], provider: str | None
) -> Executor:
    runtime = host_runtime("litert")
    main = model.main
    own = [main.tensors[index].name for index in (*main.inputs, *main.outputs)]
    if not is_hybrid(model) and (model.signatures or own == [*inputs, *outputs]):
        return runtime.load(path, threads=1, provider=provider)
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        copy = Path(folder) / path.name
        write_file(_named(unpacked(model), [*inputs, *outputs]), copy)
        return runtime.load(copy, threads=1, provider=provider)


def is_hybrid(model: TfliteModel) -> bool:
    """Whether operators take float activations and weights in steps."""
    return any(_weights(operator, subgraph) >= 0 for subgraph in model.subgraphs for operator in subgraph.operators)


def unpacked(model: TfliteModel) -> TfliteModel:
    """The same file with the weights of such operators as floats."""
    return replace(model, subgraphs=[_unpacked(one) for one in model.subgraphs])


def _unpacked(subgraph: Subgraph) -> Subgraph:
    wanted = {_weights(operator, subgraph) for operator in subgraph.operators}
    tensors = [_as_float(one) if index in wanted else one for index, one in enumerate(subgraph.tensors)]
    return replace(subgraph, tensors=tensors)


def _as_float(tensor: Tensor) -> Tensor:
    assert tensor.data is not None
    assert tensor.quantization is not None
    array = tensor.data if isinstance(tensor.data, np.ndarray) else tensor.data.numpy()
    return replace(tensor, dtype="float32", data=dequantized(array, tensor.quantization), quantization=None)


def _weights(operator: Operator, subgraph: Subgraph) -> int:
    """The tensor of an operator's weights where they alone are in steps; -1 otherwise."""
    position = _HYBRID.get(operator.code, -1)
    if not 0 <= position < len(operator.inputs) or operator.inputs[position] < 0:
        return -1
    weights = subgraph.tensors[operator.inputs[position]]
    results = {subgraph.tensors[index].dtype for index in operator.outputs}
    alone = weights.data is not None and is_steps(weights) and results == {"float32"}
    return operator.inputs[position] if alone else -1


def _named(model: TfliteModel, names: Sequence[str]) -> TfliteModel:
    """The same with inputs and outputs under these names alone, and with no signatures."""
    main = model.main
    given = dict(zip((*main.inputs, *main.outputs), names, strict=True))
    tensors = [
        replace(tensor, name=given.get(index, f"tensor {index}")) for index, tensor in enumerate(main.tensors)
    ]  # fmt: skip
    return replace(model, subgraphs=[replace(main, tensors=tensors), *model.subgraphs[1:]], signatures=())
