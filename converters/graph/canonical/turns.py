"""Chains of views and Transposes, as attention writes them, with one Transpose at most.

Axes are cut into atoms, so that each view only groups them anew: then a chain is one order of atoms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_ints,
    constant,
    is_op,
    nodes_of,
    producer,
    readers,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.canonical.reshapes import VIEWS, static_target
from converters.graph.shapes import Dim, factors, multiple

_MOST_AXES = 6

Size = tuple[int, tuple[str, ...]]
"""A number times symbols."""


@dataclass
class Atoms:
    """How the axes of a chain's first tensor are cut, and in which order its last one has them.

    Attributes:
        sizes: of each atom.
        first: atoms in the order of the first tensor.
        last: in that of the last.
    """

    sizes: list[Size] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)

    def cut(self, atom: int, ahead: Size, behind: Size) -> int:
        """Make two of one; returns the second."""
        made = len(self.sizes)
        self.sizes[atom] = ahead
        self.sizes.append(behind)
        for order in (self.first, self.last):
            if atom in order:
                order.insert(order.index(atom) + 1, made)
        return made


def one_transpose(model: ir.Model) -> bool:
    """Write chains of views and Transposes with fewer Transposes, also where a product with weights lies between.

    Requires: shapes. Ensures: of a chain whose tensors have one reader each no more than one Transpose is left, where
    its axes can be cut; a Transpose on one side of a product joins such a chain on the other side.
    """
    changed = False
    for node in nodes_of(model, "Transpose", *VIEWS):
        after = sole_reader(node.outputs[0])
        if after is None or not is_op(after, "Transpose", *VIEWS):
            changed |= _shorten(model.graph, _chain_up(node))
    for node in nodes_of(model, "MatMul"):
        changed |= _rise(model.graph, node)
    for node in nodes_of(model, "Transpose"):
        changed |= _sink(model.graph, node)
    return settled(model.graph, changed=changed)


def _chain_up(node: ir.Node) -> list[ir.Node]:
    """The node and those before it, the first one first."""
    chain = [node]
    while (before := producer(chain[0].inputs[0], "Transpose", *VIEWS)) is not None:
        if sole_reader(before.outputs[0]) is not chain[0]:
            break
        chain.insert(0, before)
    return chain


def _chain_down(node: ir.Node) -> list[ir.Node]:
    chain: list[ir.Node] = []
    after = sole_reader(node.outputs[0])
    while after is not None and is_op(after, "Transpose", *VIEWS):
        chain.append(after)
        after = sole_reader(after.outputs[0])
    return chain


def _turns(chain: Sequence[ir.Node]) -> int:
    return sum(is_op(node, "Transpose") for node in chain)


def _shorten(graph: ir.Graph, chain: list[ir.Node]) -> bool:
    source, out = chain[0].inputs[0], chain[-1].outputs[0]
    atoms = _followed(source, chain) if _turns(chain) > 1 and source is not None else None
    return atoms is not None and source is not None and _write(graph, source, out, atoms)


def _sink(graph: ir.Graph, turn: ir.Node) -> bool:
    """A Transpose before products, into the chains behind each of them."""
    source, value = turn.inputs[0], turn.outputs[0]
    order, products = attribute_ints(turn, "perm", ()), readers(value)
    if source is None or source.shape is None or value.is_graph_output() or not products:
        return False
    if not order or order[-1] != len(order) - 1 or not all(_is_product(node, value) for node in products):
        return False
    found = []
    for node in products:
        chain = _chain_down(node)
        inner = _untransposed(node.outputs[0], order)
        atoms = _followed_from(inner, order, chain) if _turns(chain) and inner is not None else None
        if atoms is None:
            return False
        found.append((node, chain, atoms, inner))
    plans = [_plan(atoms, inner, chain[-1].outputs[0]) for _, chain, atoms, inner in found]
    if any(plan is None for plan in plans):
        return False
    for node, chain, atoms, inner in found:
        made = add_node(chain[-1], "MatMul", [source, node.inputs[1]], stem=stem_of(node.outputs[0]))
        made.shape = ir.Shape(inner or ())
        _write(graph, made, chain[-1].outputs[0], atoms)
    return True


def _rise(graph: ir.Graph, node: ir.Node) -> bool:
    """A Transpose behind a product, into the chain before it."""
    turn, chain = sole_reader(node.outputs[0]), _chain_before(node)
    if turn is None or not is_op(turn, "Transpose") or not _turns(chain) or not _is_product(node, node.inputs[0]):
        return False
    order, source = attribute_ints(turn, "perm", ()), chain[0].inputs[0]
    if not order or order[-1] != len(order) - 1 or source is None or node.inputs[0] is None:
        return False
    atoms, before, out = _followed(source, chain), node.inputs[0], turn.outputs[0]
    if atoms is None or before.shape is None or out.shape is None:
        return False
    turned = _regrouped(atoms, before.shape.dims)
    if turned is None:
        return False
    atoms.last = [atom for axis in order for atom in turned[axis]]
    shape = [before.shape.dims[axis] for axis in order]
    # A placeholder takes the place of the product's operand: `_write` gives it the chain.
    joint = add_node(turn, "Identity", [before], stem=stem_of(before))
    joint.shape = ir.Shape(shape)
    product = add_node(turn, "MatMul", [joint, node.inputs[1]], stem=stem_of(node.outputs[0]))
    if not _write(graph, source, joint, atoms):
        return False
    take_place(product, out)
    return True


def _chain_before(node: ir.Node) -> list[ir.Node]:
    before = producer(node.inputs[0], "Transpose", *VIEWS)
    return _chain_up(before) if before is not None and sole_reader(before.outputs[0]) is node else []


def _is_product(node: ir.Node, value: ir.Value | None) -> bool:
    weights = constant(node.inputs[1]) if is_op(node, "MatMul") else None
    return weights is not None and weights.ndim == 2 and node.inputs[0] is value


def _untransposed(value: ir.Value, order: Sequence[int]) -> list[Dim] | None:
    if value.shape is None:
        return None
    return [value.shape.dims[order.index(axis)] for axis in range(len(order))]


def _followed(source: ir.Value, chain: Sequence[ir.Node]) -> Atoms | None:
    """None where axes cannot be cut so."""
    return None if source.shape is None else _followed_from(list(source.shape.dims), None, chain)


def _followed_from(dims: Sequence[Dim], order: Sequence[int] | None, chain: Sequence[ir.Node]) -> Atoms | None:
    sizes = [_size(dim) for dim in dims]
    if any(size is None for size in sizes):
        return None
    atoms = Atoms([size for size in sizes if size is not None], list(range(len(sizes))), list(range(len(sizes))))
    axes = [[at] for at in range(len(sizes))]
    if order is not None:
        axes = [axes[axis] for axis in order]
        atoms.last = [atom for axis in axes for atom in axis]
    for node in chain:
        shape = node.outputs[0].shape
        if shape is None:
            return None
        if is_op(node, "Transpose"):
            grouped = _regrouped(atoms, node.inputs[0].shape.dims if node.inputs[0] and node.inputs[0].shape else ())
            if grouped is None:
                return None
            turned = attribute_ints(node, "perm", range(len(grouped))[::-1])
            atoms.last = [atom for axis in turned for atom in grouped[axis]]
        elif _regrouped(atoms, shape.dims) is None:
            return None
    return atoms


def _regrouped(atoms: Atoms, dims: Sequence[Dim]) -> list[list[int]] | None:
    """The atoms of each axis, where the tensor in its present order is read with this shape."""
    groups: list[list[int]] = []
    at = 0
    for dim in dims:
        wanted, group = _size(dim), []
        while wanted != _ONE:
            while at < len(atoms.last) and atoms.sizes[atoms.last[at]] == _ONE:
                at += 1
            if wanted is None or at >= len(atoms.last):
                return None
            atom = atoms.last[at]
            rest = _over(wanted, atoms.sizes[atom])
            if rest is None:
                behind = _over(atoms.sizes[atom], wanted)
                if behind is None:
                    return None
                atoms.cut(atom, wanted, behind)
                rest = _ONE
            group.append(atom)
            at += 1
            wanted = rest
        groups.append(group)
    return groups


_ONE: Size = (1, ())


def _size(dim: Dim) -> Size | None:
    count, symbol = factors(dim)
    return None if symbol == "" or not count else (count, () if symbol is None else (symbol,))


def _over(one: Size, other: Size) -> Size | None:
    left = list(one[1])
    for symbol in other[1]:
        if symbol not in left:
            return None
        left.remove(symbol)
    return None if one[0] % other[0] else (one[0] // other[0], tuple(left))


@dataclass(frozen=True)
class _Plan:
    cut: list[int] | None
    order: list[int]
    shape: list[Dim]
    target: list[int] | None


def _plan(atoms: Atoms, source: Sequence[Dim] | None, out: ir.Value) -> _Plan | None:
    """Reshape to runs of atoms that stay together, one Transpose of these, Reshape; None where one cannot be said."""
    if source is None or out.shape is None:
        return None
    first = [atom for atom in atoms.first if atoms.sizes[atom] != _ONE]
    last = [atom for atom in atoms.last if atoms.sizes[atom] != _ONE]
    runs: list[list[int]] = []
    for atom in first:
        behind = runs and last.index(atom) == last.index(runs[-1][-1]) + 1
        if behind:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    if len(runs) > _MOST_AXES:
        return None
    sizes = [_dim([atoms.sizes[atom] for atom in run]) for run in runs]
    order = sorted(range(len(runs)), key=lambda at: last.index(runs[at][0]))
    if any(size is None for size in sizes):
        return None
    dims = [size for size in sizes if size is not None]
    turned = [dims[at] for at in order]
    cut, target = _target(dims, source), _target(out.shape.dims, turned)
    ways_fail = (not _alike(dims, source) and cut is None) or (not _alike(turned, out.shape.dims) and target is None)
    return None if ways_fail else _Plan(cut, order, dims, target)


def _alike(one: Sequence[Dim], other: Sequence[Dim]) -> bool:
    return [_size(dim) for dim in one] == [_size(dim) for dim in other]


def _target(dims: Sequence[Dim], source: Sequence[Dim]) -> list[int] | None:
    value = ir.Value(shape=ir.Shape(list(source)))
    return static_target(tuple(dims), value)


def _dim(sizes: Sequence[Size]) -> Dim | None:
    count, symbols = 1, list[str]()
    for number, names in sizes:
        count *= number
        symbols += names
    return multiple(count, symbols[0] if symbols else None) if len(symbols) < 2 else None


def _write(graph: ir.Graph, source: ir.Value, out: ir.Value, atoms: Atoms) -> bool:
    plan = _plan(atoms, None if source.shape is None else source.shape.dims, out)
    node = out.producer()
    if plan is None or node is None or source.shape is None or out.shape is None:
        return False
    stem, made = stem_of(out), source
    if not _alike(plan.shape, source.shape.dims):
        cut = add_constant(graph, np.array(plan.cut, np.int64), f"{stem}/atoms")
        made = add_node(node, "Reshape", [made, cut], stem=f"{stem}/cut")
        made.shape = ir.Shape(plan.shape)
    if plan.order != sorted(plan.order):
        made = add_node(node, "Transpose", [made], {"perm": plan.order}, stem=f"{stem}/turned")
        made.shape = ir.Shape([plan.shape[at] for at in plan.order])
    turned = [plan.shape[at] for at in plan.order]
    if not _alike(turned, out.shape.dims) or made is source:
        shape = add_constant(graph, np.array(_target(out.shape.dims, turned), np.int64), f"{stem}/shape")
        made = add_node(node, "Reshape", [made, shape], stem=f"{stem}/view")
    take_place(made, out)
    return True
