"""The plan: which units of a graph a profile runs in int8. Nothing here reads a disk or a clock.

Accuracy decides what may be int8 (`encodings`), cost decides what is: the labelling that the profile's table says is
the fastest, exactly (`cut`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converters.quantize import tflite
from converters.quantize.constraints import Constraints
from converters.quantize.cost import SPATIAL, Sizes, is_view, kind
from converters.quantize.cut import Choice, Crossing, cheapest, labelled
from converters.quantize.encodings import Encodings
from converters.quantize.profiles import Profile
from converters.quantize.rewriting import REWRITINGS
from converters.quantize.units import Unit

PAYS = 0.15
"""A plan must save this share of the float graph's cost: what a table may err by over a whole net."""


@dataclass(frozen=True)
class Plan:
    """What is int8 on a profile.

    Attributes:
        profile: whose plan it is.
        units: of the graph, in its order.
        int8: indices into `units`.
        encodings: of the tensors; the same for every plan of the graph.
        reasons: unit -> why it stays float; units without multiplications that nobody would expect in int8 too.
        lossy: units that stay float because int8 lost too much there.
        saved: the share (0 to 1) of the float graph's cost that the plan saves by the profile's table.
    """

    profile: Profile
    units: Sequence[Unit]
    int8: frozenset[int]
    encodings: Encodings
    reasons: dict[int, str]
    lossy: frozenset[int] = frozenset()
    saved: float = 0.0

    @property
    def pays(self) -> bool:
        """Whether it saves enough for a file of its own."""
        return bool(self.int8) and self.saved >= PAYS

    @property
    def int8_share(self) -> float:
        """Share (0 to 1) of the multiply-accumulates that are done in int8."""
        total = sum(self._sizes.macs(unit) for unit in self.units)
        return sum(self.work(index) for index in self.int8) / total if total else 0.0

    def work(self, index: int) -> int:
        """Multiply-accumulates of a unit in one run."""
        return self._sizes.macs(self.units[index])

    def cost(self, *, keep_float: frozenset[int] = frozenset()) -> float:
        """What its units cost by the profile's table, in nanoseconds, with some more of them in float."""
        int8, sizes = self.int8 - keep_float, self._sizes
        return sum(_cost(unit, self.profile, sizes, int8=index in int8) for index, unit in enumerate(self.units))

    @property
    def _sizes(self) -> Sizes:
        return Sizes(self.encodings.elements)


def plan(units: Sequence[Unit], encodings: Encodings, constraints: Constraints, profile: Profile) -> Plan:
    """Choose the units that a profile runs in int8.

    Args:
        units: of the whole canonical graph (`find_units`).
        encodings: what int8 can carry (`choose_encodings`, from the graph and its statistics).
        constraints: what must stay float.
        profile: what the runtime takes, and what it costs there.

    Returns:
        The plan of the lowest cost; on a profile whose costs are unknown, that with the fewest bytes moved.
    """
    reasons = {
        index: reason
        for index, unit in enumerate(units)
        if (reason := _obstacle(unit, encodings, constraints, profile))
    }
    sizes = Sizes(encodings.elements)
    choices = {
        index: Choice(
            _cost(unit, profile, sizes, int8=False),
            None if index in reasons else _cost(unit, profile, sizes, int8=True),
        )
        for index, unit in enumerate(units)
    }
    crossings = _crossings(units, encodings, profile)
    int8 = _useful(_cheapest(choices, crossings, units, profile, sizes=sizes), units, sizes)
    for index, unit in enumerate(units):
        if index not in int8 and index not in reasons:
            reasons[index] = f"{kind(unit)} is not faster in int8 here ({profile.name})"
    lossy = frozenset(index for index, unit in enumerate(units) if unit.name in constraints.keep_float)
    plain = sum(choice.in_float for choice in choices.values())
    saved = 1 - labelled(choices, crossings, int8) / plain if plain else 0.0
    return Plan(profile, units, int8, encodings, reasons, lossy, saved)


def _cheapest(
    choices: dict[int, Choice],
    crossings: Sequence[Crossing],
    units: Sequence[Unit],
    profile: Profile,
    *,
    sizes: Sizes,
) -> set[int]:
    """The cheapest labelling, given that runtimes take a float unit between int8 ones for an int8 unit.

    Such a unit costs what its int8 kernel costs, so the search is done again with that price; each round captures a
    unit that none before did, so it ends.
    """
    captured: set[int] = set()
    while True:
        int8 = cheapest(choices, crossings)
        now = {index for index in choices if index not in int8 and kind(units[index]) in profile.captures}
        now = {index for index in now - captured if _is_captured(index, int8, crossings, units, profile)}
        if not now:
            return int8
        captured |= now
        for index in now:
            price = _cost(units[index], profile, sizes, int8=True)
            choices = choices | {index: Choice(price, choices[index].in_int8)}


