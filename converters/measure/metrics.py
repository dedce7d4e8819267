"""What can be measured of a model's outputs: a table, so that more can join."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from converters.data.targets import TargetKind
from converters.measure import ranking
from converters.measure.intervals import F64, RESAMPLES, Counts
from converters.measure.metric import (
    COSTLY_RESAMPLES,
    Answered,
    Metric,
    Row,
    Rows,
    Scores,
    first_of,
    ratios,
    stacked,
)
from converters.measure.own import character_errors, user_metric
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError, NotYetSupportedError, UsageError
from lepton_edge.preprocess.spec import Ctc, Step

_CHEAP_VALUES = 50_000
"""Samples x numbers in a row up to which 1000 resamples of a ranking take about a second."""


def _mark(right: bool) -> Array:
    return np.array([right], np.float64)


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
    scores = class_scores(first_of(sample.outputs))
    return _mark(int(np.argmax(scores)) == _label(sample, scores.size))


def _top5(sample: Answered) -> Row:
    scores = class_scores(first_of(sample.outputs))
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:5]
    return _mark(_label(sample, scores.size) in best)


def _agreement(sample: Answered) -> Row:
    scores, wanted = class_scores(first_of(sample.outputs)), class_scores(first_of(sample.reference))
    return _mark(int(np.argmax(scores)) == int(np.argmax(wanted)))


def _means(rows: Rows, counts: Counts) -> F64:
    return ranking.mean(stacked(rows), counts)


def _label_and_choice(sample: Answered) -> Row:
    scores = class_scores(first_of(sample.outputs))
    return np.array([_label(sample, scores.size), np.argmax(scores)], np.float64)


def _f1(rows: Rows, counts: Counts) -> F64:
    pairs = stacked(rows).astype(np.int64)
    return ranking.macro_f1(pairs[:, 0], pairs[:, 1], counts)


def _scores_and_truth(sample: Answered) -> Row:
    """Scores, then 1 for each class that is true: shape (2 x classes,). A single score is that of class 1."""
    scores = first_of(sample.outputs).reshape(-1).astype(np.float64)
    if isinstance(sample.target, int):
        check_label(sample.target, max(2, scores.size), where=sample.where)
        truth = np.array([sample.target == 1]) if scores.size == 1 else np.arange(scores.size) == sample.target
    else:
        values = first_of(sample.target).reshape(-1) if isinstance(sample.target, dict) else np.empty(0)
        if values.size != scores.size or not np.isin(values, (0, 1)).all():
            raise DataError(f"{sample.where}: y must be a class index, or 0 or 1 for each of {scores.size} classes")
        truth = values == 1
    return np.concatenate([scores, truth])


def _ranked(
    statistic: Callable[[F64, npt.NDArray[np.bool_], Counts], F64], rows: Rows, counts: Counts, *, binary: bool
) -> F64:
    """The statistic's mean over classes; with `binary` two classes are one question, asked by their difference."""
    scores, truth = np.split(stacked(rows), 2, axis=1)
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
        Metric("mse", ("values", "classes"), _errors(2), ratios, "own", higher_is_better=False, every_output=True),
        Metric("mae", ("values", "classes"), _errors(1), ratios, "own", higher_is_better=False, every_output=True),
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


def counts_in_points(name: str | None) -> bool:
    """Whether a drop of the metric of this name is told in points; all defaults are; not so what nobody knows."""
    return name is None or name == "cer" or (name in METRICS and METRICS[name].unit == "fraction")


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
    asked, name = name, name or _default(targets, signature)
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
        said = "metric cer needs" if asked else "y holds texts, which need"
        names = "" if asked else "the class names by index where they are classes, else "
        raise UsageError(f"{said} --labels: {names}the characters by class index, one a line")
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
