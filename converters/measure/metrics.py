"""What can be measured of a model's outputs: a table, so that more can join.

A metric gives each sample a row of numbers, and makes one figure of many rows, each counting as often as it is told.
That is all that the intervals need: by formula where a row is right or wrong, by the bootstrap elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.data.call import load_function
from converters.data.targets import Target, TargetKind
from converters.measure import ranking
from converters.measure.intervals import F64, RESAMPLES, Counts
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError, NotYetSupportedError, UsageError
from lepton_edge.preprocess.postprocess import ctc_text
from lepton_edge.preprocess.spec import Ctc, Step

Scores = npt.NDArray[np.generic]
Unit = Literal["fraction", "own"]
COSTLY_RESAMPLES = 200
_CHEAP_VALUES = 200_000
"""Samples x classes up to which 1000 resamples of a ranking take about a second."""


class Answered(NamedTuple):
    """One sample, answered.

    Attributes:
        outputs: by name in the signature's order; finite numbers.
        target: what the data say; None where they say nothing.
        reference: the float model's outputs.
        where: how messages name the sample.
    """

    outputs: Arrays
    target: Target
    reference: Arrays
    where: str


class Collected(NamedTuple):
    """A sample kept as it is, for a user's function."""

    outputs: Arrays
    target: Target


Row = Array | Collected
Rows = Sequence[Row]


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Attributes:
        name: as the user writes it.
        needs: which kinds of targets it can use, the one that it is made for first; () where it needs none.
        row: of one sample.
        values: (rows, counts of shape (B, n)) -> figures of shape (B,).
        unit: "fraction" of 1, whose drop is told in points; or its "own".
        higher_is_better: else a drop is a rise.
        rate: whether each row is one number, 1 for right and 0 for wrong.
        compares: with the float model, so that the float model itself is perfect.
        every_output: whether it looks at all outputs, or at the first alone.
        chance: from the number of classes to what guessing reaches.
        resamples: from (samples, numbers a row) to how many the bootstrap draws.
    """

    name: str
    needs: tuple[TargetKind, ...]
    row: Callable[[Answered], Row]
    values: Callable[[Rows, Counts], F64]
    unit: Unit = "fraction"
    higher_is_better: bool = True
    rate: bool = False
    compares: bool = False
    every_output: bool = False
    chance: Callable[[int], float] | None = None
    resamples: Callable[[int, int], int] = lambda _samples, _width: RESAMPLES

    @property
    def needs_labels(self) -> bool:
        """Whether it judges classes, rather than take their indices as numbers where it must."""
        return self.needs[:1] == ("classes",)


def _stacked(rows: Rows) -> F64:
    return np.stack([np.asarray(row, np.float64) for row in rows if not isinstance(row, Collected)])


def _mark(right: bool) -> Array:
    return np.array([right], np.float64)


def _first(outputs: Arrays) -> Array:
    return next(iter(outputs.values()))


def class_scores(output: Scores) -> Scores:
    """A model's first output for one sample as scores of shape (classes,).

    Raises:
        NotYetSupportedError: it is no list of class scores.
    """
    scores = output.reshape(-1)
    if not is_class_scores(output):
        raise NotYetSupportedError(
            f"not yet: the model's first output has shape {list(output.shape)} for one sample, which is no list of two "
            "or more class scores: use --metric cosine, mse, mae, auc (one score) or a function of your own, or "
            "convert with --no-evaluate"
        )
    return scores


def is_class_scores(output: Scores) -> bool:
    """Whether an output for one sample is a list of two or more numbers."""
    return output.ndim > 0 and max(output.shape) == output.size >= 2


def check_label(label: int, classes: int, *, where: str) -> None:
    """Raises DataError where a label names no class of the model."""
    if not 0 <= label < classes:
        raise DataError(f"{where}: class {label}, but the model has {classes} classes (0 to {classes - 1})")


def _label(sample: Answered, classes: int) -> int:
    if not isinstance(sample.target, int):
        raise DataError(f"{sample.where}: its label is no class index")
    check_label(sample.target, classes, where=sample.where)
    return sample.target


def _top1(sample: Answered) -> Row:
    scores = class_scores(_first(sample.outputs))
    return _mark(int(np.argmax(scores)) == _label(sample, scores.size))


def _top5(sample: Answered) -> Row:
    scores = class_scores(_first(sample.outputs))
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:5]
    return _mark(_label(sample, scores.size) in best)


def _agreement(sample: Answered) -> Row:
    scores, wanted = class_scores(_first(sample.outputs)), class_scores(_first(sample.reference))
    return _mark(int(np.argmax(scores)) == int(np.argmax(wanted)))


def _means(rows: Rows, counts: Counts) -> F64:
    return ranking.mean(_stacked(rows), counts)


def _ratios(rows: Rows, counts: Counts) -> F64:
    return ranking.ratio(_stacked(rows), counts)


def _label_and_choice(sample: Answered) -> Row:
    scores = class_scores(_first(sample.outputs))
    return np.array([_label(sample, scores.size), np.argmax(scores)], np.float64)


def _f1(rows: Rows, counts: Counts) -> F64:
    pairs = _stacked(rows).astype(np.int64)
    return ranking.macro_f1(pairs[:, 0], pairs[:, 1], counts)


def _scores_and_truth(sample: Answered) -> Row:
    """Scores, then 1 for each class that is true: shape (2 x classes,). A single score is that of class 1."""
    scores = _first(sample.outputs).reshape(-1).astype(np.float64)
    if isinstance(sample.target, int):
        check_label(sample.target, max(2, scores.size), where=sample.where)
        truth = np.array([sample.target == 1]) if scores.size == 1 else np.arange(scores.size) == sample.target
    else:
        values = _first(sample.target).reshape(-1) if isinstance(sample.target, dict) else np.empty(0)
        if values.size != scores.size or not np.isin(values, (0, 1)).all():
            raise DataError(f"{sample.where}: y must be a class index, or 0 or 1 for each of {scores.size} classes")
        truth = values == 1
    return np.concatenate([scores, truth])


def _ranked(
    statistic: Callable[[F64, npt.NDArray[np.bool_], Counts], F64], rows: Rows, counts: Counts, *, binary: bool
) -> F64:
    """The statistic's mean over classes; with `binary` two classes are one question, asked by their difference."""
    scores, truth = np.split(_stacked(rows), 2, axis=1)
    if binary and scores.shape[1] == 2 and (truth.sum(axis=1) == 1).all():
        scores, truth = scores[:, 1:] - scores[:, :1], truth[:, 1:]
    asked = [place for place in range(scores.shape[1]) if truth[:, place].any()]
    if not asked:
        return np.full(len(counts), np.nan)
    return ranking.over_classes([statistic(scores[:, place], truth[:, place] == 1, counts) for place in asked])


