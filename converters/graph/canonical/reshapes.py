"""Views merged and no-ops removed: Reshape, Flatten, Squeeze, Unsqueeze; Transpose, Slice, Pad, Expand."""

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_ints,
    bypass,
    ints,
    nodes_of,
    producer,
    settled,
    stem_of,
    take_place,
)
from converters.graph.shapes import Dim, dims_equal, factors, rank_of, same_dims, shape_of

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def merge_views(model: ir.Model) -> bool:
    """Merge Reshape, Flatten, Squeeze and Unsqueeze in a row into one Reshape, or into nothing.

    Requires: shapes. Ensures: no two in a row where the last one's shape has at most one open axis, and none whose
    output has its input's shape. The last one alone is rewritten: others that are read elsewhere stay.
    """
    changed = False
    for node in nodes_of(model, *VIEWS):
        source, out = node.inputs[0], node.outputs[0]
        if source is None:
            continue
        if same_dims(source, out):
            changed |= bypass(out, source)
            continue
        before = producer(source, *VIEWS)
        origin = before.inputs[0] if before is not None else None
        if origin is None or out.shape is None:
            continue
        if same_dims(origin, out):
            changed |= bypass(out, origin)
            continue
        target = static_target(out.shape.dims, origin)
        if target is not None:
            value = add_constant(model.graph, np.array(target, np.int64), f"{stem_of(out)}/shape")
            take_place(add_node(node, "Reshape", [origin, value]), out)
            changed = True
    return settled(model.graph, changed=changed)


def static_target(dims: tuple[Dim, ...], origin: ir.Value) -> list[int] | None:
    """A Reshape target for a shape, 0 where an open axis stays in place and -1 once; None where there are more.

    An axis of size 0 has no such target.
    """
    found: list[int | None] = []
    sources: tuple[Dim, ...] = () if origin.shape is None else origin.shape.dims
    for axis, size in enumerate(dims):
        if isinstance(size, int):
            found.append(size if size > 0 else None)
        elif axis < len(sources) and dims_equal([size], [sources[axis]]) and _others_open(dims):
            found.append(0)
        else:
            found.append(None)
    if any(size == 0 for size in dims) or found.count(None) > 1:
        return None
    return [-1 if size is None else size for size in found]


def _others_open(dims: tuple[Dim, ...]) -> bool:
    return sum(not isinstance(size, int) for size in dims) > 1


def remove_no_ops(model: ir.Model) -> bool:
    """Take out Slice of everything, Pad by nothing, Expand and Tile to the same shape, Transpose that moves nothing.

    Requires: shapes. Ensures: none of these is left where shapes show it, but one that a graph output needs.
    """
    changed = False
    for node in nodes_of(model, "Slice", "Pad", "Expand", "Tile", "Transpose"):
        source = node.inputs[0]
        if source is not None and _does_nothing(node, source):
            changed |= bypass(node.outputs[0], source)
    return settled(model.graph, changed=changed)


def _does_nothing(node: ir.Node, source: ir.Value) -> bool:
    rank = rank_of(source)
    if rank is None:
        return False
    if node.op_type == "Transpose":
        return attribute_ints(node, "perm", range(rank)[::-1]) == list(range(rank))
    if node.op_type in ("Pad", "Tile"):
        return set(ints(node.inputs[1]) or [-1]) == {0 if node.op_type == "Pad" else 1}
    if node.op_type == "Slice":
        return _slices_all(node, source)
    return same_dims(source, node.outputs[0])


def _slices_all(node: ir.Node, source: ir.Value) -> bool:
    """From 0 by 1 to the end, or beyond the size: an open axis is sliced whole only by the largest end."""
    given = [ints(value) for value in node.inputs[1:] if value is not None]
    shape = shape_of(source)
    if shape is None or len(given) != len(node.inputs) - 1 or None in given:
        return False
    lists = [numbers or [] for numbers in given]
    starts, ends = lists[0], lists[1]
    axes = lists[2] if len(lists) > 2 else list(range(len(starts)))
    steps = lists[3] if len(lists) > 3 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        whole = end >= (np.iinfo(np.int32).max if size is None else size)
        if start != 0 or step != 1 or not whole:
            return False
    return True


def transpose_to_reshape(model: ir.Model) -> bool:
    """Write a Transpose that moves axes of size 1 alone as Reshape, and merge Transposes in a row.

    Requires: shapes. Ensures: no Transpose of a Transpose, and none that leaves the order of the elements as it is and
    has at most one open axis.
    """
    changed = False
    for node in nodes_of(model, "Transpose"):
        source, out = node.inputs[0], node.outputs[0]
        if source is None or source.shape is None or out.shape is None:
            continue
        perm = attribute_ints(node, "perm", range(len(source.shape))[::-1])
        before = producer(source, "Transpose")
        if before is not None:
            inner = attribute_ints(before, "perm", range(len(perm))[::-1])
            merged = [inner[axis] for axis in perm]
            take_place(add_node(node, "Transpose", [before.inputs[0]], {"perm": merged}), out)
            changed = True
            continue
        if perm == sorted(perm):
            changed |= bypass(out, source)
            continue
        target = static_target(out.shape.dims, source) if moves_nothing(perm, source.shape.dims) else None
        if target is not None and 0 not in target:
            value = add_constant(model.graph, np.array(target, np.int64), f"{stem_of(out)}/shape")
            take_place(add_node(node, "Reshape", [source, value]), out)
            changed = True
    return settled(model.graph, changed=changed)


def moves_nothing(perm: list[int] | tuple[int, ...], dims: tuple[Dim, ...]) -> bool:
    """Whether a permutation of these axes leaves the elements in memory where they are."""
    long = [axis for axis in perm if factors(dims[axis]) != (1, None)]
    return long == sorted(long)
