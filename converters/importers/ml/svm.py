"""ai.onnx.ml: support vector machines, as products with their support vectors.

Source: the operators' schemas (ONNX, ai.onnx.ml 1) and, where these leave it open, ONNX Runtime 1.32.
"""

from itertools import combinations

import numpy as np
import onnx

from converters.importers.ml.steps import F32, I64, Steps, floats, has, ints
from converters.importers.rewriting import Context, integer, text

_KERNELS = {"LINEAR", "POLY", "RBF", "SIGMOID"}


def svm_regressor(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """K(X, vectors) c + rho, shape (N, 1); one-class machines that give signs stay to ai.onnx.ml."""
    count, weights, rho = integer(node, "n_supports", 0), floats(node, "coefficients"), floats(node, "rho")
    plain = text(node, "post_transform", "NONE") == "NONE" and not integer(node, "one_class", 0)
    if not plain or count < 1 or weights.size != count or rho.size != 1:
        return None
    steps = Steps(node, context)
    kernels = _kernels(steps, node, count)
    if kernels is None:
        return None
    product = steps.do("MatMul", kernels, steps.constant(weights.reshape(-1, 1), "coefficients"))
    steps.do("Add", product, steps.constant(rho, "rho"), to=node.output[0])
    return steps.nodes


def svm_classifier(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """One score for each pair of classes (for two classes it and its negative), and the label that wins most pairs.

    Probabilities of several classes are the end of an iteration, so machines with `prob_a` stay to ai.onnx.ml, and so
    do linear ones and those whose labels are strings.
    """
    counts, labels = ints(node, "vectors_per_class"), ints(node, "classlabels_ints")
    weights, rho = floats(node, "coefficients"), floats(node, "rho")
    classes, count, pairs = labels.size, int(counts.sum()), labels.size * (labels.size - 1) // 2
    plain = text(node, "post_transform", "NONE") == "NONE" and not has(node, "prob_a")
    fits = counts.size == classes and weights.size == (classes - 1) * count and rho.size == pairs
    if not plain or classes < 2 or count < 1 or not fits:
        return None
    steps = Steps(node, context)
    kernels = _kernels(steps, node, count)
    if kernels is None:
        return None
    matrix = pair_weights(weights.reshape(classes - 1, count), counts)
    product = steps.do("MatMul", kernels, steps.constant(matrix, "coefficients"))
    scores = steps.do("Add", product, steps.constant(rho, "rho"))
    if node.output[0]:
        _elected(steps, scores, labels, node.output[0])
    if len(node.output) > 1 and node.output[1]:
        signs = np.array([[-1, 1]] if classes == 2 else [[1] * pairs], np.float32)
        steps.do("Mul", scores, steps.constant(signs, "signs"), to=node.output[1])
    return steps.nodes


def pair_weights(weights: F32, counts: I64) -> F32:
    """The coefficient of each vector for each pair of classes, shape (vectors, pairs).

    Args:
        weights: shape (classes - 1, vectors): of a vector of class c against the other classes in their order.
        counts: vectors of each class.
    """
    ends = np.cumsum(counts)
    pairs = list(combinations(range(counts.size), 2))
    matrix = np.zeros((weights.shape[1], len(pairs)), np.float32)
    for number, (one, other) in enumerate(pairs):
        first, second = (slice(ends[c] - counts[c], ends[c]) for c in (one, other))
        matrix[first, number] = weights[other - 1, first]
        matrix[second, number] = weights[one, second]
    return matrix


def _elected(steps: Steps, scores: str, labels: I64, output: str) -> None:
    """A positive score is a vote for the first of its pair, else for the second; the first of the best wins."""
    pairs = list(combinations(range(labels.size), 2))
    gain, base = np.zeros((len(pairs), labels.size), np.float32), np.zeros(labels.size, np.float32)
    for number, (one, other) in enumerate(pairs):
        gain[number, one], gain[number, other] = 1, -1
        base[other] += 1
    positive = steps.float(steps.do("Greater", scores, steps.scalar(0, "zero")))
    votes = steps.do("Add", steps.do("MatMul", positive, steps.constant(gain, "gain")), steps.constant(base, "base"))
    index = steps.do("ArgMax", votes, axis=-1, keepdims=0)
    steps.do("Gather", steps.constant(labels, "labels"), index, to=output, axis=0)


def _kernels(steps: Steps, node: onnx.NodeProto, count: int) -> str | None:
    """K(X, vectors), shape (N, count); None for a kernel that is unknown or whose parameters do not fit."""
    kind, parameters, vectors = (
        text(node, "kernel_type", "LINEAR"), floats(node, "kernel_params"), floats(node, "support_vectors")
    )  # fmt: skip
    if kind not in _KERNELS or vectors.size % count or (kind != "LINEAR" and parameters.size != 3):
        return None
    x, vectors = steps.float(node.input[0]), vectors.reshape(count, -1)
    if kind == "RBF":
        return _gaussian(steps, x, vectors, float(parameters[0]))
    product = steps.do("MatMul", x, steps.constant(np.ascontiguousarray(vectors.T), "vectors"))
    if kind == "LINEAR":
        return product
    gamma, offset, degree = (float(value) for value in parameters)
    scaled = steps.do("Mul", product, steps.scalar(gamma, "gamma"))
    moved = steps.do("Add", scaled, steps.scalar(offset, "coef0"))
    return steps.do("Pow", moved, steps.scalar(degree, "degree")) if kind == "POLY" else steps.do("Tanh", moved)


def _gaussian(steps: Steps, x: str, vectors: F32, gamma: float) -> str:
    """exp(-gamma |x - v|^2) as exp(2 gamma x.v - gamma |x|^2 - gamma |v|^2).

    Both are taken relative to the vectors' mean first: far from the origin the squares would swallow the distance.
    """
    centre = vectors.mean(axis=0, dtype=np.float64)
    apart = vectors.astype(np.float64) - centre
    moved = steps.do("Sub", x, steps.constant(centre.astype(np.float32), "centre"))
    square = steps.do("ReduceSum", steps.do("Mul", moved, moved), steps.axes(-1), keepdims=1)
    own = steps.do("Mul", square, steps.scalar(-gamma, "gamma"))
    weights = (2.0 * gamma * apart.T).astype(np.float32)
    product = steps.do("MatMul", moved, steps.constant(np.ascontiguousarray(weights), "vectors"))
    fixed = (-gamma * (apart**2).sum(axis=1)).astype(np.float32)
    near = steps.do("Add", steps.do("Add", product, steps.constant(fixed, "squares")), own)
    return steps.do("Exp", near)
