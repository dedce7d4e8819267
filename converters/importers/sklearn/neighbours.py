"""Nearest neighbours by Euclidean distance, as one product with the stored samples.

skl2onnx 1.20 writes a loop over the batch, and leaves out that neighbours may count by their distance.

Source: sklearn/neighbors (_classification.py, _regression.py, _base.py `_get_weights`).
"""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

from typing import Any

import numpy as np
from onnx import TensorProto

from converters.importers.sklearn.nodes import Writer
from lepton_edge.bundle.binding import Array
from lepton_edge.errors import UnsupportedOperatorError

_TINY = 1e-30
_EUCLIDEAN = {("euclidean", None), ("minkowski", 2), ("sqeuclidean", None)}


def converters() -> dict[type, Any]:
    """What skl2onnx takes as `custom_conversion_functions`."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    return {KNeighborsClassifier: _classifier, KNeighborsRegressor: _regressor}


def _classifier(scope: Any, operator: Any, container: Any) -> None:
    """Votes of the neighbours by class, over their sum."""
    from skl2onnx.common._registration import get_converter

    if not _is_plain(operator.raw_operator):
        get_converter("SklearnKNeighborsClassifier")(scope, operator, container)
        return
    model, write = operator.raw_operator, Writer(scope, container)
    classes = np.asarray(model.classes_).astype(np.int64)
    hot = np.eye(classes.size, dtype=np.float32)[np.asarray(model._y).ravel()]  # noqa: SLF001
    label, scores = (value.full_name for value in operator.outputs)
    _averaged(write, operator, hot, scores)
    index = write.do("ArgMax", scores, axis=1, keepdims=0)
    write.do("Gather", write.constant(classes), index, to=label, axis=0)


def _regressor(scope: Any, operator: Any, container: Any) -> None:
    """The mean of the neighbours' values."""
    from skl2onnx.common._registration import get_converter

    if not _is_plain(operator.raw_operator):
        get_converter("SklearnKNeighborsRegressor")(scope, operator, container)
        return
    values = np.asarray(operator.raw_operator._y, np.float32)  # noqa: SLF001
    values = values.reshape(len(values), -1)
    _averaged(Writer(scope, container), operator, values, operator.outputs[0].full_name)


def _averaged(write: Writer, operator: Any, values: Array, output: str) -> None:
    """The weighted mean of the neighbours' rows of `values`, shape (samples, columns)."""
    model = operator.raw_operator
    x = write.float(operator.inputs[0])
    stored = np.asarray(model._fit_X, np.float64)  # noqa: SLF001
    index = _nearest(write, x, stored, int(model.n_neighbors))
    rows = write.do("Gather", write.constant(values), index, axis=0)
    if model.weights == "uniform":
        write.do("ReduceMean", rows, write.constant(np.array([1], np.int64)), to=output, keepdims=0)
        return
    weights = _by_distance(write, x, stored, index)
    total = write.do("ReduceSum", write.do("Mul", rows, weights), write.constant(np.array([1], np.int64)), keepdims=0)
    whole = write.do("ReduceSum", weights, write.constant(np.array([1], np.int64)), keepdims=0)
    write.do("Div", total, whole, to=output)


def _is_plain(model: Any) -> bool:
    """Whether it measures the Euclidean distance.

    Raises:
        UnsupportedOperatorError: it does not, and weighs neighbours by it, which skl2onnx would leave out.
    """
    power = getattr(model, "p", None) if model.effective_metric_ == "minkowski" else None
    weighted = (model.effective_metric_params_ or {}).get("w") is not None
    plain = (model.effective_metric_, power) in _EUCLIDEAN and not weighted
    if model.weights != "uniform" and not (plain and model.weights == "distance"):
        kind = type(model).__name__
        raise UnsupportedOperatorError(
            f"a {kind} with the weights {model.weights!r} by the distance {model.effective_metric_!r} has no ONNX form "
            "here: use 'uniform' weights, or 'distance' with the Euclidean one",
            operator=kind,
        )
    return plain


def _nearest(write: Writer, x: str, stored: Array, count: int) -> str:
    """Places of the nearest stored samples, shape (N, count): by |s|^2 - 2 x.s, as |x|^2 is the same for all.

    Both are taken relative to the mean of the stored ones: far from the origin the squares would swallow the distance.
    """
    centre = stored.mean(axis=0)
    apart = stored - centre
    moved = write.do("Sub", x, write.constant(centre.astype(np.float32)))
    product = write.do("MatMul", moved, write.constant(np.ascontiguousarray(2 * apart.T).astype(np.float32)))
    near = write.do("Sub", product, write.constant((apart**2).sum(axis=1).astype(np.float32)))
    return write.do("TopK", near, write.constant(np.array([count], np.int64)), outputs=2, axis=1, largest=1, sorted=1)


def _by_distance(write: Writer, x: str, stored: Array, index: str) -> str:
    """1 / distance of each neighbour, shape (N, count, 1); where one is 0, its kind alone counts."""
    rows = write.do("Gather", write.constant(stored.astype(np.float32)), index, axis=0)
    apart = write.do("Sub", write.do("Unsqueeze", x, write.constant(np.array([1], np.int64))), rows)
    axes = write.constant(np.array([-1], np.int64))
    square = write.do("ReduceSum", write.do("Mul", apart, apart), axes, keepdims=1)
    distance = write.do("Sqrt", write.do("Max", square, write.constant(np.array(_TINY, np.float32))))
    same = write.do(
        "Cast", write.do("Equal", square, write.constant(np.array(0, np.float32))), to_type=TensorProto.FLOAT
    )
    found = write.do("ReduceMax", same, write.constant(np.array([1], np.int64)), keepdims=1)
    inverse = write.do("Div", write.constant(np.array(1, np.float32)), distance)
    some = write.do("Greater", found, write.constant(np.array(0, np.float32)))
    return write.do("Where", some, same, inverse)
