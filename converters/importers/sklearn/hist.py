"""Gradient boosting over histograms, as skl2onnx 1.20 cannot write it: its own converter hands a boolean to an integer.

Thresholds are rounded down to float32 here, which sends every float32 feature the way that float64 would.

Source: sklearn/ensemble/_hist_gradient_boosting/_predictor.pyx (a value at most the threshold goes left, a missing one
where `missing_go_to_left` says), and the schema of TreeEnsembleRegressor (ONNX, ai.onnx.ml 3).
"""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.importers.sklearn.nodes import Writer
from lepton_edge.errors import UnsupportedOperatorError

_LINKS = {"IdentityLink": "Identity", "LogLink": "Exp", "LogitLink": "Sigmoid", "MultinomialLogit": "Softmax"}
"""From the loss's link to the operator that undoes it."""


def converters() -> dict[type, Any]:
    """What skl2onnx takes as `custom_conversion_functions`."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return {HistGradientBoostingClassifier: _classifier, HistGradientBoostingRegressor: _regressor}


def _classifier(scope: Any, operator: Any, container: Any) -> None:
    model, write = operator.raw_operator, Writer(scope, container)
    label, scores = (value.full_name for value in operator.outputs)
    _probabilities(write, model, _trees(write, operator), scores)
    index = write.do("ArgMax", scores, axis=1, keepdims=0)
    write.do("Gather", write.constant(np.asarray(model.classes_).astype(np.int64)), index, to=label, axis=0)


def _probabilities(write: Writer, model: Any, raw: str, output: str) -> None:
    link = _inverse_link(model)
    if link == "Softmax":
        write.do("Softmax", raw, to=output, axis=1)
        return
    positive = write.do(link, raw)
    negative = write.do("Sub", write.constant(np.array(1, np.float32)), positive)
    write.do("Concat", negative, positive, to=output, axis=1)


def _regressor(scope: Any, operator: Any, container: Any) -> None:
    write = Writer(scope, container)
    write.do(_inverse_link(operator.raw_operator), _trees(write, operator), to=operator.outputs[0].full_name)


def _inverse_link(model: Any) -> str:
    link = type(model._loss.link).__name__  # noqa: SLF001 - scikit-learn shows its losses nowhere else
    if link not in _LINKS:
        raise UnsupportedOperatorError(f"{type(model).__name__}: the link {link} is unknown", operator=link)
    return _LINKS[link]


def _trees(write: Writer, operator: Any) -> str:
    """Raw scores, the sum of all trees, shape (N, trees an iteration)."""
    return write.trees(write.float(operator.inputs[0]), tree_attributes(operator.raw_operator))


def tree_attributes(model: Any) -> Mapping[str, Any]:
    """The attributes of one TreeEnsembleRegressor for all trees of a model.

    Raises:
        UnsupportedOperatorError: a split by categories.
    """
    fields: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values", "nodes_truenodeids",
            "nodes_falsenodeids", "nodes_missing_value_tracks_true", "target_treeids", "target_nodeids", "target_ids",
            "target_weights",
        )
    }  # fmt: skip
    for number, (target, nodes) in enumerate(_each_tree(model)):
        if nodes["is_categorical"].any():
            kind = type(model).__name__
            raise UnsupportedOperatorError(
                f"{kind}: splits by categories have no ONNX form here: encode them (OneHotEncoder) and fit without "
                "categorical_features",
                operator=kind,
            )
        _append(fields, number, target, nodes)
    base = np.asarray(model._baseline_prediction, np.float32).ravel()  # noqa: SLF001
    return {**fields, "n_targets": base.size, "base_values": base.tolist()}


def _each_tree(model: Any) -> Iterator[tuple[int, Any]]:
    """The score that a tree adds to, and its nodes."""
    for iteration in model._predictors:  # noqa: SLF001
        yield from ((target, tree.nodes) for target, tree in enumerate(iteration))


def _append(fields: dict[str, list[Any]], number: int, target: int, nodes: Any) -> None:
    leaf = nodes["is_leaf"].astype(bool)
    count, leaves = len(nodes), np.flatnonzero(leaf)
    fields["nodes_treeids"] += [number] * count
    fields["nodes_nodeids"] += range(count)
    fields["nodes_modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
    fields["nodes_featureids"] += np.where(leaf, 0, nodes["feature_idx"]).astype(int).tolist()
    fields["nodes_values"] += np.where(leaf, 0, floor_float32(nodes["num_threshold"])).tolist()
    fields["nodes_truenodeids"] += np.where(leaf, 0, nodes["left"]).astype(int).tolist()
    fields["nodes_falsenodeids"] += np.where(leaf, 0, nodes["right"]).astype(int).tolist()
    fields["nodes_missing_value_tracks_true"] += np.where(leaf, 0, nodes["missing_go_to_left"]).astype(int).tolist()
    fields["target_treeids"] += [number] * leaves.size
    fields["target_nodeids"] += leaves.tolist()
    fields["target_ids"] += [target] * leaves.size
    fields["target_weights"] += nodes["value"][leaves].astype(np.float32).tolist()


def floor_float32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 that is at most each value; infinities stay."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
        lower = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded.astype(np.float64) > values, lower, rounded)
