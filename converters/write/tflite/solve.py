"""The least sum of functions of few variables each, exactly.

Bucket elimination: a variable is taken out by joining the factors that it occurs in and keeping, for each choice of
their other variables, its best value (Dechter, "Bucket elimination: a unifying framework for reasoning", 1999). The
variable whose join is smallest goes first.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LARGEST = 1 << 22
"""Most entries of a joined table."""

Table = npt.NDArray[np.float64]


class TooWideError(Exception):
    """The variables hang together so closely that a table would be larger than `LARGEST`."""


class Factor(NamedTuple):
    """A cost by the values of some variables: one axis of the table each."""

    variables: tuple[int, ...]
    table: Table


class _Taken(NamedTuple):
    variable: int
    others: tuple[int, ...]
    best: npt.NDArray[np.intp]


def minimise(sizes: Sequence[int], factors: Sequence[Factor]) -> tuple[list[int], float]:
    """Choose a value for each variable.

    Args:
        sizes: how many values each variable has.
        factors: whose sum counts; infinite where values do not go together.

    Returns:
        The values and the least sum; equal input gives equal output, ties go to the smallest value.

    Raises:
        TooWideError: see there.
    """
    search = _Search(sizes, factors)
    taken = search.run()
    return _read_back(sizes, taken), search.constant


class _Search:
    """The factors that are left, by variable; and a queue of variables by the table that taking them out makes."""

    def __init__(self, sizes: Sequence[int], factors: Sequence[Factor]) -> None:
        self.constant = 0.0
        self._sizes = sizes
        self._live: dict[int, Factor] = {}
        self._uses: dict[int, set[int]] = {variable: set() for variable, size in enumerate(sizes) if size > 1}
        self._next = 0
        for factor in factors:
            self._add(_without_fixed(factor, sizes))
        self._queue = [(self._width(variable), variable) for variable in self._uses]
        heapq.heapify(self._queue)

    def run(self) -> list[_Taken]:
        taken = []
        while self._queue:
            width, variable = heapq.heappop(self._queue)
            if variable in self._uses and width == self._width(variable):
                taken.append(self._take(variable))
        return taken

    def _add(self, factor: Factor) -> None:
        if not factor.variables:
            self.constant += float(factor.table)
            return
        self._live[self._next] = factor
        for variable in factor.variables:
            self._uses[variable].add(self._next)
        self._next += 1

    def _take(self, variable: int) -> _Taken:
        used = [self._live.pop(number) for number in sorted(self._uses.pop(variable))]
        others = tuple(sorted({one for factor in used for one in factor.variables} - {variable}))
        joined = _join(used, (*others, variable), self._sizes)
        best = np.asarray(joined.argmin(axis=-1))
        for other in others:
            self._uses[other] = {number for number in self._uses[other] if number in self._live}
        self._add(Factor(others, joined.min(axis=-1)))
        for other in others:
            heapq.heappush(self._queue, (self._width(other), other))
        return _Taken(variable, others, best)

    def _width(self, variable: int) -> int:
        """Entries of the table that taking the variable out makes."""
        beside = {one for number in self._uses[variable] for one in self._live[number].variables} | {variable}
        return math.prod(self._sizes[one] for one in beside)


def _without_fixed(factor: Factor, sizes: Sequence[int]) -> Factor:
    """Variables of one value are no variables."""
    index = tuple(slice(None) if sizes[one] > 1 else 0 for one in factor.variables)
    return Factor(tuple(one for one in factor.variables if sizes[one] > 1), np.asarray(factor.table[index]))


def _join(used: Sequence[Factor], variables: tuple[int, ...], sizes: Sequence[int]) -> Table:
    shape = [sizes[one] for one in variables]
    if math.prod(shape) > LARGEST:
        raise TooWideError
    total = np.zeros(shape)
    for factor in used:
        order = sorted(range(len(factor.variables)), key=lambda at: variables.index(factor.variables[at]))
        table = factor.table.transpose(order)
        total += table.reshape(
            [size if one in factor.variables else 1 for one, size in zip(variables, shape, strict=True)]
        )
    return total


def _read_back(sizes: Sequence[int], taken: Sequence[_Taken]) -> list[int]:
    chosen = [0] * len(sizes)
    for variable, others, best in reversed(taken):
        chosen[variable] = int(best[tuple(chosen[other] for other in others)])
    return chosen
