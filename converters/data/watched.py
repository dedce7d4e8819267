"""A dataset that tells somebody of each sample that is asked for."""

from collections.abc import Callable

from converters.data.dataset import Dataset, Subset
from lepton_edge.bundle.binding import Arrays


class Watched(Subset):
    """All samples of a dataset, in order."""

    def __init__(self, whole: Dataset, told: Callable[[], None]) -> None:
        super().__init__(whole, range(len(whole)))
        self._told = told

    def inputs(self, index: int) -> Arrays:
        self._told()
        return super().inputs(index)
