"""Metrics that are rates: each says of one sample whether the model was right. A table, so that more can join."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_edge.errors import DataError, NotYetSupportedError, UsageError

Scores = npt.NDArray[np.generic]
Hit = Callable[[Scores, int, Scores], bool]


class RateMetric(NamedTuple):
    """A share of samples.

    Attributes:
        name: as the user writes it.
        needs_labels: whether the data must carry class labels.
        hit: (scores, label, scores of the float model), each of shape (classes,) -> right or wrong.
    """

    name: str
    needs_labels: bool
    hit: Hit


def _top1(scores: Scores, label: int, _: Scores) -> bool:
    return int(np.argmax(scores)) == label


def _top5(scores: Scores, label: int, _: Scores) -> bool:
    return label in np.argsort(-scores.astype(np.float64), kind="stable")[:5]


def _agreement(scores: Scores, _: int, float_scores: Scores) -> bool:
    return int(np.argmax(scores)) == int(np.argmax(float_scores))


METRICS = {
    metric.name: metric
    for metric in (
        RateMetric("top1", needs_labels=True, hit=_top1),
        RateMetric("top5", needs_labels=True, hit=_top5),
        RateMetric("agreement", needs_labels=False, hit=_agreement),
    )
}
LATER = {"f1", "auc", "map", "mse", "mae", "cer", "cosine"}


def find_metric(name: str | None, *, labelled: bool) -> RateMetric:
    """Look a metric up; None is top1 with class labels and agreement without.

    Raises:
        NotYetSupportedError: a metric that comes later.
        UsageError: an unknown name.
        DataError: the metric needs labels and the data carry none.
    """
    name = name or ("top1" if labelled else "agreement")
    metric = METRICS.get(name)
    if metric is None and (name in LATER or ":" in name):
        raise NotYetSupportedError(f"not yet: metric {name}; today: {', '.join(METRICS)}")
    if metric is None:
        raise UsageError(f"unknown metric {name!r}; today: {', '.join(METRICS)}")
    if metric.needs_labels and not labelled:
        raise DataError(f"metric {name} needs class labels, and the data carry none: add y, or use --metric agreement")
    return metric


def class_scores(output: Scores) -> Scores:
    """A model's first output for one sample as scores of shape (classes,).

    Raises:
        NotYetSupportedError: it is no list of class scores.
    """
    scores = output.reshape(-1)
    if output.ndim == 0 or max(output.shape, default=0) != scores.size or scores.size < 2:
        raise NotYetSupportedError(
            f"not yet: the model's first output has shape {list(output.shape)} for one sample; today's metrics compare "
            "two or more class scores: convert with --no-evaluate, or give a model whose first output is such a list"
        )
    return scores


def check_label(label: int, scores: Scores, *, where: str) -> None:
    """Raises DataError where a label names no class of the model."""
    if not 0 <= label < scores.size:
        raise DataError(f"{where}: class {label}, but the model has {scores.size} classes (0 to {scores.size - 1})")
