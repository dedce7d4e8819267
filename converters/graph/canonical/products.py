"""Products that hide in other operators: Einsum of two tensors, and a Transpose before a flattened input."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_ints,
    attribute_string,
    constant,
    nodes_of,
    producer,
    settled,
    stem_of,
    take_place,
)
from converters.graph.canonical.reshapes import static_target
from converters.graph.shapes import Dim, factors, multiple, rank_of


class _Letters(NamedTuple):
    """The axes of a product: in both and kept, in the left alone, summed over, in the right alone."""

    left: str
    right: str
    out: str
    batch: str
    rows: str
    summed: str
    columns: str


def einsum_to_matmul(model: ir.Model) -> bool:
    """Write Einsum of two tensors as MatMul with the Transposes and Reshapes that it takes.

    Requires: shapes. Ensures: no Einsum of two operands without ellipsis, repeated axes in one operand or sums over
    an axis of one operand alone, where at most one axis of each tensor in it is open.
    """
    changed = False
    for node in nodes_of(model, "Einsum"):
        letters = _parse(attribute_string(node, "equation", "")) if len(node.inputs) == 2 else None
        if letters is not None and _expand(model.graph, node, letters):
            changed = True
    return settled(model.graph, changed=changed)


def _parse(equation: str) -> _Letters | None:
    text = equation.replace(" ", "")
    left_side, arrow, out = text.partition("->")
    left, comma, right = left_side.partition(",")
    if not comma or not arrow or not (left + right + out).isalpha():
        return None
    if any(len(set(part)) < len(part) for part in (left, right, out)):
        return None
    summed = "".join(name for name in left if name in right and name not in out)
    rows = "".join(name for name in left if name not in right)
    columns = "".join(name for name in right if name not in left)
    batch = "".join(name for name in left if name in right and name in out)
    if not summed or set(rows + columns + batch) != set(out):
        return None
    return _Letters(left, right, out, batch, rows, summed, columns)


def _expand(graph: ir.Graph, node: ir.Node, names: _Letters) -> bool:
    first, second = node.inputs
    if first is None or second is None or first.shape is None or second.shape is None:
        return False
    if len(first.shape) != len(names.left) or len(second.shape) != len(names.right):
        return False
    sizes: dict[str, Dim] = {**dict(zip(names.right, second.shape, strict=True))}
    sizes |= dict(zip(names.left, first.shape, strict=True))
    # Without a batch the rows may stay apart: MatMul takes any number of leading axes.
    row_groups = [names.rows] if names.batch else list(names.rows)
    shapes = [
        _grouped(sizes, [*names.batch, *row_groups, names.summed]),
        _grouped(sizes, [*names.batch, names.summed, names.columns]),
        _grouped(sizes, list(names.batch + names.rows + names.columns)),
    ]
    if any(shape is None or sum(not isinstance(size, int) for size in shape) > 1 for shape in shapes):
        return False
    stem = stem_of(node.outputs[0])
    left = _laid_out(graph, node, first, names.left, names.batch + names.rows + names.summed, shapes[0] or [])
    right = _laid_out(graph, node, second, names.right, names.batch + names.summed + names.columns, shapes[1] or [])
    product = add_node(node, "MatMul", [left, right], stem=f"{stem}/product")
    natural = names.batch + names.rows + names.columns
    made = _reshape(graph, node, product, shapes[2] or [])
    perm = [natural.index(name) for name in names.out]
    take_place(add_node(node, "Transpose", [made], {"perm": perm}), node.outputs[0])
    return True


def _grouped(sizes: Mapping[str, Dim], groups: Sequence[str]) -> list[Dim] | None:
    """The size of each group of axes; None where a product has two open axes."""
    made: list[Dim] = []
    for group in groups:
        count, symbol = 1, None
        for name in group:
            number, other = factors(sizes[name])
            if other is not None and symbol is not None:
                return None
            count, symbol = count * number, symbol if other is None else other
        made.append(multiple(count, symbol))
    return made


def _laid_out(  # noqa: PLR0917
    graph: ir.Graph, node: ir.Node, value: ir.Value, names: str, wanted: str, shape: Sequence[Dim]
) -> ir.Value:
    stem = f"{stem_of(node.outputs[0])}/operand"
    if names != wanted:
        perm = [names.index(name) for name in wanted]
        value = add_node(node, "Transpose", [value], {"perm": perm}, stem=stem)
    return value if len(shape) == len(wanted) else _reshape(graph, node, value, shape)


def _reshape(graph: ir.Graph, node: ir.Node, value: ir.Value, shape: Sequence[Dim]) -> ir.Value:
    stem = f"{stem_of(node.outputs[0])}/reshaped"
    target = [size if isinstance(size, int) else -1 for size in shape]
    made = add_node(
        node, "Reshape", [value, add_constant(graph, np.array(target, np.int64), f"{stem}/shape")], stem=stem
    )
    made.shape = ir.Shape(shape)
    return made


def absorb_flattened_transpose(model: ir.Model) -> bool:
    """Order the weights' rows as the tensor lies before the Transpose that comes before flattening.

    Requires: `plain_gemm`, shapes. Ensures: no Gemm whose input flattens a Transpose that keeps the batch first.
    """
    changed = False
    for node in nodes_of(model, "Gemm"):
        view = producer(node.inputs[0], "Reshape", "Flatten")
        turn = producer(view.inputs[0], "Transpose") if view is not None else None
        weight = constant(node.inputs[1])
        if view is None or turn is None or weight is None or turn.inputs[0] is None or node.attributes:
            continue
        rank = rank_of(turn.outputs[0]) or 0
        perm = attribute_ints(turn, "perm", range(rank)[::-1])
        shape, flat = turn.outputs[0].shape, view.outputs[0].shape
        if shape is None or flat is None or perm[:1] != [0] or len(flat) != 2 or flat[1] != weight.shape[0]:
            continue
        tail = [size for size in shape.dims[1:] if isinstance(size, int)]
        target = static_target(flat.dims, turn.inputs[0])
        if len(tail) != rank - 1 or int(np.prod(tail)) != weight.shape[0] or target is None:
            continue
        back = [perm.index(axis) - 1 for axis in range(1, rank)]
        rows = weight.reshape(*tail, -1).transpose(*back, rank - 1).reshape(weight.shape)
        stem = stem_of(view.outputs[0])
        to = add_constant(model.graph, np.array(target, np.int64), f"{stem}/shape")
        reshaped = add_node(node, "Reshape", [turn.inputs[0], to], name=view.name, stem=f"{stem}/stored")
        stem = stem_of(node.inputs[1]) if node.inputs[1] is not None else stem
        take_place(
            add_node(node, "Gemm", [reshaped, add_constant(model.graph, rows, stem), *node.inputs[2:]]),
            node.outputs[0],
        )
        changed = True
    return settled(model.graph, changed=changed)
