"""Small TFLite files for tests of the runtimes."""

from pathlib import Path

import numpy as np

from converters.tflite.model import Operator, Quantization, Signature, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def fully_connected(weights: np.ndarray, *, keep: bool = False) -> tuple[Operator, list[Tensor]]:
    """The operator on tensors x, y, w, b, and its constants: y = x @ weights."""
    constants = [
        Tensor("w", weights.T.shape, "float32", data=np.ascontiguousarray(weights.T)),
        Tensor("b", (weights.shape[1],), "float32", data=np.zeros(weights.shape[1], np.float32)),
    ]
    options = {"keep_num_dims": True} if keep else {}
    return Operator("FULLY_CONNECTED", (0, 2, 3), (1,), options, version=5 if keep else 1), constants


def linear(path: Path, weights: np.ndarray = WEIGHTS, *, batch: int | None = None, named: bool = False) -> Path:
    """y = x @ weights, float32, with an open batch unless `batch` fixes it.

    named: tensors are called t0 and t1, and a signature calls them x and y.
    """
    rows, columns = weights.shape
    operator, constants = fully_connected(weights)
    opened = None if batch else (-1,)
    tensors = [
        Tensor("t0" if named else "x", (batch or 1, rows), "float32", signature=opened and (*opened, rows)),
        Tensor("t1" if named else "y", (batch or 1, columns), "float32", signature=opened and (*opened, columns)),
        *constants,
    ]
    graph = Subgraph("main", tensors, [operator], (0,), (1,))
    signatures = [Signature("serving_default", {"x": 0}, {"y": 1})] if named else []
    write_file(TfliteModel([graph], signatures=signatures), path)
    return path


def added(path: Path) -> Path:
    """s = a + b, and b again as an output; a, b of shape [n, 2], in this order in the file: b, a."""
    shape, opened = (1, 2), (-1, 2)
    tensors = [Tensor(name, shape, "float32", signature=opened) for name in ("b", "a", "s")]
    graph = Subgraph("main", tensors, [Operator("ADD", (1, 0), (2,))], (0, 1), (2, 0))
    write_file(TfliteModel([graph]), path)
    return path


def remembers(path: Path) -> Path:
    """A recurrent operator whose state is a variable tensor: x [1, 3, 2] to h [1, 3, 2]."""
    eye = np.eye(2, dtype=np.float32)
    tensors = [
        Tensor("x", (1, 3, 2), "float32"),
        Tensor("h", (1, 3, 2), "float32"),
        Tensor("w", (2, 2), "float32", data=eye),
        Tensor("r", (2, 2), "float32", data=eye),
        Tensor("b", (2,), "float32", data=np.zeros(2, np.float32)),
        Tensor("state", (1, 2), "float32", variable=True),
    ]
    operator = Operator("UNIDIRECTIONAL_SEQUENCE_RNN", (0, 2, 3, 4, 5), (1,))
    write_file(TfliteModel([Subgraph("main", tensors, [operator], (0,), (1,))]), path)
    return path


def quantised(path: Path, *, scale: float, zero_point: int) -> Path:
    """y = relu(x) in int8, channels last: x, y of shape [1, 2, 2, 3]."""
    steps = Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))
    tensors = [Tensor(name, (1, 2, 2, 3), "int8", quantization=steps) for name in ("x", "y")]
    graph = Subgraph("main", tensors, [Operator("RELU", (0,), (1,), version=2)], (0,), (1,))
    write_file(TfliteModel([graph]), path)
    return path


def chained(path: Path, layers: list[np.ndarray]) -> Path:
    """y = x @ layers[0] @ layers[1] ..., float32, with an open batch."""
    sizes = [layers[0].shape[0], *(layer.shape[1] for layer in layers)]
    names = ["x", *(f"h{number}" for number in range(1, len(layers))), "y"]
    tensors = [
        Tensor(name, (1, size), "float32", signature=(-1, size)) for name, size in zip(names, sizes, strict=True)
    ]
    for number, layer in enumerate(layers):
        tensors.append(Tensor(f"w{number}", layer.T.shape, "float32", data=np.ascontiguousarray(layer.T)))
        tensors.append(Tensor(f"b{number}", layer.shape[1:], "float32", data=np.zeros(layer.shape[1], np.float32)))
    operators = [
        Operator("FULLY_CONNECTED", (number, len(names) + 2 * number, len(names) + 2 * number + 1), (number + 1,))
        for number in range(len(layers))
    ]
    write_file(TfliteModel([Subgraph("main", tensors, operators, (0,), (len(layers),))]), path)
    return path
