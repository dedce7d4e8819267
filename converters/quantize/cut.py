"""Which units are int8: the cheapest labelling of a graph, exact, by a minimum cut.

Each unit costs something in float and something in int8. A tensor that a float unit makes and int8 units read is
quantised once; one that an int8 unit makes and float units read is dequantised once. Costs of that form are
submodular, so that a minimum cut gives the best labelling (Kolmogorov and Zabih, "What energy functions can be
minimized via graph cuts?", PAMI 2004; a tensor with many readers by one auxiliary vertex, as in their section 5).
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import networkx as nx

_INT8 = ("int8",)
_FLOAT = ("float",)
_PICO = 1000
"""Costs are counted in whole thousandths of their unit, so that equal plans compare equal on every machine."""


class Choice(NamedTuple):
    """What a unit costs; int8 None: it has no int8 form here."""

    in_float: float
    in_int8: float | None


class Crossing(NamedTuple):
    """A tensor between units.

    Attributes:
        writer: the unit that makes it; None: it comes in float from outside.
        readers: the units that read it.
        read_in_float: whether somebody outside of all units reads it in float.
        quantize, dequantize: what a change of form costs.
    """

    writer: int | None
    readers: Sequence[int]
    read_in_float: bool
    quantize: float
    dequantize: float


def cheapest(choices: Mapping[int, Choice], crossings: Sequence[Crossing]) -> set[int]:
    """The units to run in int8; a unit that gains nothing stays float.

    Args:
        choices: by unit.
        crossings: the tensors between them.
    """
    network = nx.DiGraph()
    network.add_nodes_from([_INT8, _FLOAT])
    for unit, choice in choices.items():
        # The last thousandth makes float win a tie.
        _edge(network, unit, _FLOAT, None if choice.in_int8 is None else _whole(choice.in_int8) + 1)
        _edge(network, _INT8, unit, _whole(choice.in_float))
    for index, crossing in enumerate(crossings):
        _cross(network, index, crossing)
    _, (int8_side, _) = nx.minimum_cut(network, _INT8, _FLOAT, flow_func=nx.algorithms.flow.boykov_kolmogorov)
    return {unit for unit in choices if unit in int8_side}


def labelled(choices: Mapping[int, Choice], crossings: Sequence[Crossing], int8: Collection[int]) -> float:
    """What a labelling costs; endless where it runs in int8 what has no int8 form."""
    total = 0.0
    for unit, choice in choices.items():
        price = choice.in_int8 if unit in int8 else choice.in_float
        total += float("inf") if price is None else price
    for crossing in crossings:
        in_int8 = [reader in int8 for reader in crossing.readers]
        if crossing.writer not in int8 and any(in_int8):
            total += crossing.quantize
        if crossing.writer in int8 and (crossing.read_in_float or not all(in_int8)):
            total += crossing.dequantize
    return total


def _cross(network: "nx.DiGraph[Hashable]", index: int, crossing: Crossing) -> None:
    """A vertex on the int8 side says "its int8 form exists"; one on the float side "its float form exists"."""
    writer: Hashable = _FLOAT if crossing.writer is None else crossing.writer
    if crossing.readers:
        form = ("quantized", index)
        for reader in crossing.readers:
            _edge(network, reader, form, None)
        _edge(network, form, writer, _whole(crossing.quantize))
    if crossing.writer is not None:
        form = ("dequantized", index)
        for reader in crossing.readers:
            _edge(network, form, reader, None)
        if crossing.read_in_float:
            _edge(network, form, _FLOAT, None)
        _edge(network, crossing.writer, form, _whole(crossing.dequantize))


def _edge(network: "nx.DiGraph[Hashable]", start: Hashable, end: Hashable, capacity: int | None) -> None:
    """Add an edge; capacity None is endless. A second edge between the same two adds up."""
    known = network.get_edge_data(start, end)
    if known is not None and "capacity" in known and capacity is not None:
        network[start][end]["capacity"] += capacity
    elif capacity is None:
        network.add_edge(start, end)
        network[start][end].pop("capacity", None)
    elif known is None:
        network.add_edge(start, end, capacity=capacity)


def _whole(cost: float) -> int:
    return max(0, round(cost * _PICO))
