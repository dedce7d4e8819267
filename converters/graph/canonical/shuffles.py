"""Spatial means, and the two pixel shuffles, from their spelled-out forms."""

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_int,
    attribute_ints,
    ints,
    is_op,
    name_after,
    nodes_of,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.shapes import rank_of, shape_of

_SPATIAL = [2, 3]


def spatial_mean(model: ir.Model) -> bool:
    """Write the mean over both spatial axes of a 4-D tensor as GlobalAveragePool, and Squeeze where axes go.

    Requires: ranks. Ensures: no ReduceMean over exactly axes 2 and 3 of a 4-D float tensor, and no AveragePool whose
    one window is the whole unpadded tensor.
    """
    changed = False
    for node in nodes_of(model, "ReduceMean", "AveragePool"):
        source = node.inputs[0]
        if source is None or source.dtype is None or not source.dtype.is_floating_point() or rank_of(source) != 4:
            continue
        if node.op_type == "AveragePool":
            whole = _is_whole(node, source)
        else:
            axes = ints(node.inputs[1]) if len(node.inputs) > 1 else None
            whole = axes is not None and sorted(axis % 4 for axis in axes) == _SPATIAL
        if whole:
            _pool(model.graph, node, source)
            changed = True
    return settled(model.graph, changed=changed)


def _is_whole(node: ir.Node, source: ir.Value) -> bool:
    shape = shape_of(source)
    kernel = attribute_ints(node, "kernel_shape", [])
    return (
        shape is not None
        and kernel == list(shape[2:])
        and "auto_pad" not in node.attributes
        and not any(attribute_ints(node, "pads", []))
        and set(attribute_ints(node, "dilations", [1])) == {1}
    )


def _pool(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    out = node.outputs[0]
    if node.op_type == "AveragePool" or attribute_int(node, "keepdims", 1):
        take_place(add_node(node, "GlobalAveragePool", [source]), out)
        return
    pooled = add_node(node, "GlobalAveragePool", [source], name=node.name, stem=f"{stem_of(out)}/pooled")
    axes = add_constant(graph, np.array(_SPATIAL, np.int64), "spatial_axes")
    flat = add_node(node, "Squeeze", [pooled, axes])
    take_place(flat, out)
    name_after(flat, "Squeeze")


def pixel_shuffle(model: ir.Model) -> bool:
    """Recognise DepthToSpace (both orders) and SpaceToDepth in Reshape, Transpose, Reshape.

    Source: the formulas of ONNX operators, DepthToSpace and SpaceToDepth.

    Requires: shapes. Ensures: no such three nodes where each has one reader and the sizes but the batch are known.
    """
    changed = False
    for first in nodes_of(model, "Reshape"):
        turn = sole_reader(first.outputs[0])
        last = sole_reader(turn.outputs[0]) if turn is not None and is_op(turn, "Transpose") else None
        if turn is None or last is None or not is_op(last, "Reshape") or first.inputs[0] is None:
            continue
        found = _shuffle(first, turn, last)
        if found is None:
            continue
        op_type, block, mode = found
        attributes: dict[str, int | str] = {"blocksize": block}
        if mode:
            attributes["mode"] = mode
        take_place(add_node(last, op_type, [first.inputs[0]], attributes), last.outputs[0])
        changed = True
    return settled(model.graph, changed=changed)


def _shuffle(first: ir.Node, turn: ir.Node, last: ir.Node) -> tuple[str, int, str] | None:
    assert first.inputs[0] is not None
    outer, inner, out = shape_of(first.inputs[0]), shape_of(first.outputs[0]), shape_of(last.outputs[0])
    if outer is None or inner is None or out is None or len(outer) != 4 or len(inner) != 6 or len(out) != 4:
        return None
    if None in (*outer[1:], *inner[1:], *out[1:]) or outer[0] != inner[0] or outer[0] != out[0]:
        return None
    perm = attribute_ints(turn, "perm", [])
    _, channels, height, width = (size or 0 for size in outer)
    for order, block, mode, split in (
        ([0, 3, 4, 1, 5, 2], inner[1] or 0, "DCR", (1, 2)),
        ([0, 1, 4, 2, 5, 3], inner[2] or 0, "CRD", (2, 3)),
    ):
        depth = channels // (block * block) if block else 0
        wanted = [block, block, depth] if split == (1, 2) else [depth, block, block]
        fits = perm == order and list(inner[1:]) == [*wanted, height, width]
        if fits and list(out[1:]) == [depth, height * block, width * block]:
            return "DepthToSpace", block, mode
    block = inner[3] or 0
    fits = perm == [0, 3, 5, 1, 2, 4] and list(inner[1:]) == [
        channels,
        height // max(block, 1),
        block,
        width // max(block, 1),
        block,
    ]
    if fits and list(out[1:]) == [channels * block * block, height // block, width // block]:
        return "SpaceToDepth", block, ""
    return None
