"""What an estimator answers by each output of its graph, and where two answers are as right: at ties."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.importers.quiet import quiet
from converters.importers.sklearn.classes import classes_of, needs_index, to_index
from converters.ort import first_line
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import ModelError

INPUT = "x"
LABEL, PROBABILITIES, SCORES, VALUES = "label", "probabilities", "scores", "variable"
CLOSE = 1e-4
"""Of an output's largest value: nearer than that two scores are a tie, and two answers the same."""
_NUDGE = 3e-7
"""Of a feature's size: a few steps of float32, in which the graph scales what scikit-learn scales in float64."""
_NUDGES = 48
_REDRAWN = 0.3
"""Of the features, at each nudge: a row may lie at the thresholds of several trees."""


F64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]
"""Which rows, shape (N,)."""


class Answer(NamedTuple):
    """place: of the output as skl2onnx gives it. name: ours. method: of the estimator, on (N, features)."""

    place: int
    name: str
    method: str


def answers_of(estimator: Any, exported: Sequence[str]) -> list[Answer]:
    """Which method answers for which output, what metrics look at first: scores, then labels.

    Args:
        estimator: fitted.
        exported: names of the outputs, as skl2onnx gives them.
    """
    found = [(place, name, _method(estimator, name)) for place, name in enumerate(exported)]
    answers = [Answer(place, _name(name, method), method) for place, name, method in found if method]
    return sorted(answers, key=lambda answer: answer.name == LABEL)


def _method(estimator: Any, exported: str) -> str:
    wanted = {
        LABEL: ("predict",),
        PROBABILITIES: ("predict_proba", "decision_function"),
        SCORES: ("decision_function", "transform"),
    }.get(exported, ("predict", "transform"))
    return next((name for name in wanted if hasattr(estimator, name)), "")


def _name(exported: str, method: str) -> str:
    if exported == LABEL:
        return LABEL
    return {"predict_proba": PROBABILITIES, "decision_function": SCORES}.get(
        method, SCORES if exported == SCORES else VALUES
    )


def answer(estimator: Any, method: str, name: str, x: Array) -> Array:
    """What the estimator answers to float32 features: labels (N,), else (N, columns); scores of two classes are two.

    Raises whatever the estimator does.
    """
    with quiet():
        try:
            found = getattr(estimator, method)(x.astype(np.float64))
        except ValueError:  # some kernels take the type alone that they were fitted on
            found = getattr(estimator, method)(x)
    found = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
    labels = classes_of(estimator)
    if name == LABEL:
        return to_index(labels, found) if labels is not None and needs_index(labels) else found.astype(np.int64)
    if method == "decision_function" and found.ndim == 1 and labels is not None:
        found = np.stack([-found, found], axis=1)
    return found.reshape(len(found), -1).astype(np.float32)


@dataclass(frozen=True)
class Settled:
    """An estimator as the reference of its graph: its answers, and at a tie the one of several that the graph gives.

    Where a feature lies within rounding of a tree's threshold, or two classes have the same score, float32 and float64
    decide differently and neither is wrong. Such an answer still has to be one that the estimator itself gives, within
    rounding of the same features.

    Attributes:
        estimator: fitted.
        answers: by output, in the signature's order.
        where: how messages name it.
        graph: runs the graph, on the same inputs.
    """

    estimator: Any
    answers: Sequence[Answer]
    where: str
    graph: Callable[[Arrays], Arrays]

    def __call__(self, inputs: Arrays) -> Arrays:
        """The outputs by name. A `Reference`."""
        x, rng = inputs[INPUT], np.random.default_rng(0)
        want, got = self.plain(x), self.graph(inputs)
        signs = np.zeros(x.shape)
        for _ in range(_NUDGES):
            apart = _rows_apart(want, got)
            if not apart.any():
                break
            tried = np.where(rng.random(x.shape) < _REDRAWN, rng.choice([-1.0, 0.0, 1.0], x.shape), signs)
            nearer = _take_nearer(want, self.plain(_nudged(x, tried)), got, apart)
            signs[nearer] = tried[nearer]
        _settle_labels(want, got, classes_of(self.estimator))
        return want

    def plain(self, x: Array) -> Arrays:
        """What the estimator answers to these very features."""
        try:
            return {name: answer(self.estimator, method, name, x) for _, name, method in self.answers}
        except Exception as cause:  # the estimator, and functions in it, raise whatever they like
            raise ModelError(
                f"{self.where}: the estimator does not answer for float32 features of shape {list(x.shape)}: "
                f"{type(cause).__name__}: {first_line(cause)}"
            ) from cause


def _nudged(x: Array, signs: F64) -> Array:
    return np.asarray((x.astype(np.float64) * (1 + _NUDGE * signs)).astype(np.float32))


def _rows_apart(want: Arrays, got: Arrays) -> Rows:
    return np.asarray(_total(want, got) > CLOSE)


def _total(one: Arrays, other: Arrays) -> F64:
    """The distances of all outputs, shape (N,); labels count where there is nothing that they follow from."""
    judged = [name for name in one if name != LABEL] or [LABEL]
    pairs = [(one[name], other[name]) for name in judged if other[name].shape == one[name].shape]
    return np.asarray(sum((_distance(*pair) for pair in pairs), start=np.zeros(len(next(iter(one.values()))))))


def _distance(one: Array, other: Array) -> F64:
    """Of each row, the largest difference over the largest value of all; shape (N,)."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    scale = max(float(np.max(np.abs(a), where=np.isfinite(a), initial=0.0)), 1e-6)
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf))
    return np.asarray(apart.reshape(len(a), -1).max(axis=1) / scale)


def _take_nearer(want: Arrays, other: Arrays, got: Arrays, apart: Rows) -> Rows:
    """Replace rows that are apart by another answer's where that is nearer to the graph's, in place; which they are."""
    nearer = apart & (_total(other, got) < _total(want, got))
    for name, array in want.items():
        array[nearer] = other[name][nearer]
    return nearer


def _settle_labels(want: Arrays, got: Arrays, labels: Array | None) -> None:
    """Take the graph's label where its score is within `CLOSE` of the best; in place."""
    scores = want.get(PROBABILITIES, want.get(SCORES))
    if LABEL not in want or scores is None or labels is None or scores.shape[1:] != labels.shape:
        return
    order = {label: place for place, label in enumerate(range(labels.size) if needs_index(labels) else labels.tolist())}
    limit = CLOSE * max(float(np.abs(scores).max()), 1e-6)
    for row, label in enumerate(got[LABEL].reshape(-1).tolist()):
        if label in order and scores[row].max() - scores[row, order[label]] <= limit:
            want[LABEL].reshape(-1)[row] = label
