"""One encoding for every activation that int8 can carry, chosen once for all plans.

Nothing here knows of a runtime: the encodings follow from the statistics and from the constraints of the operators, so
that a tensor which two plans hold in int8 has the same scale and zero point in both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from converters.calibrate.histogram import Histogram
from converters.calibrate.ranges import Method, Range, choose_range, resolution
from converters.calibrate.statistics import Statistics
from converters.quantize.constraints import NARROW
from converters.quantize.encoding import Encoding, encode
from converters.quantize.front import drowned
from converters.quantize.sums import settle_sums
from converters.quantize.units import Unit, constant

MAX_WIDENING = 1.25
"""A range is widened at most this much to hold the numbers that an operator's int8 form needs."""


@dataclass(frozen=True)
class Encodings:
    """The outcome.

    Attributes:
        tensors: by the tensor's name in the canonical graph.
        refused: tensors that int8 cannot carry -> why.
        elements: of tensors in one run, on average over the calibration samples: axes of open size are known by them.
    """

    tensors: dict[str, Encoding] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)


def choose_encodings(units: Sequence[Unit], statistics: Statistics, method: Method) -> Encodings:
    """Choose an encoding for each tensor that some unit could read or write in int8.

    Args:
        units: of the whole graph, in its order.
        statistics: of every float activation.
        method: how a range follows from a histogram.
    """
    chosen = _Chosen(statistics, method)
    possible = [unit for unit in units if unit.rule is not None]
    for unit in possible:
        for value in (*unit.data, *unit.outputs):
            chosen.add(value)
    for unit in possible:
        _constrain(unit, chosen)
    tensors = chosen.encodings()
    settle_sums(possible, tensors, chosen.group_of, keep=chosen.held)
    result = Encodings(tensors, chosen.refused, chosen.elements)
    for unit in possible:
        _derive(unit, result)
    for name, reason in drowned(units, result.tensors, statistics).items():
        result.refused.setdefault(name, reason)
    return result


class _Chosen:
    """Ranges while they are being chosen: tensors that must share one form a group."""

    def __init__(self, statistics: Statistics, method: Method) -> None:
        self._statistics = statistics
        self._samples = statistics.samples
        self._method = method
        self._ranges: dict[str, Range] = {}
        self._fixed: dict[str, Encoding] = {}
        self._inputs: set[str] = set()
        self._parents: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.elements: dict[str, int] = {}

    def add(self, value: ir.Value) -> None:
        name = value.name or ""
        if name in self._parents:
            return
        self._parents[name] = name
        histogram = self._histogram(value)
        if histogram is None or not histogram.count:
            self.refused[name] = "no calibration sample reached it"
            return
        if constant(value) is None:
            self.elements[name] = round(histogram.seen / max(1, self._samples))
        # What comes from outside often has steps of its own (pixels): a shrunk range would miss them all.
        if value.is_graph_input():
            self._inputs.add(name)
        self._ranges[name] = choose_range(histogram, "minmax" if name in self._inputs else self._method)
        carried = resolution(histogram, self._ranges[name])
        if not carried.carried:
            self.refused[name] = carried.reason

    def _histogram(self, value: ir.Value) -> Histogram | None:
        tensor = constant(value)
        if tensor is None:
            return self._statistics.get(value.name or "")
        histogram = Histogram.empty()
        histogram.add(tensor.numpy())
        return histogram

    def width(self, name: str) -> float:
        bounds = self._ranges.get(name)
        return bounds.high - bounds.low if bounds else 0.0

    def fix(self, name: str, encoding: Encoding) -> None:
        self._fixed.setdefault(name, encoding)
        self.refused.pop(name, None)

    def widen(self, name: str, numbers: Iterable[float]) -> None:
        """Let a range hold some numbers, where that costs little precision."""
        bounds = self._ranges.get(name)
        if bounds is None or name in self._fixed:
            return
        wide = Range(min(bounds.low, *numbers, 0.0), max(bounds.high, *numbers, 0.0))
        if wide.high - wide.low <= MAX_WIDENING * (bounds.high - bounds.low):
            self._ranges[name] = wide

    def share(self, names: Sequence[str]) -> None:
        """Put tensors into one group."""
        first = self.group_of(names[0])
        for name in names[1:]:
            self._parents[self.group_of(name)] = first

    def group_of(self, name: str) -> str:
        """One of the tensors that share an encoding with this one, the same for all of them."""
        while self._parents[name] != name:
            self._parents[name] = self._parents[self._parents[name]]
            name = self._parents[name]
        return name

    def encodings(self) -> dict[str, Encoding]:
        """One encoding a group: a fixed one if a member has it and no other goes beyond, else the union of ranges."""
        groups: dict[str, list[str]] = {}
        for name in self._parents:
            groups.setdefault(self.group_of(name), []).append(name)
        found: dict[str, Encoding] = {}
        for members in groups.values():
            ranges = [self._ranges[name] for name in members if name in self._ranges]
            if not ranges:
                continue
            fixed = next((one for one in self._fixed_of(members) if self._holds(one, members)), None)
            low, high = min(one.low for one in ranges), max(one.high for one in ranges)
            found.update(dict.fromkeys(members, fixed or encode(low, high)))
        return found

    @property
    def held(self) -> frozenset[str]:
        """Groups whose encoding is not ours to change: what is fixed, and what comes in with steps of its own."""
        return frozenset(self.group_of(name) for name in (*self._fixed, *self._inputs))

    def _fixed_of(self, members: Sequence[str]) -> list[Encoding]:
        return [self._fixed[name] for name in members if name in self._fixed]

    def _holds(self, fixed: Encoding, members: Sequence[str]) -> bool:
        """Whether no member without this encoding has values more than a step beyond it."""
        others = [self._ranges[name] for name in members if name in self._ranges and self._fixed.get(name) != fixed]
        step = fixed.scale
        return all(fixed.low - step <= one.low and one.high <= fixed.high + step for one in others)


