"""Class labels: whole numbers stay, everything else (names mostly) becomes the class index, as tensors hold numbers."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lepton_edge.bundle.binding import Array

_HOLDERS = ("classes_", "classes")
"""Attributes in which estimators keep labels."""
_DEPTH = 12
"""Estimators in estimators: pipelines in searches in ensembles reach 5."""


def classes_of(estimator: Any) -> Array | None:
    """The classes in the order of the scores' columns, shape (classes,); None where it has no such list."""
    found = getattr(estimator, "classes_", None)
    if found is None or isinstance(found, list | tuple):
        return None
    labels = np.asarray(found)
    return labels if labels.ndim == 1 else None


def needs_index(labels: Array | None) -> bool:
    """Whether labels are no whole numbers."""
    return labels is not None and labels.dtype.kind not in "iu"


def to_index(labels: Array, values: Array) -> Array:
    """The place of each value among the labels, int64 of the values' shape."""
    places = {label: place for place, label in enumerate(labels.tolist())}
    flat = [places[value] for value in np.asarray(values).reshape(-1).tolist()]
    return np.array(flat, np.int64).reshape(np.shape(values))


def with_indices(estimator: Any, labels: Array) -> Any:
    """A copy of an estimator whose labels, in all of its parts, are class indices."""
    copied = copy.deepcopy(estimator)
    known = set(labels.tolist())
    for part in parts_of(copied):
        for name in _HOLDERS:
            found = vars(part).get(name)
            if _are_labels(found) and set(found.tolist()) <= known:
                setattr(part, name, to_index(labels, found))
    return copied


def _are_labels(found: object) -> bool:
    return isinstance(found, np.ndarray) and found.ndim == 1 and needs_index(found)


def parts_of(estimator: object) -> Iterator[Any]:
    """An estimator and every scikit-learn object that it holds, at whatever depth, each once."""
    seen: set[int] = set()
    stack: list[tuple[object, int]] = [(estimator, 0)]
    while stack:
        part, depth = stack.pop()
        if id(part) in seen or depth > _DEPTH:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            stack += [(inner, depth) for inner in part.values()]
        elif isinstance(part, list | tuple) or (isinstance(part, np.ndarray) and part.dtype == object):
            stack += [(inner, depth) for inner in np.ravel(part).tolist()] if isinstance(part, np.ndarray) else [
                (inner, depth) for inner in part
            ]  # fmt: skip
        elif type(part).__module__.partition(".")[0] == "sklearn" and hasattr(part, "__dict__"):
            yield part
            stack += [(inner, depth + 1) for inner in vars(part).values()]