def _is_captured(
    index: int, int8: set[int], crossings: Sequence[Crossing], units: Sequence[Unit], profile: Profile
) -> bool:
    """Whether all that a float unit reads is dequantised, and all that it writes is quantised at once."""
    before = [crossing for crossing in crossings if index in crossing.readers]
    after = [crossing for crossing in crossings if crossing.writer == index]
    fed = all(
        crossing.writer in int8
        and (kind(units[crossing.writer]) not in profile.float_outputs or int8 & set(crossing.readers))
        for crossing in before
        if crossing.writer is not None
    ) and all(crossing.writer is not None for crossing in before)
    return (
        bool(before and after)
        and fed
        and all(crossing.readers and set(crossing.readers) <= int8 and not crossing.read_in_float for crossing in after)
    )


def _useful(int8: set[int], units: Sequence[Unit], sizes: Sizes) -> frozenset[int]:
    """A plan that multiplies nothing in int8 would only add noise."""
    return frozenset(int8) if any(sizes.macs(units[index]) for index in int8) else frozenset()


def _obstacle(unit: Unit, encodings: Encodings, constraints: Constraints, profile: Profile) -> str:
    """Why a unit cannot be int8; "" where it can."""
    if unit.rule is None:
        return unit.reason
    if unit.name in constraints.keep_float:
        return constraints.keep_float[unit.name]
    if not is_view(unit) and profile.entry(kind(unit)) is None:
        return f"{profile.name} has no int8 kernel for {kind(unit)}"
    for value in (*unit.data, *unit.outputs):
        if value.name in encodings.refused:
            return f"int8 cannot carry {value.name!r}: {encodings.refused[value.name]}"
        if value.name not in encodings.tensors:
            return f"the range of {value.name!r} is not known"
    return _form_obstacle(unit, encodings, profile)


def _form_obstacle(unit: Unit, encodings: Encodings, profile: Profile) -> str:
    """Why an operator has no int8 form here though its kind has one."""
    reason = tflite.obstacle(unit) if profile.format == "tflite" else ""
    rewriting = REWRITINGS.get((unit.operator, profile.rewritings.get(unit.operator, "")))
    return reason or (rewriting.obstacle(unit, encodings) if rewriting else "")


def _cost(unit: Unit, profile: Profile, sizes: Sizes, *, int8: bool) -> float:
    if is_view(unit):
        return 0.0
    entry = profile.entry(kind(unit))
    if entry is None:
        return 0.0
    return sizes.cost(entry.in_int8 if int8 else entry.in_float, unit)


def _crossings(units: Sequence[Unit], encodings: Encodings, profile: Profile) -> list[Crossing]:
    """Every tensor that may change its form, in the graph's order."""
    sizes = Sizes(encodings.elements)
    writers = {value: index for index, unit in enumerate(units) for value in unit.outputs}
    readers: dict[ir.Value, list[int]] = {value: [] for value in writers}
    for index, unit in enumerate(units):
        for value in dict.fromkeys(value for node in unit.nodes for value in node.inputs if value is not None):
            if not value.is_initializer() and value.name in encodings.tensors:
                readers.setdefault(value, []).append(index)
    return [
        _crossing(value, writers.get(value), indices, units, profile, size=sizes.elements(value))
        for value, indices in readers.items()
        if value.name in encodings.tensors
    ]


def _crossing(
    value: ir.Value, writer: int | None, readers: Sequence[int], units: Sequence[Unit], profile: Profile, *, size: int
) -> Crossing:
    outside = value.is_graph_output() or any(use.node.graph is not value.graph for use in value.uses())
    edges = profile.edges
    images = value.shape is not None and len(value.shape) == 4
    beside = _spatial(writer, units) or any(_spatial(reader, units) for reader in readers)
    relayout = edges.relayout if images and beside else 0.0
    free = writer is not None and kind(units[writer]) in profile.float_outputs
    return Crossing(
        writer,
        readers,
        outside,
        quantize=(edges.quantize + relayout) * size,
        dequantize=0.0 if free else (edges.dequantize + relayout) * size,
    )


def _spatial(index: int | None, units: Sequence[Unit]) -> bool:
    return index is not None and units[index].operator in SPATIAL
