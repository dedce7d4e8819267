"""The front of a graph: scales and shifts by constants that its float inputs go through before anything is multiplied.

A table's columns differ by orders of magnitude until a scaler divides each by its own size. One step for all columns
would swallow the small ones, and the scaler would then make their rounding as large as the others' values. What the
rounding of each tensor grows to at the end of such a chain is known beforehand, from the steps and the constants alone:
where it is well above the step that is chosen at the end, the chain up to there stays float. A picture's channels
share one size, its rounding grows no faster than its values do, and its normalisation is int8 like all the rest.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.calibrate.histogram import F64, Histogram
from converters.calibrate.statistics import Statistics
from converters.quantize.encoding import STEPS, Encoding
from converters.quantize.units import FLOAT, Unit, constant

MOST = 2.0
"""Rounding on the way may be as large as this many of the last tensor's own steps: one of its eight bits."""
_AFFINE = frozenset({"Add", "Mul", "Sub"})
_PASSED: Mapping[str, Sequence[int]] = {"Abs": (0,), "Identity": (0,), "Neg": (0,), "Where": (1, 2)}
"""Float operators that pass numbers on, and which of their inputs."""


def drowned(units: Sequence[Unit], encodings: Mapping[str, Encoding], statistics: Statistics) -> dict[str, str]:
    """Find the tensors of the front whose rounding would drown what follows.

    Args:
        units: of the whole graph, in its order.
        encodings: of the tensors, by name.
        statistics: of every float activation.

    Returns:
        Tensors that int8 cannot carry -> why.
    """
    grown = _Growth(encodings, statistics).along(_front(units))
    return {
        name: f"what follows scales its rounding to {size:.3g} steps of {end!r}"
        for name, (size, end) in grown.items()
        if size > MOST
    }


class _Link(NamedTuple):
    """A unit whose numbers are those that it reads, scaled, shifted or picked; product: of all that it reads."""

    read: Sequence[ir.Value]
    written: ir.Value
    product: bool = False


def _front(units: Sequence[Unit]) -> list[_Link]:
    """What scales, shifts or moves what comes from outside, or from operators that are float in every plan."""
    written = {value for unit in units if unit.rule is not None for value in unit.outputs}
    found = []
    for unit in units:
        links = [] if written & set(unit.data) else _links(unit)
        written -= {link.written for link in links}
        found += links
    return found


def _links(unit: Unit) -> list[_Link]:
    if unit.rule is None:
        node = unit.nodes[0]
        passed = [node.inputs[index] for index in _PASSED.get(node.op_type, ())]
        read = [value for value in passed if value is not None and value.dtype == FLOAT]
        return [_Link(read, node.outputs[0])] if read else []
    if unit.rule.same_scale or unit.operator in _AFFINE:
        return [_Link(unit.data, value, unit.operator == "Mul") for value in unit.outputs]
    return []


class _Growth:
    """By tensor, how large its rounding is at the end of its chain, in steps of the tensor there."""

    def __init__(self, encodings: Mapping[str, Encoding], statistics: Statistics) -> None:
        self._encodings = encodings
        self._statistics = statistics

    def along(self, front: Sequence[_Link]) -> dict[str, tuple[float, str]]:
        """Size, and the tensor at the end, of every tensor that the front reads."""
        found: dict[str, tuple[float, str]] = {}
        for link in reversed(front):
            end = link.written.name or ""
            written = self._encodings.get(end)
            if written is None:
                continue
            after, last = found.get(end, (1.0, end))
            for index, value in enumerate(link.read):
                size = self._of(link, index) / written.scale * after
                found[value.name or ""] = max(found.get(value.name or "", (0.0, "")), (size, last))
        return found

    def _of(self, link: _Link, index: int) -> float:
        """What the rounding of one of the inputs grows to: root mean squares over all elements."""
        value = link.read[index]
        tensor, read = constant(value), self._encodings.get(value.name or "")
        if read is None:
            return 0.0
        step = read.scale if tensor is None else _lost(np.asarray(tensor.numpy(), np.float64), read)
        others = [*link.read[:index], *link.read[index + 1 :]] if link.product else []
        return step * math.prod(self._size(one) for one in others)

    def _size(self, value: ir.Value) -> float:
        tensor = constant(value)
        if tensor is not None:
            return _root_mean_square(np.asarray(tensor.numpy(), np.float64))
        histogram = self._statistics.get(value.name or "")
        return 0.0 if histogram is None else _root_mean_square_of(histogram)


def _lost(values: F64, encoding: Encoding) -> float:
    """The rounding of constants, as the step of a tensor that would be rounded as much: its root mean square is a
    step over the root of 12.
    """
    steps = np.clip(np.rint(values / encoding.scale) + encoding.zero_point, 0, STEPS)
    return _root_mean_square((steps - encoding.zero_point) * encoding.scale - values) * math.sqrt(12)


def _root_mean_square(values: F64) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _root_mean_square_of(histogram: Histogram) -> float:
    value, _, _, counts = histogram.values()
    return float(np.sqrt(np.average(np.square(value), weights=counts))) if histogram.count else 0.0