def _auc(rows: Rows, counts: Counts) -> F64:
    return _ranked(ranking.auc, rows, counts, binary=True)


def _map(rows: Rows, counts: Counts) -> F64:
    return _ranked(ranking.average_precision, rows, counts, binary=False)


def _ranking_resamples(samples: int, width: int) -> int:
    return RESAMPLES if samples * width <= _CHEAP_VALUES else COSTLY_RESAMPLES


def _errors(power: int) -> Callable[[Answered], Row]:
    """Sum of |output - target|^power, and how many numbers that were."""

    def row(sample: Answered) -> Row:
        total, count = 0.0, 0
        for name, wanted in _values(sample).items():
            got = sample.outputs.get(name)
            if got is None or np.squeeze(got).shape != np.squeeze(wanted).shape:
                shape = "absent" if got is None else list(got.shape)
                raise DataError(f"{sample.where}: y for {name} has shape {list(wanted.shape)}, the output is {shape}")
            distance = np.abs(got.astype(np.float64).ravel() - wanted.astype(np.float64).ravel())
            total, count = total + float((distance**power).sum()), count + distance.size
        return np.array([total, count])

    return row


def _values(sample: Answered) -> Arrays:
    if isinstance(sample.target, dict):
        return sample.target
    if isinstance(sample.target, int):
        return {next(iter(sample.outputs)): np.array([sample.target], np.float64)}
    raise DataError(f"{sample.where}: its label is no number")


def _cosine(sample: Answered) -> Row:
    """Mean over the outputs of a.b / (|a| |b|) with the float model's; 1 where both are zero, 0 where one is."""
    each = []
    for name, wanted in sample.reference.items():
        one, other = (array.astype(np.float64).ravel() for array in (sample.outputs[name], wanted))
        sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
        each.append(float(one @ other) / (sizes[0] * sizes[1]) if all(sizes) else float(sizes[0] == sizes[1]))
    return np.array([np.mean(each)])


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", ("classes",), _top1, _means, rate=True, chance=lambda classes: 1 / classes),
        Metric("top5", ("classes",), _top5, _means, rate=True, chance=lambda classes: min(5, classes) / classes),
        Metric("agreement", (), _agreement, _means, rate=True, compares=True),
        Metric("f1", ("classes",), _label_and_choice, _f1),
        Metric(
            "auc", ("classes", "values"), _scores_and_truth, _auc, chance=lambda _: 0.5, resamples=_ranking_resamples
        ),
        Metric("map", ("classes", "values"), _scores_and_truth, _map, resamples=_ranking_resamples),
        Metric("mse", ("values", "classes"), _errors(2), _ratios, "own", higher_is_better=False, every_output=True),
        Metric("mae", ("values", "classes"), _errors(1), _ratios, "own", higher_is_better=False, every_output=True),
        Metric("cosine", (), _cosine, _means, compares=True, every_output=True),
    )
}
"""All but `cer`, which needs to know the characters, and a user's function."""
_DEFAULT: Mapping[TargetKind, str] = {"classes": "top1", "none": "agreement", "texts": "cer"}
_KINDS: Mapping[TargetKind, str] = {
    "none": "nothing",
    "classes": "class indices",
    "values": "numbers",
    "texts": "texts",
}


