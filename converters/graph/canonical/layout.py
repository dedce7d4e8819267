"""Where Transposes are: a plan of the axis order that each tensor is kept in, made before anything is rewritten.

A layout L of a value says how its axes lie in the tensor that is stored: axis i of the value is axis L[i] of the
stored one. A Transpose only renames axes. Elementwise operators, reductions, Concat, Split, Pad and Slice work in any
layout; every other operator, a body and a graph output want the identity, and a Transpose is made where a tensor lies
otherwise. The plan follows the graph forward; where operands disagree, both choices are tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from converters.graph.canonical.edit import attribute_int, attribute_ints, ints, is_constant, is_op
from converters.graph.canonical.operators import BINARY, REDUCTIONS, UNARY
from converters.graph.canonical.reshapes import moves_nothing
from converters.graph.shapes import Dim, dims_equal, factors, rank_of

Layout = tuple[int, ...]

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MAX_TRIES = 24
"""Disagreements whose other choice is tried; each try plans the whole graph again (milliseconds)."""
_MAX_VISITS = 8192
"""Nodes that all tries together may visit: large graphs get fewer."""


@dataclass
class Plan:
    """The layout of every value that has another than the identity, and what that costs.

    Attributes:
        layouts: of values kept in another order than their own.
        working: per node, the layout that it works in.
        moves: (value, layout) pairs for which a Transpose is needed.
        ties: nodes whose operands disagreed at equal cost.
        views: those that a Reshape does, because only axes of size 1 change places.
        joined: elementwise operators that directly follow a linear one, and may be folded into it.
    """

    layouts: dict[ir.Value, Layout] = field(default_factory=dict)
    working: dict[ir.Node, Layout] = field(default_factory=dict)
    moves: set[tuple[ir.Value, Layout]] = field(default_factory=set)
    views: set[tuple[ir.Value, Layout]] = field(default_factory=set)
    ties: list[ir.Node] = field(default_factory=list)
    joined: int = 0

    @property
    def cost(self) -> tuple[int, int, int]:
        return len(self.moves), -self.joined, len(self.views)


def identity(rank: int) -> Layout:
    return tuple(range(rank))


def current_cost(graph: ir.Graph) -> tuple[int, int, int]:
    """The cost of the graph as it stands, in the measure of `Plan.cost`."""
    transposes = joined = views = 0
    for node in graph:
        perm, source = renaming(node), node.inputs[0] if node.inputs else None
        known = perm is not None and source is not None and source.shape is not None
        free = known and moves_nothing(perm or [], source.shape.dims if source and source.shape else ())
        transposes += is_op(node, "Transpose") and not free
        views += free
        joined += _joins(node, [value.producer() if value is not None else None for value in node.inputs])
    return transposes, -joined, views


def _joins(node: ir.Node, makers: Sequence[ir.Node | None]) -> bool:
    return is_op(node, *UNARY, *BINARY) and any(is_op(maker, *_LINEAR) for maker in makers)


def permutation(node: ir.Node) -> list[int]:
    rank = rank_of(node.inputs[0]) if node.inputs[0] is not None else None
    return attribute_ints(node, "perm", range(rank or 0)[::-1])


def renaming(node: ir.Node) -> list[int] | None:
    """The perm of a Transpose, or of a Reshape that only changes the places of axes of size 1; else None."""
    source = node.inputs[0] if node.inputs else None
    if source is None or source.shape is None:
        return None
    if is_op(node, "Transpose"):
        return permutation(node)
    out = node.outputs[0].shape
    if not is_op(node, "Reshape") or out is None or len(out) != len(source.shape):
        return None
    (long, short), (long_out, short_out) = _by_size(source.shape.dims), _by_size(out.dims)
    if not dims_equal([source.shape[axis] for axis in long], [out[axis] for axis in long_out]):
        return None
    perm = dict(zip([*long_out, *short_out], [*long, *short], strict=True))
    return [perm[axis] for axis in range(len(perm))]


def _by_size(dims: Sequence[Dim]) -> tuple[list[int], list[int]]:
    """The axes longer than 1, and those of size 1."""
    short = [axis for axis, size in enumerate(dims) if factors(size) == (1, None)]
    return [axis for axis in range(len(dims)) if axis not in short], short


def best_plan(graph: ir.Graph) -> Plan:
    """The cheapest plan found: either choice at every disagreement, then each one flipped."""
    plans = [_Planner(graph, eager=eager, flipped=frozenset()).run() for eager in (True, False)]
    eager = plans[0].cost <= plans[1].cost
    best = plans[0] if eager else plans[1]
    flipped: frozenset[ir.Node] = frozenset()
    for node in best.ties[: min(_MAX_TRIES, _MAX_VISITS // max(1, len(graph)))]:
        tried = _Planner(graph, eager=eager, flipped=flipped | {node}).run()
        if tried.cost < best.cost:
            best, flipped = tried, flipped | {node}
    return best


class _Planner:
    """One walk over the graph."""

    def __init__(self, graph: ir.Graph, *, eager: bool, flipped: frozenset[ir.Node]) -> None:
        self._graph = graph
        self._eager = eager
        self._flipped = flipped
        self._plan = Plan()
        self._makers: dict[ir.Value, ir.Node | None] = {}

    def run(self) -> Plan:
        for node in self._graph:
            self._visit(node)
            for output in node.outputs:
                elsewhere = any(usage.node.graph is not self._graph for usage in output.uses())
                if output.is_graph_output() or elsewhere:
                    self._need(output, identity(rank_of(output) or 0))
        return self._plan

    def _visit(self, node: ir.Node) -> None:
        layout = self._layout_of(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
        perm = renaming(node)
        if perm is not None and layout is not None:
            out = node.outputs[0]
            self._set(out, tuple(layout[axis] for axis in perm))
            self._makers[out] = self._maker(node.inputs[0])
            return
        working = self._working(node)
        self._plan.joined += _joins(node, [self._neighbour(value, working) for value in node.inputs])
        if working is None:
            for value in node.inputs:
                if value is not None and value in self._plan.layouts:
                    self._need(value, identity(len(self._plan.layouts[value])))
            return
        for value in full_operands(node):
            self._need(value, working)
        self._plan.working[node] = working
        for output in node.outputs:
            self._set(output, output_layout(node, working))

    def _neighbour(self, value: ir.Value | None, working: Layout | None) -> ir.Node | None:
        """The node that makes an operand, where the operand is read as it is stored."""
        own = self._layout_of(value) if value is not None else None
        return self._maker(value) if own is not None and own == (working or identity(len(own))) else None

    def _maker(self, value: ir.Value | None) -> ir.Node | None:
        return None if value is None else self._makers.get(value, value.producer())

    def _set(self, value: ir.Value, layout: Layout) -> None:
        if layout != identity(len(layout)):
            self._plan.layouts[value] = layout

    def _layout_of(self, value: ir.Value) -> Layout | None:
        rank = rank_of(value)
        return None if rank is None else self._plan.layouts.get(value, identity(rank))

    def _need(self, value: ir.Value, layout: Layout) -> None:
        if self._price(value, layout):
            self._plan.moves.add((value, layout))
        elif self._layout_of(value) not in (None, layout):
            self._plan.views.add((value, layout))

    def _price(self, value: ir.Value, layout: Layout) -> int:
        """1 where a Transpose that is not there yet would have to be made."""
        own = self._layout_of(value)
        if own is None or own == layout or (value, layout) in self._plan.moves or value.shape is None:
            return 0
        return int(not moves_nothing(movement(own, layout), stored_dims(value.shape.dims, own)))

    def _working(self, node: ir.Node) -> Layout | None:
        """The layout other than the identity that the node shall work in; None for the identity."""
        if not is_flexible(node):
            return None
        operands = full_operands(node)
        found = [self._layout_of(value) for value in operands]
        options = sorted({layout for layout in found if layout is not None and accepts(node, layout)}, reverse=True)
        if not options or None in found:
            return None
        own = identity(len(options[0]))
        prices = {option: sum(self._price(value, option) for value in operands) for option in [*options, own]}
        least = min(prices.values())
        cheapest = [option for option in prices if prices[option] == least]
        moved = [option for option in cheapest if option != own]
        if own in cheapest and moved:
            self._plan.ties.append(node)
            if self._eager == (node in self._flipped):
                return None
        return moved[0] if moved else None


def movement(own: Layout, wanted: Layout) -> list[int]:
    """The perm that takes a tensor stored in layout `own` to layout `wanted`."""
    perm = [0] * len(own)
    for axis, place in enumerate(wanted):
        perm[place] = own[axis]
    return perm


def stored_dims(dims: Sequence[Dim], layout: Layout) -> tuple[Dim, ...]:
    """The shape of the stored tensor of a value of shape `dims`."""
    made: list[Dim] = list(dims)
    for axis, place in enumerate(layout):
        made[place] = dims[axis]
    return tuple(made)


def full_operands(node: ir.Node) -> list[ir.Value]:
    """The inputs that are kept in the node's layout: no constants, no single numbers, no axes or bounds."""
    if not is_op(node, "Concat", *BINARY):
        return [value for value in node.inputs[:1] if value is not None]
    return [value for value in node.inputs if value is not None and not is_constant(value) and not _is_number(value)]


