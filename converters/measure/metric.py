"""What a metric is: a row of numbers for each sample, and one figure of many rows, each counting as often as told.

That is all that the intervals need: by formula where a row is right or wrong, by the bootstrap elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.data.targets import Target, TargetKind
from converters.measure import ranking
from converters.measure.intervals import F64, RESAMPLES, Counts
from lepton_edge.bundle.binding import Array, Arrays

Scores = npt.NDArray[np.generic]
Unit = Literal["fraction", "own"]
COSTLY_RESAMPLES = 200
"""Where a resample is costly; enough for a standard error."""


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


def stacked(rows: Rows) -> F64:
    """Rows of numbers as one array, shape (n, k)."""
    return np.stack([np.asarray(row, np.float64) for row in rows if not isinstance(row, Collected)])


def first_of(outputs: Arrays) -> Array:
    """The first output, or the first target."""
    return next(iter(outputs.values()))


def ratios(rows: Rows, counts: Counts) -> F64:
    """Sums of the first column over sums of the second."""
    return ranking.ratio(stacked(rows), counts)
