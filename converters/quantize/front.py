"""The front of a graph: scales and shifts by constants that its float inputs go through before anything is multiplied.

A table's columns differ by orders of magnitude until a scaler divides each by its own size. One step for all columns
would swallow the small ones, and the scaler would then make their rounding as large as the others' values. What the
rounding of each tensor grows to at the end of such a chain is known beforehand, from the steps and the constants alone:
where it is well above the step that is chosen at the end, the chain up to there stays float. A picture's channels
share one size, its rounding grows no faster than its values do, and its normalisation is int8 like all the rest.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from converters.calibrate.histogram import Histogram
from converters.calibrate.statistics import Statistics
from converters.quantize.encoding import STEPS, Encoding
from converters.quantize.units import Unit, constant

MOST = 2.0
"""Rounding on the way may be as large as this many of the last tensor's own steps: one of its eight bits."""
_AFFINE = frozenset({"Add", "Mul", "Sub"})


def drowned(units: Sequence[Unit], encodings: Mapping[str, Encoding], statistics: Statistics) -> dict[str, str]:
    """Find the tensors of the front whose rounding would drown what follows.

    Args:
        units: of the whole graph, in its order.
        encodings: of the tensors, by name.
        statistics: of every float activation.

    Returns:
        Tensors that int8 cannot carry -> why.
    """
    front = _front(units)
    grown = _Growth(front, encodings, statistics).of_all()
    return {
        name: f"what follows scales its rounding to {size:.3g} steps of {end!r}"
        for name, (size, end) in grown.items()
        if size > MOST
    }


def _front(units: Sequence[Unit]) -> list[Unit]:
    """The units that scale, shift or move what comes from outside, or from operators that are float in every plan."""
    written = {value for unit in units if unit.rule is not None for value in unit.outputs}
    found = []
    for unit in units:
        computed = [value for value in unit.data if constant(value) is None]
        if computed and _keeps_to_values(unit, len(computed)) and not written & set(computed):
            found.append(unit)
            written -= set(unit.outputs)
    return found


def _keeps_to_values(unit: Unit, computed: int) -> bool:
    """Whether each number that it gives is one that it reads, scaled and shifted by constants."""
    if unit.rule is None:
        return False
    return unit.rule.same_scale or (unit.operator in _AFFINE and computed == 1 and len(unit.data) == 2)


class _Growth:
    """By tensor, how large its rounding is at the end of its chain, in steps of the tensor there."""

    def __init__(self, front: Sequence[Unit], encodings: Mapping[str, Encoding], statistics: Statistics) -> None:
        self._front = front
        self._encodings = encodings
        self._statistics = statistics

    def of_all(self) -> dict[str, tuple[float, str]]:
        """Size and the tensor at the end, of every tensor that the front's units read."""
        found: dict[str, tuple[float, str]] = {}
        for unit in reversed(self._front):
            end = unit.outputs[0].name or ""
            written = self._encodings.get(end)
            if written is None:
                continue
            after, last = found.get(end, (1.0, end))
            for value in unit.data:
                size = self._of(unit, value, written) * after
                found[value.name or ""] = max(found.get(value.name or "", (0.0, "")), (size, last))
        return found

    def _of(self, unit: Unit, value: ir.Value, written: Encoding) -> float:
        """The rounding of what a unit reads, in steps of what it writes: root mean squares over all elements."""
        tensor, read = constant(value), self._encodings.get(value.name or "")
        if read is None:
            return 0.0
        step = read.scale if tensor is None else _lost(np.asarray(tensor.numpy(), np.float64), read)
        if unit.operator != "Mul":
            return step / written.scale
        other = next((one for one in unit.data if one is not value), value)
        return step * self._size(other) / written.scale

    def _size(self, value: ir.Value) -> float:
        tensor = constant(value)
        if tensor is not None:
            return _root_mean_square(np.asarray(tensor.numpy(), np.float64))
        histogram = self._statistics.get(value.name or "")
        return 0.0 if histogram is None else _spread(histogram)


def _lost(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], encoding: Encoding) -> float:
    """The rounding of constants, as the step of a tensor that would be rounded as much: its root mean square is a
    step over the root of 12.
    """
    steps = np.clip(np.rint(values / encoding.scale) + encoding.zero_point, 0, STEPS)
    return _root_mean_square((steps - encoding.zero_point) * encoding.scale - values) * math.sqrt(12)


def _root_mean_square(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _spread(histogram: Histogram) -> float:
    value, _, _, counts = histogram.values()
    return float(np.sqrt(np.average(np.square(value), weights=counts))) if histogram.count else 0.0
