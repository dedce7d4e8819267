"""Images read at computed places: GridSample and RoiAlign, as rows that are picked and mixed.

Source: the operators' schemas, and where these leave it open the kernels of ONNX Runtime 1.32 (grid_sample.cc,
roialign.cc).
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.channels import split
from converters.write.tflite.ops.formula import Formula, known
from converters.write.tflite.ops.widen import cast
from converters.write.tflite.program import Value
from converters.write.tflite.table import lowers

_A = -0.75
"""Of the cubic convolution kernel (Keys 1981), as torch and ONNX have it."""
_EXACT = 1 << 24
_FAR = float(1 << 22)


class Neighbour(NamedTuple):
    """An entry along one axis.

    Attributes:
        place: its index in float32, within the axis; shape (N, P, 1).
        weight: how much it counts; None where that is 1.
    """

    place: Value
    weight: Value | None


@lowers("GridSample", since=20)
def grid_sample(low: Lowering) -> None:
    """Of any number of axes; cubic of two."""
    x, grid, output, mode = low.input(0), low.input(1), low.output(), low.text("mode", "linear")
    sizes, wanted = known(x.shape[2:]), known(grid.shape[1:-1])
    if sizes is None or wanted is None or 0 in (*sizes, *wanted) or isinstance(x.shape[1], str):
        low.refuse("its sizes are open, or 0")
    if mode not in {"linear", "nearest", "cubic"} or (mode == "cubic" and len(sizes) != 2):
        low.refuse(f"there is no mode {mode!r} for {len(sizes)} axes")
    points = low.reshape(grid, (grid.shape[0], math.prod(wanted), len(sizes)))
    given = split(low, points, 2, len(sizes)) if len(sizes) > 1 else [points]
    # The last axis of the grid counts from the innermost axis of the image.
    axes = [_Axis(low, size, mode).neighbours(place) for size, place in zip(sizes, given[::-1], strict=True)]
    picked = mixed(low, rows(low, x, sizes), axes, sizes)
    back = low.reshape(picked, (x.shape[0], *wanted, x.shape[1]))
    low.transpose(back, (0, len(sizes) + 1, *range(1, len(sizes) + 1)), output)


def rows(low: Lowering, x: Value, sizes: Sequence[int]) -> Value:
    """(N, C, ...) as one row of channels for each place: (N, places, C)."""
    order = (0, *range(2, x.rank), 1)
    return low.reshape(low.transpose(x, order), (x.shape[0], math.prod(sizes), x.shape[1]))


def mixed(low: Lowering, table: Value, axes: Sequence[Sequence[Neighbour]], sizes: Sequence[int]) -> Value:
    """The sum over all corners of the rows there, each times its weights."""
    if math.prod(sizes) > _EXACT:
        low.refuse(f"it picks from {math.prod(sizes)} places, more than float32 counts")
    formula, total = Formula(low), None
    for corner in itertools.product(*axes):
        part = weighted(low, table, corner, sizes)
        total = part if total is None else formula.add(total, part)
    assert total is not None
    return total


def weighted(low: Lowering, table: Value, corner: Sequence[Neighbour], sizes: Sequence[int]) -> Value:
    """The rows at one corner, times its weights."""
    formula = Formula(low)
    place, weight = corner[0]
    for (further, other), size in zip(corner[1:], sizes[1:], strict=True):
        place = formula.add(formula.mul(place, float(size)), further)
        weight = other if weight is None else weight if other is None else formula.mul(weight, other)
    index = low.reshape(cast(low, place, "int32"), place.shape[:2])
    found = low.temp((table.shape[0], index.shape[1], table.shape[2]), table.dtype)
    low.emit("GATHER", [table, index], [found], {"axis": 1, "batch_dims": 1})
    return found if weight is None else formula.mul(found, weight)


class _Axis:
    """One axis of a GridSample: from a coordinate between -1 and 1 to entries with weights."""

    def __init__(self, low: Lowering, size: int, mode: str) -> None:
        self._formula = Formula(low)
        self._low = low
        self._size = size
        self._mode = mode
        self._padding = low.text("padding_mode", "zeros")
        self._aligned = bool(low.integer("align_corners", 0))
        if self._padding not in {"zeros", "border", "reflection"}:
            low.refuse(f"there is no padding {self._padding!r}")

    def neighbours(self, given: Value) -> list[Neighbour]:
        formula = self._formula
        place = self._pixels(given)
        # Beyond this all entries lie outside; numbers that int32 does not hold never get to an index.
        place = formula.maximum(formula.minimum(place, _FAR), -_FAR)
        if self._mode == "nearest":
            return [self._entry(self._inside(formula.unary("ROUND", place)), None)]
        place = self._inside(place)
        first = formula.unary("FLOOR", place)
        rest = formula.sub(place, first)
        if self._mode == "linear":
            weights = [formula.sub(1.0, rest), rest]
            return [self._entry(first if at == 0 else formula.add(first, 1.0), one) for at, one in enumerate(weights)]
        return [self._entry(formula.add(first, float(at - 1)), weight) for at, weight in enumerate(self._cubic(rest))]

    def _pixels(self, given: Value) -> Value:
        formula = self._formula
        if self._aligned:
            return formula.mul(formula.mul(formula.add(given, 1.0), 0.5), float(self._size - 1))
        return formula.mul(formula.sub(formula.mul(formula.add(given, 1.0), float(self._size)), 1.0), 0.5)

    def _inside(self, place: Value) -> Value:
        """Where a coordinate is brought back itself, before its neighbours are looked at."""
        if self._padding == "reflection":
            return self._reflected(place)
        return self._clipped(place) if self._padding == "border" and self._mode != "cubic" else place

    def _entry(self, place: Value, weight: Value | None) -> Neighbour:
        if self._padding == "reflection":
            return Neighbour(self._clipped(self._reflected(place)), weight)
        inside = self._clipped(place)
        if self._padding == "border":
            return Neighbour(inside, weight)
        formula = self._formula
        shown = cast(self._low, formula.binary("EQUAL", inside, place, dtype="bool"), "float32")
        return Neighbour(inside, shown if weight is None else formula.mul(weight, shown))

    def _clipped(self, place: Value) -> Value:
        return self._formula.maximum(self._formula.minimum(place, float(self._size - 1)), 0.0)

    def _reflected(self, place: Value) -> Value:
        """A triangular wave between the middles, or the edges, of the first and the last entry."""
        formula = self._formula
        low, high = (0.0, self._size - 1.0) if self._aligned else (-0.5, self._size - 0.5)
        length = high - low
        if length == 0:
            return formula.mul(place, 0.0)
        away = formula.unary("ABS", formula.sub(place, low))
        turns = formula.unary("FLOOR", formula.mul(away, 1 / (2 * length)))
        along = formula.sub(away, formula.mul(turns, 2 * length))
        return formula.add(formula.minimum(along, formula.sub(2 * length, along)), low)

    def _cubic(self, rest: Value) -> list[Value]:
        """Weights of the entries at -1, 0, 1 and 2, for a fraction between 0 and 1."""
        formula = self._formula
        other = formula.sub(1.0, rest)
        near = [self._near(rest), self._near(other)]
        return [self._far(formula.add(rest, 1.0)), *near, self._far(formula.add(other, 1.0))]

    def _near(self, x: Value) -> Value:
        formula = self._formula
        inner = formula.sub(formula.mul(x, _A + 2), _A + 3)
        return formula.add(formula.mul(formula.mul(inner, x), x), 1.0)

    def _far(self, x: Value) -> Value:
        formula = self._formula
        inner = formula.mul(formula.sub(formula.mul(x, _A), 5 * _A), x)
        return formula.sub(formula.mul(formula.add(inner, 8 * _A), x), 4 * _A)


@lowers("RoiAlign", since=16)
def roi_align(low: Lowering) -> None:
    """Each cell is the mean, or the largest, of sampling_ratio^2 bilinear samples; an adaptive number is refused."""
    x, output, ratio = low.input(0), low.output(), low.integer("sampling_ratio", 0)
    sizes = known(x.shape)
    if sizes is None or 0 in sizes:
        low.refuse("its sizes are open, or 0")
    if ratio <= 0:
        low.refuse("how many samples a cell has depends on its region (sampling_ratio 0)")
    formula = Formula(low)
    regions = low.reshape(low.input(1), (low.input(1).shape[0], 1, 4))
    edges = split(low, regions, 2, 4)
    extents = (low.integer("output_height", 1), low.integer("output_width", 1))
    number = low.reshape(cast(low, low.input(2), "float32"), (low.input(2).shape[0], 1, 1))
    axes = [_samples(low, (edges[1 - at], edges[3 - at]), sizes[2 + at], extents, at) for at in (0, 1)]
    table = low.reshape(rows(low, x, sizes[2:]), (1, sizes[0] * sizes[2] * sizes[3], sizes[1]))
    parts = []
    for corner in itertools.product(*axes):
        index = formula.add(formula.mul(number, float(sizes[2])), corner[0].place)
        parts.append(_row(low, table, [Neighbour(index, corner[0].weight), corner[1]], sizes))
    _pooled(low, parts, (extents, ratio, sizes[1]), output)


def _row(low: Lowering, table: Value, corner: Sequence[Neighbour], sizes: Sequence[int]) -> Value:
    """Rows of one table for all regions: (R, P, C)."""
    formula = Formula(low)
    place = formula.add(formula.mul(corner[0].place, float(sizes[3])), corner[1].place)
    regions, points = place.shape[:2]
    index = cast(low, low.reshape(place, (regions, points)), "int32")
    found = low.temp((regions, points, table.shape[2]), table.dtype)
    low.emit("GATHER", [low.reshape(table, table.shape[1:]), index], [found], {"axis": 0, "batch_dims": 0})
    assert corner[0].weight is not None
    assert corner[1].weight is not None
    return formula.mul(found, formula.mul(corner[0].weight, corner[1].weight))


def _samples(
    low: Lowering, ends: tuple[Value, Value], size: int, extents: tuple[int, int], axis: int
) -> list[Neighbour]:
    """The two entries beside each sample along an axis; (R, cells * samples of both axes, 1)."""
    formula, ratio = Formula(low), low.integer("sampling_ratio", 0)
    half = low.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    scale = low.number("spatial_scale", 1.0)
    start, end = (formula.mul(one, scale) for one in ends)
    if half:
        start, end = formula.sub(start, 0.5), formula.sub(end, 0.5)
    length = formula.sub(end, start)
    if not half:
        length = formula.maximum(length, 1.0)
    cells, other = extents[axis], extents[1 - axis]
    steps = (np.arange(cells)[:, None] + (np.arange(ratio)[None, :] + 0.5) / ratio) / cells
    # Points in the order (row, column, sample of a row, sample of a column).
    shape = (cells, 1, ratio, 1) if axis == 0 else (1, cells, 1, ratio)
    whole = (cells, other, ratio, ratio) if axis == 0 else (other, cells, ratio, ratio)
    spread = np.broadcast_to(steps.reshape(shape), whole).reshape(1, -1, 1).astype(np.float32)
    place = formula.add(formula.mul(length, low.constant(spread)), start)
    outside = formula.binary(
        "LOGICAL_OR",
        formula.binary("LESS", place, -1.0, dtype="bool"),
        formula.binary("GREATER", place, float(size), dtype="bool"),
    )
    shown = formula.sub(1.0, cast(low, outside, "float32"))
    place = formula.minimum(formula.maximum(place, 0.0), float(size - 1))
    first = formula.unary("FLOOR", place)
    rest = formula.sub(place, first)
    second = formula.minimum(formula.add(first, 1.0), float(size - 1))
    weights = (formula.mul(formula.sub(1.0, rest), shown), formula.mul(rest, shown))
    return [Neighbour(first, weights[0]), Neighbour(second, weights[1])]


def _pooled(low: Lowering, parts: Sequence[Value], sizes: tuple[tuple[int, int], int, int], output: Value) -> None:
    """Samples of a cell made one: their mean, or the largest of all their corners."""
    formula, (extents, ratio, channels) = Formula(low), sizes
    most = low.text("mode", "avg") == "max"
    joined = parts[0]
    for part in parts[1:]:
        joined = formula.maximum(joined, part) if most else formula.add(joined, part)
    wide = low.reshape(joined, (joined.shape[0], extents[0] * extents[1], ratio * ratio, channels))
    made = formula.reduce("REDUCE_MAX" if most else "MEAN", wide, [2])
    cells = low.reshape(made, (made.shape[0], *extents, channels))
    low.transpose(cells, (0, 3, 1, 2), output)
