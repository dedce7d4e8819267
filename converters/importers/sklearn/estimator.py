"""An estimator in memory to a checked `Source`."""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import hashlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from converters.graph.signature import Shapes
from converters.importers.check import check_import
from converters.importers.onnx import from_proto
from converters.importers.quiet import quiet
from converters.importers.sklearn.adapt import adapted
from converters.importers.sklearn.answers import INPUT, LABEL, SCORES, Answer, Settled, answers_of
from converters.importers.sklearn.classes import classes_of, needs_index, parts_of, with_indices
from converters.importers.sklearn.export import arrange, as_two_columns, declare, export, reshape, undeclared
from converters.importers.sklearn.samples import samples
from converters.ort import ERRORS, PROVIDERS, first_line, options
from converters.source import Reference, Source
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import ModelError, NotYetSupportedError

_PACKAGES = {"sklearn": "scikit-learn", "skl2onnx": "skl2onnx", "skops": "skops", "joblib": "joblib"}
_MISSING = 0.3
"""Of the features that are tried as missing."""
_NAMED = 12
"""Classes or columns that a note lists."""


def is_estimator(source: object) -> bool:
    """Whether an object is a scikit-learn estimator, found without importing scikit-learn."""
    known = any(base.__module__.partition(".")[0] == "sklearn" for base in type(source).__mro__)
    return known and hasattr(source, "get_params")


def import_estimator(
    given: object,
    *,
    shapes: Shapes,
    where: str = "",
    size_bytes: int | None = None,
    sha256: str = "",
    notes: Sequence[str] = (),
) -> Source:
    """Convert a fitted estimator, and hold the graph against it.

    The signature is one input `x` of shape (batch, features), float32; outputs are `probabilities` (or `scores`, where
    the estimator has only a decision function) and `label` of a classifier, `variable` of what gives numbers. A label
    that is no whole number is given as the class index.

    Args:
        given: the estimator; it stays as it is.
        shapes: sizes for inputs; an estimator knows its own.
        where: how messages name it; its class by default.
        size_bytes, sha256: of the file that it came from; of the graph by default.
        notes: what the user should know of how it was loaded.

    Raises:
        ModelError: not fitted, or the graph gives other outputs.
        NotYetSupportedError: several targets of classes, or features that are text.
        UnsupportedOperatorError: what skl2onnx cannot convert, naming the estimator.
    """
    where = where or f"the {type(given).__name__}"
    need(where, "sklearn")
    need(where, "skl2onnx")
    features = _features(given, where)
    _check_kinds(given, where)
    estimator = adapted(given)
    labels = classes_of(estimator)
    plain = with_indices(estimator, labels) if labels is not None and needs_index(labels) else estimator
    model = export(plain, features, where=where)
    answers = answers_of(estimator, [value.name for value in model.graph.output])
    arrange(model, answers)
    _shape(model, estimator, answers, list(samples(estimator, features)), where)
    data = model.SerializeToString(deterministic=True)
    source = from_proto(
        model, where=where, size_bytes=len(data) if size_bytes is None else size_bytes,
        sha256=sha256 or hashlib.sha256(data).hexdigest(), shapes=shapes, kind="sklearn",
    )  # fmt: skip
    settled = Settled(estimator, answers, where, _runner(data, where))
    source = replace(source, reference=settled, notes=[*notes, *_notes(given, labels, where)])
    check_import(source, samples(estimator, features))
    return replace(source, notes=[*source.notes, *_note_on_missing(source, estimator, features)])


def need(what: str, package: str) -> None:
    """Raises ModelError where a package of the extra `sklearn` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ModelError(
            f"{what}: this needs {_PACKAGES[package]}, which is not installed: pip install 'lepton-edge[sklearn]'"
        )


def _features(estimator: Any, where: str) -> int:
    """How many features the estimator takes."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        with quiet():
            check_is_fitted(estimator)
    except (NotFittedError, TypeError) as cause:
        raise ModelError(f"{where}: it is not fitted: call fit(x, y) before it is converted") from cause
    count = next(iter(_counts(estimator)), None)
    if count is None:
        raise ModelError(
            f"{where}: it does not say how many features it takes: fit it on an array of shape (n, features)"
        )
    return int(count)


def _counts(estimator: Any) -> list[int]:
    parts = [estimator, *parts_of(estimator)]
    return [count for count in (getattr(part, "n_features_in_", None) for part in parts) if count is not None]