def _is_number(value: ir.Value) -> bool:
    return value.shape is not None and all(factors(size) == (1, None) for size in value.shape.dims)


def is_flexible(node: ir.Node) -> bool:
    """Whether the node can work in some other layout at all: ranks and axes are known."""
    rank = rank_of(node.outputs[0]) if node.outputs else None
    if rank is None or any(rank_of(output) is None for output in node.outputs):
        return False
    if is_op(node, "Split", "Softmax", "LogSoftmax", *UNARY):
        return True
    if is_op(node, "Concat", *BINARY):
        numbers = [value for value in node.inputs if value is not None and _is_number(value)]
        return all(rank_of(value) == rank for value in full_operands(node)) and all(
            (rank_of(value) or 0) <= rank for value in numbers
        )
    if is_op(node, "LayerNormalization"):
        return len(node.outputs) == 1 and attribute_int(node, "axis", -1) in (-1, rank - 1)
    return is_op(node, "Pad", "Slice", "Squeeze", *REDUCTIONS) and moved_axes(node) is not None


def moved_axes(node: ir.Node) -> list[int] | None:
    """The axes that Pad, Slice, Squeeze or a reduction works on, counted from 0; None where they are computed."""
    rank = rank_of(node.inputs[0]) if node.inputs[0] is not None else None
    place = {"Pad": 3, "Slice": 3}.get(node.op_type, 1)
    given = node.inputs[place] if len(node.inputs) > place else None
    if rank is None or any(value is not None and not is_constant(value) for value in node.inputs[1:]):
        return None
    if given is None:
        if not is_op(node, "Pad", "Slice"):
            return None
        first = ints(node.inputs[1])
        count = rank if is_op(node, "Pad") or first is None else len(first)
        return list(range(count))
    axes = ints(given)
    return None if axes is None else [axis % rank for axis in axes]


def accepts(node: ir.Node, layout: Layout) -> bool:
    """Whether the node can work in this very layout: Softmax and layer norm want their axis last."""
    last = len(layout) - 1
    if is_op(node, "Softmax", "LogSoftmax"):
        return layout[attribute_int(node, "axis", -1)] == last
    return not is_op(node, "LayerNormalization") or layout[last] == last


def output_layout(node: ir.Node, layout: Layout) -> Layout:
    """The layout of the outputs of a node that works in `layout`: the same, or what is left when axes go."""
    gone = is_op(node, "Squeeze") or (is_op(node, *REDUCTIONS) and not attribute_int(node, "keepdims", 1))
    if not gone:
        return layout
    axes = set(moved_axes(node) or [])
    left = [place for axis, place in enumerate(layout) if axis not in axes]
    return tuple(sorted(left).index(place) for place in left)
