"""Layouts as orders of atoms: the algebra, on numbers alone.

The index along an axis of size 12 may be read as one number, or as two digits of radix 3 and 4; such a digit is an
atom. A layout lists all digits of a tensor from the slowest to the fastest in memory. So a transpose and a reshape move
no byte: they give the digits other axes. Sizes that are not known stand as primes that nothing divides.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converters.write.tflite.program import Order


class Digit(NamedTuple):
    """A part of an axis's index: (index // stride) % size."""

    axis: int
    stride: int
    size: int


Layout = tuple[Digit, ...]
Sizes = tuple[int, ...]


def plain(sizes: Sequence[int]) -> Layout:
    """The graph's own order."""
    return ordered(sizes, range(len(sizes)))


def ordered(sizes: Sequence[int], order: Iterable[int]) -> Layout:
    """Whole axes in some order."""
    return tuple(Digit(axis, 1, sizes[axis]) for axis in order)


def axes_of(layout: Layout) -> Order | None:
    """The axes as they follow each other in memory; None where the digits of one lie apart."""
    axes: list[int] = []
    for digit in layout:
        if not axes or axes[-1] != digit.axis:
            axes.append(digit.axis)
    return tuple(axes) if len(set(axes)) == len(axes) else None


def digits_of(layout: Layout, axis: int) -> Layout:
    """Those of one axis."""
    return tuple(digit for digit in layout if digit.axis == axis)


def is_straight(layout: Layout, axis: int) -> bool:
    """Whether the entries along an axis lie in their own order."""
    return len(digits_of(layout, axis)) <= 1


def same_bytes(one: Layout, other: Layout) -> bool:
    """Whether two layouts of one tensor put the same entry into every place; axes of size 1 do not matter."""
    return without_ones(one) == without_ones(other)


def without_ones(layout: Layout) -> Layout:
    """The digits that say where something lies."""
    return merged(digit for digit in layout if digit.size != 1)


def merged(digits: Iterable[Digit]) -> Layout:
    """Digits that follow each other as they do in the axis's index become one."""
    made: list[Digit] = []
    for digit in digits:
        last = made[-1] if made else None
        if last and last.axis == digit.axis and last.stride == digit.stride * digit.size:
            made[-1] = Digit(digit.axis, digit.stride, last.size * digit.size)
        else:
            made.append(digit)
    return tuple(made)


