"""Arithmetic on shapes: what Shape, Gather, Concat and their kin compute is known, but for the batch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Array,
    add_constant,
    attribute_int,
    bypass,
    constant,
    ints,
    is_constant,
    is_op,
    nodes_of,
    settled,
    stem_of,
)
from converters.graph.canonical.infer import reshaped
from converters.graph.shapes import Dim, dims_equal, factors, multiple, static_shape

_LONGEST = 64


class Row(NamedTuple):
    """The entries of an integer tensor of rank 0 or 1: numbers, and symbols for sizes that are open."""

    entries: tuple[Dim, ...]
    is_scalar: bool


Rows = dict[ir.Value, Row]


def fold_sizes(model: ir.Model) -> bool:
    """Replace computed shapes by constants.

    Requires: shapes of the main graph. Ensures: a value computed from shapes whose entries are all known is a constant;
    a Reshape target with at most one open entry is a constant with -1 (and 0 where an open axis is kept); an Expand to
    the shape that its input has is gone; a Resize to computed sizes has scales, where they give these sizes.
    """
    rows: Rows = {}
    changed = False
    for node in list(model.graph):
        row = _row(node, rows)
        if row is None or len(row.entries) > _LONGEST:
            continue
        output = node.outputs[0]
        if all(isinstance(entry, int) for entry in row.entries) and not output.is_graph_output():
            changed |= bypass(output, _constant(model.graph, row, output))
        elif output.dtype != ir.DataType.BOOL:
            rows[output] = row
    changed |= _fix_targets(model, rows)
    for node in nodes_of(model, "Resize"):
        changed |= _fix_resize(model.graph, node, rows)
    return settled(model.graph, changed=changed)


def _constant(graph: ir.Graph, row: Row, output: ir.Value) -> ir.Value:
    kinds = {ir.DataType.INT32: np.int32, ir.DataType.BOOL: np.bool_}
    array: Array = np.array(row.entries, np.int64).astype(kinds.get(output.dtype or ir.DataType.INT64, np.int64))
    return add_constant(graph, array.reshape(()) if row.is_scalar else array, stem_of(output))


def _fix_targets(model: ir.Model, rows: Rows) -> bool:
    changed = False
    for node in nodes_of(model, "Reshape", "Expand"):
        source, target = node.inputs[0], node.inputs[1]
        row = rows.get(target) if target is not None else None
        if source is None or row is None:
            continue
        if node.op_type == "Expand":
            same = source.shape is not None and dims_equal(source.shape.dims, row.entries)
            changed |= same and bypass(node.outputs[0], source)
            changed |= _describe_expand(node.outputs[0], source, row)
            continue
        fixed = _target(row.entries, source)
        if fixed is not None and attribute_int(node, "allowzero", 0) == 0:
            node.replace_input_with(
                1, add_constant(model.graph, np.array(fixed, np.int64), f"{stem_of(node.outputs[0])}/shape")
            )
            changed = True
    return changed


def _fix_resize(graph: ir.Graph, node: ir.Node, rows: Rows) -> bool:
    """Scales in place of sizes: what it reads need not be computed then, and open axes stay as they are."""
    source, row = node.inputs[0], rows.get(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
    if source is None or source.shape is None or row is None or not _stretches(node):
        return False
    axes = node.attributes.get_ints("axes", range(len(source.shape)))
    pairs = [(source.shape.dims[axis], entry) for axis, entry in zip(axes, row.entries, strict=True)]
    scales = [_scale(size, wanted) for size, wanted in pairs]
    if any(scale is None for scale in scales):
        return False
    node.replace_input_with(2, add_constant(graph, np.array(scales, np.float32), f"{stem_of(node.outputs[0])}/scales"))
    node.replace_input_with(3, None)
    return True


def _stretches(node: ir.Node) -> bool:
    """Whether each axis goes from its size to the one asked for, on its own and whole."""
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    return policy == "stretch" and mode != "tf_crop_and_resize"


def _scale(size: Dim, wanted: Dim) -> np.float32 | None:
    """What gives the size, however a runtime multiplies and rounds down; None where a float32 does not."""
    if dims_equal([size], [wanted]):
        return np.float32(1)
    if not isinstance(size, int) or not isinstance(wanted, int) or size < 1:
        return None
    scale = np.float32(wanted / size)
    return scale if int(np.float32(size) * scale) == int(size * float(scale)) == wanted else None


def _describe_expand(output: ir.Value, source: ir.Value, row: Row) -> bool:
    """Broadcast the shapes, where it is certain: a size beside 1 wins, and so does one that equals its partner.

    Returns whether the output had another shape.
    """
    if source.shape is None:
        return False
    rank = max(len(source.shape), len(row.entries))
    first = (1,) * (rank - len(source.shape)) + tuple(source.shape.dims)
    second = (1,) * (rank - len(row.entries)) + row.entries
    dims: list[Dim] = []
    for one, other in zip(first, second, strict=True):
        if one == 1 or dims_equal([one], [other]):
            dims.append(other)
        else:
            dims.append(one if other == 1 or isinstance(one, int) else ir.SymbolicDim(None))
    before, output.shape = output.shape, ir.Shape(dims)
    return before != output.shape


def _target(entries: tuple[Dim, ...], source: ir.Value) -> list[int] | None:
    """The entries with 0 for open axes that stay where they are, and one -1."""
    dims: tuple[Dim, ...] = () if source.shape is None else source.shape.dims
    entries = _rest_found(entries, dims)
    fixed: list[int | None] = [entry if isinstance(entry, int) and entry >= 0 else None for entry in entries]
    if fixed.count(None) > 1:
        for axis, entry in enumerate(entries):
            if fixed[axis] is None and axis < len(dims) and dims_equal([entry], [dims[axis]]):
                fixed[axis] = 0
    if fixed.count(None) > 1:
        return None
    return [-1 if entry is None else entry for entry in fixed]


def _rest_found(entries: tuple[Dim, ...], dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The entries with -1 as a number beside open ones, where what they leave of the source is one."""
    if entries.count(-1) != 1 or all(isinstance(entry, int) for entry in entries):
        return entries
    found = reshaped(dims, entries) or []
    rest = [size for entry, size in zip(entries, found, strict=False) if entry == -1]
    number = rest[0] if rest else None
    return tuple(number if entry == -1 and isinstance(number, int) else entry for entry in entries)


