"""Smooth activations known by their formula: HardSigmoid, HardSwish, Gelu. Swish stays Mul(x, Sigmoid(x))."""

import math
from collections.abc import Iterator

import onnx_ir as ir

from converters.graph.canonical.algebra import (
    Terms,
    cone,
    equal_terms,
    expand,
    formulas_above,
    is_closed,
    tolerance,
)
from converters.graph.canonical.clips import interval
from converters.graph.canonical.edit import (
    Attribute,
    add_node,
    attribute_float,
    nodes_of,
    settled,
    take_place,
)
from converters.graph.shapes import rank_of

_X, _T = 0, 1
_GELU: Terms = {(_X,): 0.5, (_X, _T): 0.5}
_ERF: Terms = {(_X,): 1 / math.sqrt(2)}
_TANH: Terms = {(_X,): math.sqrt(2 / math.pi), (_X, _X, _X): 0.044715 * math.sqrt(2 / math.pi)}


def gelu(model: ir.Model) -> bool:
    """Recognise Gelu: 0.5 x (1 + erf(x / sqrt 2)), and 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016. Any order of the same sums, products, quotients
    and whole powers is known.

    Requires: constants folded. Ensures: no such formula, unless something else reads a part of it.
    """
    changed = False
    for node in nodes_of(model, "Erf", "Tanh"):
        inner, kind = (_ERF, "none") if node.op_type == "Erf" else (_TANH, "tanh")
        changed |= _replace_formula(node, inner, _GELU, "Gelu", {"approximate": kind})
    return settled(model.graph, changed=changed)


def hard_swish(model: ir.Model) -> bool:
    """Recognise HardSwish: x clip(x + 3, 0, 6) / 6, in any order, and x HardSigmoid(x) with alpha 1/6 and beta 1/2.

    Source: Howard et al., Searching for MobileNetV3, 2019.

    Requires: `plain_clips`. Ensures: no such formula, unless something else reads a part of it.
    """
    changed = False
    for node in nodes_of(model, "Clip", "HardSigmoid"):
        if node.op_type == "Clip" and interval(node) == (0.0, 6.0):
            changed |= _replace_formula(node, {(_X,): 1.0, (): 3.0}, {(_X, _T): 1 / 6}, "HardSwish", {})
        elif node.op_type == "HardSigmoid" and _is_sixth(node):
            changed |= _replace_formula(node, {(_X,): 1.0}, {(_X, _T): 1.0}, "HardSwish", {})
    return settled(model.graph, changed=changed)


def _is_sixth(node: ir.Node) -> bool:
    slope, offset = attribute_float(node, "alpha", 0.2), attribute_float(node, "beta", 0.5)
    return math.isclose(slope, 1 / 6, rel_tol=tolerance(node.outputs[0])) and offset == 0.5


def _replace_formula(node: ir.Node, inner: Terms, outer: Terms, op_type: str, attributes: dict[str, Attribute]) -> bool:
    """Replace outer(x, t), t = node(inner(x)), by one operator on x."""
    made, source = node.outputs[0], node.inputs[0]
    if source is None:
        return False
    for x, below in _arguments(source, inner):
        for root in formulas_above(made):
            found = expand(root, [x, made])
            if found is None or not equal_terms(found.terms, outer, tolerance(root)):
                continue
            anchor = root.producer()
            if anchor is not None and _may_replace({*found.inside, *below, node}, x, root):
                take_place(add_node(anchor, op_type, [x], attributes), root)
                return True
    return False


def _may_replace(inside: set[ir.Node], x: ir.Value, root: ir.Value) -> bool:
    """Whether nobody reads a part of the formula, and no constant in it adds axes to x."""
    return is_closed(inside, root) and rank_of(x) is not None and rank_of(x) == rank_of(root)


def _arguments(value: ir.Value, inner: Terms) -> Iterator[tuple[ir.Value, frozenset[ir.Node]]]:
    """Every x that `value` is the polynomial `inner` of, with the nodes between."""
    for x in list(cone(value)):
        found = expand(value, [x])
        if found is not None and equal_terms(found.terms, inner, tolerance(value)):
            yield x, found.inside


def hard_sigmoid(model: ir.Model) -> bool:
    """Recognise HardSigmoid: clip(a x + b, 0, h) / h, as HardSigmoid(alpha = a / h, beta = b / h).

    Source: ONNX operators, HardSigmoid: max(0, min(1, alpha x + beta)).

    Requires: `plain_clips`, and `hard_swish` before it. Ensures: no such formula with b other than 0 and scalar
    constants, unless something else reads a part of it; a Clip to [0, 1] alone stays.
    """
    changed = False
    for node in nodes_of(model, "Clip"):
        limits, source = interval(node), node.inputs[0]
        if limits is None or source is None or limits.low != 0 or math.isinf(limits.high) or limits.high <= 0:
            continue
        changed |= _write_hard_sigmoid(node, source, limits.high)
    return settled(model.graph, changed=changed)


def _write_hard_sigmoid(node: ir.Node, source: ir.Value, high: float) -> bool:
    roots = [node.outputs[0], *formulas_above(node.outputs[0], steps=2)]
    for x in reversed(list(cone(source, depth=3))[1:]):
        inner = expand(source, [x])
        if inner is None or set(inner.terms) != {(_X,), ()}:
            continue
        for root in roots:
            outer = expand(root, [node.outputs[0]])
            anchor = root.producer()
            if outer is None or anchor is None or not equal_terms(outer.terms, {(0,): 1 / high}, tolerance(root)):
                continue
            if _may_replace({*inner.inside, *outer.inside, node}, x, root):
                slopes = {"alpha": inner.terms[(_X,)] / high, "beta": inner.terms[()] / high}
                take_place(add_node(anchor, "HardSigmoid", [x], slopes), root)
                return True
    return False
