"""ai.onnx.ml: linear models, scaling and normalising.

Source: the operators' schemas (ONNX, ai.onnx.ml 1) and, where these leave it open, the kernels of ONNX Runtime 1.32.
"""

import numpy as np
import onnx

from converters.importers.ml.steps import F32, I64, TINY, Steps, floats, has, ints
from converters.importers.rewriting import Context, integer, text

_TRANSFORMS = {"NONE", "SOFTMAX", "LOGISTIC"}


def linear_regressor(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """X (N, F) to X W^T + b, shape (N, targets)."""
    transform, targets = text(node, "post_transform", "NONE"), integer(node, "targets", 1)
    weights, bias = floats(node, "coefficients"), floats(node, "intercepts")
    if transform not in _TRANSFORMS or not weights.size or weights.size % targets or bias.size not in {0, targets}:
        return None
    steps = Steps(node, context)
    scores = affine(steps, node.input[0], weights.reshape(targets, -1), bias)
    transformed(steps, scores, transform, node.output[0])
    return steps.nodes


def linear_classifier(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Scores X W^T + b of shape (N, classes), transformed, and the label of the largest.

    One row of coefficients for two classes, and labels that are strings, stay as they are.
    """
    transform, labels = text(node, "post_transform", "NONE"), ints(node, "classlabels_ints")
    weights, bias = floats(node, "coefficients"), floats(node, "intercepts")
    rows = max(bias.size, 1)
    if transform not in _TRANSFORMS or has(node, "classlabels_strings") or labels.size < 2 or rows != labels.size:
        return None
    steps = Steps(node, context)
    scores = affine(steps, node.input[0], weights.reshape(rows, -1), bias)
    if node.output[0]:
        chosen(steps, scores, labels, node.output[0])
    if len(node.output) > 1 and node.output[1]:
        transformed(steps, scores, transform, node.output[1])
    return steps.nodes


def affine(steps: Steps, x: str, weights: F32, bias: F32) -> str:
    """X W^T + b; weights: shape (rows, F)."""
    made = steps.do("MatMul", steps.float(x), steps.constant(np.ascontiguousarray(weights.T), "weights"))
    return steps.do("Add", made, steps.constant(bias, "bias")) if bias.size and bias.any() else made


def chosen(steps: Steps, scores: str, labels: I64, output: str) -> None:
    """The label of the largest score of each row, int64, shape (N,)."""
    if np.array_equal(labels, np.arange(labels.size)):
        steps.do("ArgMax", scores, to=output, axis=-1, keepdims=0)
        return
    index = steps.do("ArgMax", scores, axis=-1, keepdims=0)
    steps.do("Gather", steps.constant(labels, "labels"), index, to=output, axis=0)


def transformed(steps: Steps, scores: str, transform: str, output: str) -> None:
    """`post_transform`, one of `_TRANSFORMS`."""
    if transform == "SOFTMAX":
        steps.do("Softmax", scores, to=output, axis=-1)
    else:
        steps.do("Sigmoid" if transform == "LOGISTIC" else "Identity", scores, to=output)


def scaler(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """(X - offset) * scale, by feature."""
    offset, scale = floats(node, "offset"), floats(node, "scale")
    if not offset.size or offset.size != scale.size:
        return None
    steps = Steps(node, context)
    moved = steps.do("Sub", steps.float(node.input[0]), steps.constant(offset, "offset"))
    steps.do("Mul", moved, steps.constant(scale, "scale"), to=node.output[0])
    return steps.nodes


def normalizer(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Each row over its norm: the sum of absolute values, the root of the sum of squares, or the largest value.

    A row whose norm is 0 stays as it is.
    """
    norm = text(node, "norm", "MAX")
    if norm not in {"L1", "L2", "MAX"}:
        return None
    steps = Steps(node, context)
    x = steps.float(node.input[0])
    if norm == "MAX":
        top = steps.do("ReduceMax", x, steps.axes(-1), keepdims=1)
        zero = steps.do("Equal", top, steps.scalar(0, "zero"))
        size = steps.do("Where", zero, steps.scalar(1, "one"), top)
    else:
        each = steps.do("Abs", x) if norm == "L1" else steps.do("Mul", x, x)
        total = steps.do("ReduceSum", each, steps.axes(-1), keepdims=1)
        size = steps.do("Max", total, steps.scalar(TINY, "tiny"))
        size = size if norm == "L1" else steps.do("Sqrt", size)
    steps.do("Div", x, size, to=node.output[0])
    return steps.nodes