def _constrain(unit: Unit, chosen: _Chosen) -> None:
    rule = unit.rule
    if rule is None:
        return
    inputs, outputs = [value.name or "" for value in unit.data], [value.name or "" for value in unit.outputs]
    if rule.fixed:
        chosen.fix(outputs[0], rule.fixed)
    if rule.covers:
        chosen.widen(inputs[0], rule.covers)
    if rule.same_scale and inputs:
        # A narrow part of a Concat would lose its precision to the widest: it is requantised instead.
        alike = [name for name in inputs if len(inputs) == 1 or chosen.width(name) >= NARROW * chosen.width(outputs[0])]
        chosen.share([*outputs, *alike])


def _derive(unit: Unit, found: Encodings) -> None:
    """HardSigmoid only scales and shifts before it clips, so its output is the input's steps read otherwise."""
    if unit.operator != "HardSigmoid" or unit.data[0].name not in found.tensors:
        return
    encoding = hard_sigmoid_encoding(unit.nodes[0], found.tensors[unit.data[0].name or ""])
    if encoding:
        found.tensors[unit.outputs[0].name or ""] = encoding


def hard_sigmoid_encoding(node: ir.Node, source: Encoding) -> Encoding | None:
    """Read the steps of `source` as alpha * x + beta; None where 0.0 would have no step.

    alpha * scale * (q - z) + beta = (alpha * scale) * (q - (z - beta / (alpha * scale))).
    """
    alpha, beta = hard_sigmoid_line(node)
    if alpha <= 0:
        return None
    scale = alpha * source.scale
    zero_point = round(source.zero_point - beta / scale)
    return Encoding(scale, zero_point) if 0 <= zero_point <= 255 else None


def hard_sigmoid_line(node: ir.Node) -> tuple[float, float]:
    """Slope and offset of a HardSigmoid, or of the gate inside a HardSwish (ONNX operator specification)."""
    if node.op_type == "HardSwish":
        return 1 / 6, 0.5
    return node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
