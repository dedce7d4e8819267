"""Arithmetic read as a polynomial, so that a formula is known by what it computes and not by how it was spelled."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from converters.graph.canonical.edit import is_op, producer, scalar, sole_reader

_DEGREE = 4
_TERMS = 16
_DEPTH = 12
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Neg", "Pow")

Terms = dict[tuple[int, ...], float]
"""Coefficients by the atoms that are multiplied, as sorted positions: {(0, 0): 2.0} is 2 x atom 0 squared."""


class Polynomial(NamedTuple):
    """A value as a polynomial in given atoms, and the nodes between it and them."""

    terms: Terms
    inside: frozenset[ir.Node]


def expand(value: ir.Value, atoms: Sequence[ir.Value]) -> Polynomial | None:
    """Read `value` as a polynomial in `atoms` with constant coefficients; None where it is none, or a large one."""
    known: dict[ir.Value, Polynomial | None] = {
        atom: Polynomial({(index,): 1.0}, frozenset()) for index, atom in reversed(list(enumerate(atoms)))
    }
    return _expanded(value, known, _DEPTH)


def _expanded(value: ir.Value, known: dict[ir.Value, Polynomial | None], depth: int) -> Polynomial | None:
    """Each value is read once: a chain that doubles at every step stays linear."""
    if value not in known:
        known[value] = _read(value, known, depth)
    return known[value]


def _read(value: ir.Value, known: dict[ir.Value, Polynomial | None], depth: int) -> Polynomial | None:
    number = scalar(value)
    if number is not None:
        return Polynomial({(): number}, frozenset())
    node = producer(value, *_ARITHMETIC)
    if node is None or depth == 0:
        return None
    parts: list[Polynomial] = []
    for item in node.inputs:
        part = None if item is None else _expanded(item, known, depth - 1)
        if part is None:
            return None
        parts.append(part)
    terms = _combine(node, [part.terms for part in parts])
    if terms is None or len(terms) > _TERMS:
        return None
    return Polynomial(terms, frozenset({node}).union(*(part.inside for part in parts)))


def _combine(node: ir.Node, parts: list[Terms]) -> Terms | None:
    return _RULES[node.op_type](parts[0], parts[-1])


def _over(first: Terms, second: Terms) -> Terms | None:
    divisor = second.get((), 0.0) if set(second) <= {()} else 0.0
    return _scaled(first, 1 / divisor) if divisor else None


def _power(first: Terms, second: Terms) -> Terms | None:
    exponent = second.get((), 0.0) if set(second) <= {()} else 0.0
    if exponent not in (2.0, 3.0, 4.0):
        return None
    made: Terms | None = first
    for _ in range(int(exponent) - 1):
        made = None if made is None else _times(made, first)
    return made


def _scaled(terms: Terms, factor: float) -> Terms:
    return {key: number * factor for key, number in terms.items()}


def _sum(first: Terms, second: Terms) -> Terms:
    made = dict(first)
    for key, number in second.items():
        made[key] = made.get(key, 0.0) + number
    return made


def _times(first: Terms, second: Terms) -> Terms | None:
    made: Terms = {}
    for one, left in first.items():
        for other, right in second.items():
            key = tuple(sorted(one + other))
            if len(key) > _DEGREE:
                return None
            made[key] = made.get(key, 0.0) + left * right
    return made if len(made) <= _TERMS else None


_RULES: dict[str, Callable[[Terms, Terms], Terms | None]] = {
    "Add": _sum,
    "Sub": lambda first, second: _sum(first, _scaled(second, -1.0)),
    "Mul": _times,
    "Div": _over,
    "Neg": lambda first, _: _scaled(first, -1.0),
    "Pow": _power,
}


def equal_terms(found: Mapping[tuple[int, ...], float], wanted: Mapping[tuple[int, ...], float], rel: float) -> bool:
    """Whether the coefficients agree within `rel` of each one's size; an absent one is zero."""
    largest = max((abs(number) for number in wanted.values()), default=0.0)
    for key in {*found, *wanted}:
        one, other = found.get(key, 0.0), wanted.get(key, 0.0)
        if not math.isclose(one, other, rel_tol=rel, abs_tol=rel * largest if not other else 0.0):
            return False
    return True


def tolerance(value: ir.Value) -> float:
    """How far a coefficient may be from the formula's: rounding in the value's own type, no more."""
    return 1e-5 if value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) else 2e-3


def formulas_above(value: ir.Value, *, steps: int = 5) -> Iterator[ir.Value]:
    """The values that arithmetic makes of `value`, one after another, as long as each has one reader."""
    for _ in range(steps):
        node = sole_reader(value)
        if node is None or not is_op(node, *_ARITHMETIC):
            return
        value = node.outputs[0]
        yield value


def cone(value: ir.Value, *, depth: int = 6) -> Iterator[ir.Value]:
    """`value` and what arithmetic makes it of, nearest first, each once; constants are left out."""
    level, seen = [value], {value}
    for _ in range(depth):
        below: list[ir.Value] = []
        for item in level:
            yield item
            node = producer(item, *_ARITHMETIC)
            for source in node.inputs if node is not None else ():
                if source is not None and source not in seen and not source.is_initializer():
                    seen.add(source)
                    below.append(source)
        level = below


def is_closed(inside: Collection[ir.Node], root: ir.Value) -> bool:
    """Whether nobody but these nodes reads what they make, the root apart: then all of them may go."""
    return all(
        out is root or (not out.is_graph_output() and all(usage.node in inside for usage in out.uses()))
        for node in inside
        for out in node.outputs
    )