def _row(node: ir.Node, rows: Rows) -> Row | None:
    rule = _RULES.get(node.op_type) if is_op(node, node.op_type) else None
    return None if rule is None else rule(node, rows)


def _known(value: ir.Value | None, rows: Rows) -> Row | None:
    if value is None or value in rows:
        return None if value is None else rows[value]
    found = ints(value) if is_constant(value) else None
    array = constant(value) if found is not None and len(found) <= _LONGEST else None
    return None if found is None or array is None else Row(tuple(found), array.ndim == 0)


def _shape(node: ir.Node, _rows: Rows) -> Row | None:
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    start = attribute_int(node, "start", 0)
    end = attribute_int(node, "end", len(source.shape))
    return Row(tuple(source.shape.dims[start:end]), is_scalar=False)


def _size(node: ir.Node, _rows: Rows) -> Row | None:
    """The number of elements, where every size is a number."""
    source = node.inputs[0]
    sizes = None if source is None else static_shape(source)
    return None if sizes is None else Row((int(np.prod(sizes, dtype=np.int64)),), is_scalar=True)


def _gather(node: ir.Node, rows: Rows) -> Row | None:
    row, picks, index = _known(node.inputs[0], rows), ints(node.inputs[1]), constant(node.inputs[1])
    if row is None or row.is_scalar or picks is None or index is None:
        return None
    if any(not -len(row.entries) <= pick < len(row.entries) for pick in picks):
        return None
    return Row(tuple(row.entries[pick] for pick in picks), is_scalar=index.ndim == 0)


def _slice(node: ir.Node, rows: Rows) -> Row | None:
    row = _known(node.inputs[0], rows)
    if row is None or row.is_scalar:
        return None
    start, end = ints(node.inputs[1]), ints(node.inputs[2])
    step = ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if start is None or end is None or step is None or not (len(start) == len(end) == len(step) == 1) or not step[0]:
        return None
    return Row(row.entries[start[0] : end[0] : step[0]], is_scalar=False) if step[0] > 0 else None


def _concat(node: ir.Node, rows: Rows) -> Row | None:
    parts = [_known(value, rows) for value in node.inputs]
    entries: list[Dim] = []
    for part in parts:
        if part is None or part.is_scalar:
            return None
        entries += part.entries
    return Row(tuple(entries), is_scalar=False)


