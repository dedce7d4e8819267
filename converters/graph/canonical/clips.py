"""Piecewise linear activations: Relu, Clip with constant bounds, LeakyRelu."""

import math
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    bypass,
    constant,
    is_op,
    nodes_of,
    producer,
    scalar,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.shapes import rank_of

_HUGE = 3.0e38
"""Bounds at the end of float32 bound nothing."""


class Interval(NamedTuple):
    low: float
    high: float


def interval(node: ir.Node) -> Interval | None:
    """What Relu, or Clip, Min or Max with constant scalar bounds, cuts a value to; None for anything else."""
    if is_op(node, "Relu"):
        return Interval(0.0, math.inf)
    if is_op(node, "Clip"):
        bounds = [scalar(value) if value is not None else missing for value, missing in _clip_bounds(node)]
        low, high = bounds
        return None if low is None or high is None else _open(low, high)
    if is_op(node, "Min", "Max") and len(node.inputs) == 2:
        number = scalar(node.inputs[1])
        if number is None or not _keeps_rank(node):
            return None
        return _open(-math.inf, number) if node.op_type == "Min" else _open(number, math.inf)
    return None


def _clip_bounds(node: ir.Node) -> list[tuple[ir.Value | None, float]]:
    given = [*node.inputs[1:], None, None]
    return [(given[0], -math.inf), (given[1], math.inf)]


def _open(low: float, high: float) -> Interval | None:
    if math.isnan(low) or math.isnan(high) or low > high:
        return None
    return Interval(low if low > -_HUGE else -math.inf, high if high < _HUGE else math.inf)


def _keeps_rank(node: ir.Node) -> bool:
    """Whether the second operand is small enough not to add axes to the first."""
    first, second = node.inputs[0], node.inputs[1]
    ranks = (None if first is None else rank_of(first), None if second is None else rank_of(second))
    return ranks[0] is not None and ranks[1] is not None and ranks[1] <= ranks[0]


def plain_clips(model: ir.Model) -> bool:
    """Write Min, Max and Clip with constant scalar bounds as Relu, or as Clip with rank-0 bounds; merge two in a row.

    Requires: constants folded, types. Ensures: of floats no Min or Max with one constant scalar; no Clip that is a
    Relu or does nothing; bounds of a Clip are scalars, absent where infinite; no two in a row where the first has one
    reader.
    """
    changed = False
    for node in nodes_of(model, "Relu", "Clip", "Min", "Max"):
        changed |= _constants_second(node)
        limits, source = interval(node), node.inputs[0]
        if limits is None or source is None or source.dtype is None or not source.dtype.is_floating_point():
            continue
        before = producer(source, "Relu", "Clip")
        inner = interval(before) if before is not None else None
        if before is not None and inner is not None and sole_reader(source) is node:
            limits = Interval(_clamp(inner.low, limits), _clamp(inner.high, limits))
            source = before.inputs[0]
        elif _is_plain(node, limits):
            continue
        assert source is not None
        _write(model.graph, node, source, limits)
        changed = True
    return settled(model.graph, changed=changed)


def _constants_second(node: ir.Node) -> bool:
    if node.op_type not in ("Min", "Max") or len(node.inputs) != 2:
        return False
    first, second = node.inputs
    if first is None or second is None or not first.is_initializer() or second.is_initializer():
        return False
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)
    return True


def _clamp(number: float, limits: Interval) -> float:
    return min(max(number, limits.low), limits.high)


def _is_plain(node: ir.Node, limits: Interval) -> bool:
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or limits in ((0.0, math.inf), (-math.inf, math.inf)):
        return False
    return all(
        (value is None) == math.isinf(bound) and (value is None or rank_of(value) == 0)
        for (value, _), bound in zip(_clip_bounds(node), limits, strict=True)
    )


def _write(graph: ir.Graph, node: ir.Node, source: ir.Value, limits: Interval) -> None:
    old = node.outputs[0]
    if limits == (-math.inf, math.inf) and bypass(old, source):
        return
    if limits == (0.0, math.inf):
        take_place(add_node(node, "Relu", [source]), old)
        return
    assert source.dtype is not None
    kind = source.dtype.numpy()
    named = zip(limits, ("min", "max"), strict=True)
    bounds = [
        None if math.isinf(bound) else add_constant(graph, np.array(bound, kind), f"{stem_of(old)}/{name}")
        for bound, name in named
    ]
    take_place(add_node(node, "Clip", [source, *(bounds if bounds[1] is not None else bounds[:1])]), old)


def leaky_relu(model: ir.Model) -> bool:
    """Recognise LeakyRelu in max(x, a x), where(x > 0, x, a x) and PRelu with one slope.

    Requires: `constants_right`, constants folded. Ensures: none of these is left where only it reads a x; a PRelu
    with several slopes stays.
    """
    changed = False
    for node in nodes_of(model, "Max", "Where", "PRelu"):
        found = _LEAKY[node.op_type](node)
        if found is None:
            continue
        source, slope = found
        take_place(add_node(node, "LeakyRelu", [source], {"alpha": slope}), node.outputs[0])
        changed = True
    return settled(model.graph, changed=changed)


def _prelu(node: ir.Node) -> tuple[ir.Value, float] | None:
    source, slopes = node.inputs[0], constant(node.inputs[1])
    if source is None or slopes is None or not slopes.size or not bool((slopes == slopes.flat[0]).all()):
        return None
    return (source, float(slopes.flat[0])) if _keeps_rank(node) else None


def _max(node: ir.Node) -> tuple[ir.Value, float] | None:
    if len(node.inputs) != 2:
        return None
    first, second = node.inputs
    for source, other in ((first, second), (second, first)):
        slope = _slope(source, other, node)
        if source is not None and slope is not None and 0 <= slope <= 1:
            return source, slope
    return None


def _where(node: ir.Node) -> tuple[ir.Value, float] | None:
    test = producer(node.inputs[0], "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    if test is None or scalar(test.inputs[1]) != 0 or len(list(test.outputs[0].uses())) != 1:
        return None
    source = test.inputs[0]
    positive, negative = node.inputs[1], node.inputs[2]
    if test.op_type.startswith("Less"):
        positive, negative = negative, positive
    slope = _slope(source, negative, node)
    return (source, slope) if source is not None and positive is source and slope is not None else None


def _slope(source: ir.Value | None, scaled: ir.Value | None, reader: ir.Node) -> float | None:
    """The number a where `scaled` is a x `source` and only `reader` reads it."""
    node = producer(scaled, "Mul", "Div")
    if node is None or scaled is None or node.inputs[0] is not source or sole_reader(scaled) is not reader:
        return None
    number = scalar(node.inputs[1])
    if number is None or not _keeps_rank(node) or (node.op_type == "Div" and number == 0):
        return None
    return number if node.op_type == "Mul" else 1 / number


_LEAKY = {"Max": _max, "Where": _where, "PRelu": _prelu}
