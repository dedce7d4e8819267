"""Which samples calibrate and which evaluate: by seed, spread over the classes, never the same sample."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from converters.data.dataset import Dataset, Labels, Subset
from lepton_edge.errors import DataError

DEFAULT_CALIBRATION = 100


class Split(NamedTuple):
    """Two datasets without a common sample."""

    calibration: Dataset
    evaluation: Dataset


def split_samples(data: Dataset, *, calibration: int | None, seed: int) -> Split:
    """Take some samples for calibration and leave the rest for evaluation.

    Args:
        data: all samples.
        calibration: how many; None takes 100, or half of fewer than 200.
        seed: equal seeds and equal data choose equal samples.

    Raises:
        DataError: nothing would be left on one side.
    """
    total = len(data)
    count = calibration if calibration is not None else min(DEFAULT_CALIBRATION, total // 2)
    if not 0 < count < total:
        raise DataError(
            f"{total} samples, {count} of them for calibration, leaves nothing on one side: "
            "give more data, another --calibration, or --calibration-data"
        )
    chosen = choose_spread(data.labels, total, count, seed=seed)
    kept = set(chosen)
    rest = [index for index in range(total) if index not in kept]
    return Split(Subset(data, chosen), Subset(data, rest))


def choose_spread(labels: Labels | None, total: int, count: int, *, seed: int) -> list[int]:
    """Choose `count` of `total` indices, as evenly over the classes as their sizes allow; sorted."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(total)
    if labels is not None:
        order = _round_robin(order, labels[order])
    return sorted(int(index) for index in order[:count])


def _round_robin(order: Sequence[int] | Labels, labels: Labels) -> Labels:
    """Reorder so that every class gives one sample before any class gives its second, and so on."""
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        turn[members] = np.arange(len(members))
    return np.asarray(order, dtype=np.int64)[np.argsort(turn, kind="stable")]