def _reshaped(node: ir.Node, rows: Rows) -> Row | None:
    """Unsqueeze, Squeeze and Reshape of one row: the rank of the output tells which."""
    row, shape = _known(node.inputs[0], rows), node.outputs[0].shape
    if row is None or shape is None or len(shape) > 1 or (len(shape) == 0 and len(row.entries) != 1):
        return None
    return Row(row.entries, is_scalar=len(shape) == 0)


def _same(node: ir.Node, rows: Rows) -> Row | None:
    integer = node.outputs[0].dtype in (ir.DataType.INT32, ir.DataType.INT64)
    return _known(node.inputs[0], rows) if integer else None


def _product(node: ir.Node, rows: Rows) -> Row | None:
    row = _known(node.inputs[0], rows)
    shape = node.outputs[0].shape
    if row is None or row.is_scalar or shape is None or len(shape) > 1:
        return None
    found: Dim | None = 1
    for entry in row.entries:
        found = None if found is None else _times(found, entry)
    return None if found is None else Row((found,), is_scalar=len(shape) == 0)


def _binary(rule: Callable[[Dim, Dim], Dim | None]) -> Callable[[ir.Node, Rows], Row | None]:
    def apply(node: ir.Node, rows: Rows) -> Row | None:
        first, second = _known(node.inputs[0], rows), _known(node.inputs[1], rows)
        if first is None or second is None:
            return None
        length = max(len(first.entries), len(second.entries))
        if not length or any(len(row.entries) not in (1, length) for row in (first, second)):
            return None
        first_entries = first.entries * (length // len(first.entries))
        second_entries = second.entries * (length // len(second.entries))
        found = [rule(one, other) for one, other in zip(first_entries, second_entries, strict=True)]
        entries = tuple(entry for entry in found if entry is not None)
        return Row(entries, first.is_scalar and second.is_scalar) if len(entries) == len(found) else None

    return apply


def _times(one: Dim, other: Dim) -> Dim | None:
    (count, symbol), (factor, second) = factors(one), factors(other)
    if (symbol is not None and second is not None) or "" in (symbol, second):
        return None
    return multiple(count * factor, second if symbol is None else symbol)


def _over(one: Dim, other: Dim) -> Dim | None:
    """Whole-number division; of two multiples of one symbol the symbol cancels."""
    (count, symbol), (divisor, second) = factors(one), factors(other)
    if divisor <= 0 or "" in (symbol, second) or second not in (None, symbol):
        return None
    if symbol is None:
        return count // divisor if count >= 0 else None
    if count % divisor:
        return None
    return multiple(count // divisor, None if second == symbol else symbol)


def _plus(sign: int) -> Callable[[Dim, Dim], Dim | None]:
    def apply(one: Dim, other: Dim) -> Dim | None:
        if isinstance(one, int) and isinstance(other, int):
            return one + sign * other
        return one if isinstance(other, int) and other == 0 else None

    return apply


def _equal(one: Dim, other: Dim) -> Dim | None:
    """1 or 0, where it is certain: a size is never negative."""
    if isinstance(one, int) and isinstance(other, int):
        return int(one == other)
    if dims_equal([one], [other]):
        return 1
    numbers = [size for size in (one, other) if isinstance(size, int)]
    return 0 if numbers and numbers[0] < 0 else None


def _where(node: ir.Node, rows: Rows) -> Row | None:
    test, first, second = constant(node.inputs[0]), _known(node.inputs[1], rows), _known(node.inputs[2], rows)
    if test is None or first is None or second is None or test.ndim != 1:
        return None
    if not len(test) == len(first.entries) == len(second.entries):
        return None
    chosen = zip(test.tolist(), first.entries, second.entries, strict=True)
    return Row(tuple(one if flag else other for flag, one, other in chosen), is_scalar=False)


_RULES: dict[str, Callable[[ir.Node, Rows], Row | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _reshaped,
    "Squeeze": _reshaped,
    "Reshape": _reshaped,
    "Cast": _same,
    "Identity": _same,
    "ReduceProd": _product,
    "Mul": _binary(_times),
    "Div": _binary(_over),
    "Equal": _binary(_equal),
    "Where": _where,
    "Add": _binary(_plus(1)),
    "Sub": _binary(_plus(-1)),
}
