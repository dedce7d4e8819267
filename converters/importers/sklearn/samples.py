"""Features to hold a graph against its estimator, of the size that it was fitted on as far as it tells."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from converters.importers.sklearn.answers import INPUT
from lepton_edge.bundle.binding import Array, Arrays

_BATCHES = (16, 3, 1)
_SEED = 20
_SPREAD = 0.25
"""Of a feature's spread: how far a drawn value lies from one that the estimator knows."""
_STEPS = np.linspace(-2, 2, 9)


class Column(NamedTuple):
    """What is known of one feature. values: typical ones, shape (n,). exact: whether no others make sense."""

    values: Array
    exact: bool = False


Columns = list[Column | None]


def samples(estimator: Any, features: int) -> Iterator[Arrays]:
    """Random features in batches of several sizes."""
    rng = np.random.default_rng(_SEED)
    known = columns_of(estimator, features)
    for count in _BATCHES:
        drawn = [_drawn(column, count, rng) for column in known]
        x = np.stack(drawn, axis=1).astype(np.float32)
        yield {INPUT: x if _takes(estimator, x) else np.abs(x)}


def _takes(estimator: Any, x: Array) -> bool:
    """Whether the estimator accepts such features: counts and Box-Cox want positive ones."""
    method = getattr(estimator, "predict", None) or estimator.transform
    try:
        method(x)
    except ValueError:
        return False
    return True


def _drawn(column: Column | None, count: int, rng: np.random.Generator) -> Array:
    if column is None:
        return np.asarray(rng.standard_normal(count))
    chosen = np.asarray(rng.choice(column.values, count))
    if column.exact:
        return chosen
    spread = float(np.std(column.values.astype(np.float64))) or abs(float(column.values[0])) or 1.0
    return np.asarray(chosen + _SPREAD * spread * rng.standard_normal(count))


def columns_of(estimator: Any, features: int) -> Columns:
    """What the first step that tells says of each feature."""
    for part in _first_steps(estimator):
        found = _columns_by_table(part, features) if not hasattr(part, "transformers_") else _mixed(part, features)
        if found is not None:
            return found
    return [None] * features


def _first_steps(estimator: Any) -> Iterator[Any]:
    """The estimator, and those in it that see the same features; the outer first."""
    yield estimator
    inner: Sequence[Any] = ()
    if hasattr(estimator, "steps"):
        inner = [step for _, step in estimator.steps if hasattr(step, "fit")][:1]
    elif hasattr(estimator, "transformer_list"):
        inner = [step for _, step in estimator.transformer_list if hasattr(step, "fit")]
    else:
        inner = [getattr(estimator, name) for name in ("best_estimator_", "estimator_") if hasattr(estimator, name)]
        members = getattr(estimator, "estimators_", ())
        inner = [*inner, *[one for one in np.ravel(np.asarray(members, object))[:8] if hasattr(one, "fit")]]
    for part in inner:
        yield from _first_steps(part)


def _mixed(part: Any, features: int) -> Columns:
    """Of a ColumnTransformer, from what each of its parts says."""
    columns: Columns = [None] * features
    for name, places in part._transformer_to_input_indices.items():  # noqa: SLF001 - names resolved to places
        inner = part.named_transformers_.get(name)
        if hasattr(inner, "fit"):
            for place, column in zip(places, columns_of(inner, len(places)), strict=True):
                columns[place] = column or columns[place]
    return columns


def _columns_by_table(part: Any, features: int) -> Columns | None:
    for name, read in _KNOWN.items():
        if getattr(part, name, None) is not None:
            found = read(part)
            if found is not None and len(found) == features:
                return found
    return None


def _rows(name: str) -> Callable[[Any], Columns | None]:
    """Of an attribute of shape (n, features) whose rows are like samples."""

    def read(part: Any) -> Columns | None:
        rows = getattr(part, name)
        rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)
        return [Column(values) for values in rows.T] if rows.ndim == 2 and rows.dtype.kind == "f" else None

    return read


def _around(middle: str, *sizes: str) -> Callable[[Any], Columns | None]:
    """Of a mean for each feature, and a size where there is one."""

    def read(part: Any) -> Columns | None:
        centre = np.atleast_1d(np.asarray(getattr(part, middle), np.float64))
        given = next((getattr(part, name) for name in sizes if getattr(part, name, None) is not None), None)
        size = np.ones_like(centre) if given is None else np.broadcast_to(given, centre.shape)
        return [Column(mean + _STEPS * scale) for mean, scale in zip(centre, size, strict=True)]

    return read


def _between(part: Any) -> Columns:
    return [Column(np.linspace(low, high, 9)) for low, high in zip(part.data_min_, part.data_max_, strict=True)]


def _categories(part: Any) -> Columns | None:
    numbers = all(np.asarray(each).dtype.kind in "iuf" for each in part.categories_)
    return [Column(np.asarray(each, np.float64), exact=True) for each in part.categories_] if numbers else None


def _thresholds(part: Any) -> Columns:
    tree = part.tree_
    return _by_feature(tree.feature, tree.threshold, tree.n_features)


def _binned(part: Any) -> Columns:
    nodes = np.concatenate([tree.nodes for iteration in part._predictors[:20] for tree in iteration])  # noqa: SLF001
    inner = nodes[nodes["is_leaf"] == 0]
    return _by_feature(inner["feature_idx"], inner["num_threshold"], part.n_features_in_)


def _by_feature(features: Array, thresholds: Array, count: int) -> Columns:
    found = [thresholds[(features == place) & np.isfinite(thresholds)] for place in range(count)]
    return [Column(values) if values.size else None for values in found]


def _pixels(part: Any) -> Columns:
    values = np.atleast_1d(np.asarray(part.max_abs_, np.float64))
    return [Column(np.linspace(-size, size, 9)) for size in values]


_KNOWN: Mapping[str, Callable[[Any], Columns | None]] = {
    "categories_": _categories,
    "data_min_": _between,
    "max_abs_": _pixels,
    "tree_": _thresholds,
    "_predictors": _binned,
    "support_vectors_": _rows("support_vectors_"),
    "_fit_X": _rows("_fit_X"),
    "X_train_": _rows("X_train_"),
    "cluster_centers_": _rows("cluster_centers_"),
    "theta_": _rows("theta_"),
    "means_": _rows("means_"),
    "quantiles_": _rows("quantiles_"),
    "center_": _around("center_", "scale_"),
    "mean_": _around("mean_", "scale_", "var_"),
    "statistics_": _around("statistics_"),
}
"""From an attribute of a fitted estimator to what it says of the features."""
