"""A copy of an estimator in which what changes no prediction, and stands in the way, is set right."""

import copy
from typing import Any

from converters.importers.sklearn.classes import parts_of


def adapted(estimator: Any) -> Any:
    """The estimator itself, or a copy that takes arrays instead of frames and that skl2onnx can convert.

    Columns that go by the names of a frame go by their places, as the graph's input is one tensor, a vote's
    `flatten_transform`, which is of its `transform` alone, is off, and bins are dense instead of sparse.
    """
    if not any(_goes_by_names(part) or _flattens(part) or _is_sparse(part) for part in parts_of(estimator)):
        return estimator
    copied = copy.deepcopy(estimator)
    for part in parts_of(copied):
        if _flattens(part):
            part.flatten_transform = False
        if _is_sparse(part):
            part.encode = "onehot-dense"
        if _goes_by_names(part):
            _go_by_places(part)
    for part in parts_of(copied):
        vars(part).pop("feature_names_in_", None)
    return copied


def _flattens(part: Any) -> bool:
    return bool(getattr(part, "flatten_transform", False))


def _is_sparse(part: Any) -> bool:
    return getattr(part, "encode", None) == "onehot" and hasattr(part, "bin_edges_")


def _goes_by_names(part: Any) -> bool:
    return hasattr(part, "_transformer_to_input_indices") and hasattr(part, "feature_names_in_")


def _go_by_places(part: Any) -> None:
    places = part._transformer_to_input_indices  # noqa: SLF001 - scikit-learn shows them nowhere else
    part.transformers_ = [(name, step, places.get(name, columns)) for name, step, columns in part.transformers_]
    part.transformers = [(name, step, places.get(name, columns)) for name, step, columns in part.transformers]
    part._columns = [columns for _, _, columns in part.transformers]  # noqa: SLF001