def cut_alike(layout: Layout, other: Layout) -> Layout | None:
    """The digits of `layout`, cut where those of `other` are cut too; None where neither cut divides the other, as in
    an axis of 12 that is 3 x 4 here and 2 x 6 there: then no order of digits leads from one to the other.
    """
    cuts = {(digit.axis, digit.stride) for digit in other}
    made: list[Digit] = []
    for digit in layout:
        inner = sorted(
            stride for axis, stride in cuts if axis == digit.axis and digit.stride < stride < digit.stride * digit.size
        )
        ends = list(pairwise([digit.stride, *inner, digit.stride * digit.size]))
        if any(high % low for low, high in ends):
            return None
        made += [Digit(digit.axis, low, high // low) for low, high in reversed(ends)]
    return tuple(made)


def transposed(layout: Layout, order: Order) -> Layout:
    """The same bytes where output axis i is input axis order[i]."""
    place = {axis: index for index, axis in enumerate(order)}
    return tuple(digit._replace(axis=place[digit.axis]) for digit in layout)


def resized(layout: Layout, sizes: Sequence[int]) -> Layout:
    """The same order for a tensor whose open sizes go by other names."""
    whole = {digit.axis for digit in layout if len(digits_of(layout, digit.axis)) == 1}
    return tuple(digit._replace(size=sizes[digit.axis]) if digit.axis in whole else digit for digit in layout)


def reshaped(layout: Layout, old: Sequence[int], new: Sequence[int]) -> Layout | None:
    """The same bytes read with another shape; None where digits of one new axis would lie apart, or where sizes that
    are open make it unknown how the one shape follows from the other.

    Args:
        layout: of the tensor before.
        old, new: its sizes, and those after.
    """
    if any(size == 0 for size in old):
        return plain(new)
    if math.prod(old) != math.prod(new):
        return None
    below = _strides(old)
    pieces: list[Digit] = []
    for digit in layout:
        if digit.size > 1:
            cut = _cut(digit.stride * below[digit.axis], digit.size, new)
            if cut is None:
                return None
            pieces += cut
    made = _with_ones(merged(pieces), new)
    return made if axes_of(made) is not None else None


def _strides(sizes: Sequence[int]) -> list[int]:
    """How many entries lie between neighbours along each axis, in the graph's order."""
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]


def _cut(stride: int, size: int, new: Sequence[int]) -> list[Digit] | None:
    """A digit of the tensor's flat index as digits of the new axes, the slowest first; None where it does not part."""
    made: list[Digit] = []
    for axis, below in reversed(list(enumerate(_strides(new)))):
        above = below * new[axis]
        if size == 1 or stride >= above or new[axis] == 1:
            continue
        if stride < below or stride % below:
            return None
        if above % stride:
            return None
        room = above // stride
        taken = math.gcd(size, room) if size < room else room
        if size % taken or taken not in {room, size}:
            return None
        made.append(Digit(axis, stride // below, taken))
        stride, size = stride * taken, size // taken
    return made[::-1] if size == 1 else None


def _with_ones(layout: Layout, sizes: Sequence[int]) -> Layout:
    """Give each axis of size 1 its place: before the axis that follows it in the graph's order."""
    made = list(layout)
    for axis in reversed(range(len(sizes))):
        if sizes[axis] == 1:
            at = next((index for index, digit in enumerate(made) if digit.axis == axis + 1), len(made))
            made.insert(at, Digit(axis, 1, 1))
    return tuple(made)


def adapted(frame: Layout, sizes: Sequence[int], *, straight: frozenset[int] = frozenset()) -> Layout | None:
    """The layout that a tensor needs to stand beside one of the same rank in a kernel that goes through both at once.

    Args:
        frame: of the other tensor.
        sizes: of this one; along an axis of another size than the frame's, the entries must lie in their own order.
        straight: axes whose entries must do so in any case.

    Returns:
        None where no such layout exists.
    """
    order = axes_of(frame)
    if order is None or len(order) != len(sizes):
        return None
    made: list[Digit] = []
    for axis in order:
        digits = digits_of(frame, axis)
        if len(digits) == 1:
            made.append(Digit(axis, 1, sizes[axis]))
        elif axis in straight:
            return None
        elif sizes[axis] == math.prod(digit.size for digit in digits):
            made += digits
        elif sizes[axis] == 1:
            made.append(Digit(axis, 1, 1))
        else:
            return None
    return tuple(made)


def entries(digits: Layout, size: int) -> npt.NDArray[np.intp] | None:
    """Which entries of an axis lie one after another, for re-ordering a constant; None where that is their own order.

    Args:
        digits: of that axis alone.
        size: of the axis.
    """
    if len(digits) <= 1:
        return None
    by_stride = sorted(digits, key=lambda digit: -digit.stride)
    grid = np.arange(size).reshape([digit.size for digit in by_stride])
    return grid.transpose([by_stride.index(digit) for digit in digits]).reshape(-1)


class Symbols:
    """A prime for each name of an open size, so that no reshape takes one apart."""

    _FIRST = 1_000_003

    def __init__(self) -> None:
        self._primes: dict[str, int] = {}
        self._last = self._FIRST - 2

    def sizes(self, shape: Sequence[int | str]) -> Sizes:
        """Sizes as numbers."""
        return tuple(size if isinstance(size, int) else self._prime(size) for size in shape)

    def _prime(self, name: str) -> int:
        if name not in self._primes:
            self._last += 2
            while any(self._last % divisor == 0 for divisor in range(3, math.isqrt(self._last) + 1, 2)):
                self._last += 2
            self._primes[name] = self._last
        return self._primes[name]

    def bytes_of(self, shape: Sequence[int | str], item: int) -> int:
        """Of a tensor whose open sizes are 1."""
        return item * math.prod(size for size in shape if isinstance(size, int))