def _check_kinds(estimator: Any, where: str) -> None:
    if isinstance(getattr(estimator, "classes_", None), list | tuple):
        raise _several_targets(estimator, where)
    for part in parts_of(estimator):
        for categories in getattr(part, "categories_", ()):
            if np.asarray(categories).dtype.kind not in "iufb":
                raise NotYetSupportedError(
                    f"not yet: {where}: a {type(part).__name__} was fitted on text ({str(categories[0])[:40]!r}), and "
                    "the input is a tensor of numbers: encode such columns before the pipeline, as whole numbers"
                )


def _shape(
    model: onnx.ModelProto, estimator: Any, answers: Sequence[Answer], batches: Sequence[Arrays], where: str
) -> None:
    """Give the outputs the shapes of the estimator's own answers, and declare them; in place.

    Raises:
        NotYetSupportedError: labels of several targets.
    """
    plain = Settled(estimator, answers, where, lambda inputs: inputs)
    wanted = {name: array.shape[1:] for name, array in plain.plain(batches[0][INPUT]).items()}
    if len(wanted.get(LABEL, ())) > 0:
        raise _several_targets(estimator, where)
    seen = _seen(model, batches, where)
    if wanted.get(SCORES) == (2,) and {shape[1:] for shape in seen[SCORES]} == {(1,)}:
        as_two_columns(model)
    for name, shapes in seen.items():
        if any(
            shape[1:] != wanted[name] and math.prod(shape) == len(batch[INPUT]) * math.prod(wanted[name])
            for shape, batch in zip(shapes, batches, strict=True)
        ):
            reshape(model, name, (-1, *wanted[name]))
    declare(model, _seen(model, batches, where))


def _several_targets(estimator: Any, where: str) -> NotYetSupportedError:
    return NotYetSupportedError(
        f"not yet: {where}: a {type(estimator).__name__} of several targets at once: fit one classifier for each"
    )


def _seen(model: onnx.ModelProto, batches: Sequence[Arrays], where: str) -> dict[str, list[tuple[int, ...]]]:
    run = _runner(undeclared(model), where)
    results = [run(batch) for batch in batches]
    return {name: [result[name].shape for result in results] for name in results[0]}


def _runner(data: bytes, where: str) -> Callable[[Arrays], Arrays]:
    try:
        session = onnxruntime.InferenceSession(data, options(threads=1), providers=PROVIDERS)
    except ERRORS as cause:
        raise ModelError(f"{where}: ONNX Runtime cannot load what skl2onnx wrote: {first_line(cause)}") from cause
    names = [value.name for value in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        try:
            found: list[Array] = session.run(names, {INPUT: inputs[INPUT]})
        except ERRORS as cause:
            raise ModelError(f"{where}: ONNX Runtime cannot run what skl2onnx wrote: {first_line(cause)}") from cause
        return dict(zip(names, found, strict=True))

    return run


def _notes(estimator: Any, labels: Array | None, where: str) -> list[str]:
    found = []
    if labels is not None and not np.array_equal(labels, np.arange(labels.size)):
        names = _listed([str(label) for label in labels.tolist()])
        given = "label gives the class index" if needs_index(labels) else "label gives the class itself"
        found.append(
            f"{where}: the classes by index are {names}: {given}; data are labelled with the index, or name "
            "the classes with --labels"
        )
    columns = getattr(estimator, "feature_names_in_", None)
    if columns is not None:
        found.append(
            f"{where}: the columns of {INPUT!r} are, in this order, {_listed([str(name) for name in columns])}"
        )
    return found


def _note_on_missing(source: Source, estimator: Any, features: int) -> list[str]:
    """What to know of missing values, where the estimator takes them: skl2onnx's trees send them all one way."""
    first = next(samples(estimator, features))[INPUT].copy()
    first[np.random.default_rng(0).random(first.shape) < _MISSING] = np.nan
    batch = {INPUT: first}
    if source.reference is None or not _takes_missing(source.reference, batch):
        return []
    try:
        check_import(source, [batch])
    except ModelError:
        what = "for missing values (NaN) the graph answers otherwise than the estimator"
        return [f"{source.where}: {what}: fill them in first, or fit it behind a SimpleImputer"]
    return []


def _takes_missing(reference: Reference, batch: Arrays) -> bool:
    try:
        return bool(reference(batch))
    except ModelError:
        return False


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
