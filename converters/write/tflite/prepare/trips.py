"""Scan, and Loop with collected outputs, written out trip by trip where these are few.

Source: ONNX operators Scan (opset 9 on) and Loop.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.control import hand_over, splice_copy
from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_int,
    attribute_ints,
    is_op,
    main_graph,
    stem_of,
)

MAX_TRIPS = 256
MAX_NODES = 8192
"""A Scan that would become more nodes than this stays what it is."""


def is_short(node: ir.Node) -> bool:
    """Whether it is a Scan over a known, small number of entries."""
    trips = _trips(node) if is_op(node, "Scan") else None
    if trips is None or not 0 < trips <= MAX_TRIPS:
        return False
    return trips * max(1, sum(1 for _ in node.attributes["body"].as_graph().all_nodes())) <= MAX_NODES


def _trips(node: ir.Node) -> int | None:
    count = attribute_int(node, "num_scan_inputs", 1)
    axes = attribute_ints(node, "scan_input_axes", [0] * count)
    for value, axis in zip(node.inputs[len(node.inputs) - count :], axes, strict=True):
        shape = value.shape if value is not None else None
        size = None if shape is None else shape[axis]
        if isinstance(size, int):
            return size
    return None


def unroll(node: ir.Node) -> bool:
    """Write out a Scan: each trip reads its entries, and what it gives is joined."""
    graph, body, trips = main_graph(node), node.attributes["body"].as_graph(), _trips(node) or 0
    count = attribute_int(node, "num_scan_inputs", 1)
    states: list[ir.Value | None] = list(node.inputs[: len(node.inputs) - count])
    scanned = list(node.inputs[len(states) :])
    collected: list[list[ir.Value]] = [[] for _ in node.outputs[len(states) :]]
    axes = attribute_ints(node, "scan_input_axes", [0] * count)
    turned = attribute_ints(node, "scan_input_directions", [0] * count)
    for trip in range(trips):
        places = [trips - 1 - trip if back else trip for back in turned]
        entries = [_entry(node, *one) for one in zip(scanned, axes, places, strict=True)]
        made = [value for value in splice_copy(graph, node, body, [*states, *entries]) if value is not None]
        states = list(made[: len(states)])
        for rows, value in zip(collected, made[len(states) :], strict=True):
            rows.append(value)
    joined = _joined(node, collected)
    hand_over(node, [*(value for value in states if value is not None), *joined])
    graph.remove(node, safe=True)
    return True


def _entry(node: ir.Node, value: ir.Value | None, axis: int, place: int) -> ir.Value:
    index = add_constant(main_graph(node), np.array(place, np.int64), f"{stem_of(node.outputs[0])}/trip")
    return add_node(node, "Gather", [value, index], {"axis": axis})


def _joined(node: ir.Node, collected: Sequence[Sequence[ir.Value]]) -> list[ir.Value]:
    axes = attribute_ints(node, "scan_output_axes", [0] * len(collected))
    turned = attribute_ints(node, "scan_output_directions", [0] * len(collected))
    made = []
    for rows, axis, back in zip(collected, axes, turned, strict=True):
        place = add_constant(main_graph(node), np.array([axis], np.int64), f"{stem_of(node.outputs[0])}/axis")
        parts = [add_node(node, "Unsqueeze", [value, place]) for value in rows]
        made.append(add_node(node, "Concat", parts[::-1] if back else parts, {"axis": axis}))
    return made