def character_errors(labels: Sequence[str], step: Ctc) -> Metric:
    """The character error rate of greedy CTC decoding.

    Edits needed to turn what was read into what is written, over the characters written; can be above 1.

    Args:
        labels: characters by class index.
        step: how classes become characters.
    """

    def row(sample: Answered) -> Row:
        if not isinstance(sample.target, str):
            raise DataError(f"{sample.where}: its label is no text")
        try:
            read = ctc_text(_first(sample.outputs), labels, step)
        except DataError as error:
            raise DataError(f"metric cer: {sample.where}: {error}") from error
        return np.array([ranking.edit_distance(read, sample.target), len(sample.target)], np.float64)

    return Metric("cer", ("texts",), row, _ratios, higher_is_better=False)


def user_metric(name: str) -> Metric:
    """A metric from module:function(outputs, labels) -> float.

    It gets the outputs of all samples, stacked (an array, or by name where the model has several; a list where shapes
    differ), and as many labels. Set `function.higher_is_better = False` where less is better.

    Raises:
        DataError: it cannot be imported.
    """
    function = load_function(name)

    def values(rows: Rows, counts: Counts) -> F64:
        kept = [row for row in rows if isinstance(row, Collected)]
        return np.array([_called(function, name, _repeated(kept, one)) for one in counts])

    return Metric(
        name,
        (),
        lambda sample: Collected(sample.outputs, sample.target),
        values,
        unit="own",
        higher_is_better=bool(getattr(function, "higher_is_better", True)),
        every_output=True,
        resamples=lambda _samples, _width: COSTLY_RESAMPLES,
    )


def _repeated(rows: Sequence[Collected], counts: npt.NDArray[np.float64]) -> list[Collected]:
    return [rows[int(place)] for place in np.repeat(np.arange(len(rows)), counts.astype(np.int64))]


def _called(function: Callable[..., object], name: str, rows: Sequence[Collected]) -> float:
    outputs = {key: _joined([row.outputs[key] for row in rows]) for key in rows[0].outputs}
    try:
        given = function(_first_or_all(outputs), _labels_of([row.target for row in rows]))
        return float(given)  # type: ignore[arg-type]
    except Exception as cause:
        raise DataError(f"metric {name}: {type(cause).__name__}: {cause}") from cause


def _first_or_all(outputs: Mapping[str, object]) -> object:
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _joined(arrays: Sequence[Array]) -> object:
    if len({array.shape[1:] for array in arrays}) > 1:
        return list(arrays)
    return np.concatenate([np.atleast_1d(array) for array in arrays])


def _labels_of(targets: Sequence[Target]) -> object:
    if isinstance(targets[0], dict):
        by_name = {key: _joined([t[key] for t in targets if isinstance(t, dict)]) for key in targets[0]}
        return _first_or_all(by_name)
    return None if targets[0] is None else np.array(targets)


def find_metric(
    name: str | None,
    *,
    targets: TargetKind,
    signature: ModelSignature | None = None,
    labels: Sequence[str] = (),
    postprocess: Sequence[Step] = (),
) -> Metric:
    """Look a metric up.

    Args:
        name: None is top1 with class labels, cer with texts, and without labels agreement, or cosine where the
            model's first output is no list of class scores.
        targets: what the data carry.
        signature: of the model.
        labels: class names, or characters for cer.
        postprocess: a `ctc` step says how cer decodes; without one class 0 is the blank.

    Raises:
        UsageError: an unknown name, or none where the data do not say which.
        DataError: the metric needs other labels than the data carry, or a function cannot be imported.
    """
    name = name or _default(targets, signature)
    if ":" in name:
        return user_metric(name)
    if name != "cer" and name not in METRICS:
        raise UsageError(f"unknown metric {name!r}; there are {', '.join(METRICS)}, cer and module:function")
    step = next((step for step in postprocess if isinstance(step, Ctc)), Ctc())
    metric = METRICS[name] if name in METRICS else character_errors(labels, step)
    if metric.needs and targets not in metric.needs:
        wanted = " or ".join(_KINDS[kind] for kind in metric.needs)
        need = "class labels" if metric.needs == ("classes",) else wanted
        raise DataError(
            f"metric {name} needs {need}, and the data carry {_KINDS[targets]}: give them as y, or use another --metric"
            " (without y: agreement or cosine)"
        )
    if name == "cer" and not labels:
        raise UsageError("metric cer needs --labels: the characters by class index, one a line")
    return metric


def _default(targets: TargetKind, signature: ModelSignature | None) -> str:
    if targets == "values":
        raise UsageError(
            "y holds numbers: say what to measure, as in --metric mse --budget 0.01 (in the metric's unit)"
        )
    shape = signature.outputs[0].shape if signature and signature.outputs else []
    sizes = [size for size in shape[1:] if size != 1]
    looks_like_scores = not shape or len(sizes) == 1
    return "cosine" if targets == "none" and not looks_like_scores else _DEFAULT[targets]
