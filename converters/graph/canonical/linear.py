"""Fully connected layers in one form: Gemm for rank 2, MatMul and Add above."""

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.affine import per_channel
from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_float,
    attribute_int,
    constant,
    is_constant,
    is_op,
    nodes_of,
    producer,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.canonical.reshapes import VIEWS, static_target
from converters.graph.shapes import Dim, dims_equal, factors, rank_of, static_shape


def plain_gemm(model: ir.Model) -> bool:
    """Give each Gemm alpha = beta = 1, no transposition and an explicit bias; without constant weights undo it.

    Requires: constants folded. Ensures: every Gemm has constant weights (K, N), a constant bias (N,) and no attributes;
    any other is MatMul with what it needs around it.
    """
    changed = False
    for node in nodes_of(model, "Gemm"):
        if _is_plain(node):
            continue
        _rewrite(model.graph, node)
        changed = True
    return settled(model.graph, changed=changed)


def _is_plain(node: ir.Node) -> bool:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return not node.attributes and is_constant(node.inputs[1]) and is_constant(bias) and _is_row(bias, node)


def _is_row(bias: ir.Value | None, node: ir.Node) -> bool:
    array = constant(bias)
    weight = node.inputs[1]
    return array is not None and weight is not None and array.shape == tuple(weight.shape or ())[-1:]


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    left, weight, stem = node.inputs[0], node.inputs[1], stem_of(node.outputs[0])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    alpha, beta = attribute_float(node, "alpha", 1), attribute_float(node, "beta", 1)
    assert left is not None
    assert weight is not None
    if attribute_int(node, "transA", 0):
        left = add_node(node, "Transpose", [left], {"perm": [1, 0]}, stem=f"{stem}/left")
    array = constant(weight)
    if array is not None:
        array = array.T if attribute_int(node, "transB", 0) else array
        array = array if alpha == 1 else (array * np.asarray(alpha, array.dtype)).astype(array.dtype)
        changed = array is not constant(weight)
        right = add_constant(graph, array, stem_of(weight)) if changed else weight
        _gemm(graph, node, (left, right), bias=bias, beta=beta)
        return
    if attribute_int(node, "transB", 0):
        weight = add_node(node, "Transpose", [weight], {"perm": [1, 0]}, stem=f"{stem}/right")
    product = add_node(node, "MatMul", [left, weight], stem=f"{stem}/product")
    take_place(_plus(graph, node, _times(graph, node, product, alpha), bias, beta), node.outputs[0])


def _gemm(
    graph: ir.Graph, node: ir.Node, operands: tuple[ir.Value, ir.Value], *, bias: ir.Value | None, beta: float
) -> None:
    """Gemm with the bias where it is a constant row, else zeros and an Add."""
    left, weight = operands
    stem = stem_of(node.outputs[0])
    array = constant(weight)
    assert array is not None
    numbers = constant(bias)
    fits = (
        numbers is not None
        and numbers.size in (1, array.shape[1])
        and numbers.shape[-1:] in ((), (1,), (array.shape[1],))
    )
    row = np.zeros(array.shape[1], array.dtype)
    if numbers is not None and fits:
        row = (np.broadcast_to(numbers.reshape(-1), row.shape) * beta).astype(array.dtype)
    named = stem_of(bias) if bias is not None and fits else f"{stem}/bias"
    inner = None if fits or bias is None else f"{stem}/product"
    made = add_node(node, "Gemm", [left, weight, add_constant(graph, row, named)], stem=inner)
    take_place(made if inner is None else _plus(graph, node, made, bias, beta), node.outputs[0])


def _times(graph: ir.Graph, node: ir.Node, value: ir.Value, factor: float) -> ir.Value:
    if factor == 1 or value.dtype is None:
        return value
    constant_factor = add_constant(graph, np.array(factor, value.dtype.numpy()), f"{stem_of(node.outputs[0])}/alpha")
    return add_node(node, "Mul", [value, constant_factor], stem=f"{stem_of(node.outputs[0])}/scaled")


def _plus(graph: ir.Graph, node: ir.Node, value: ir.Value, bias: ir.Value | None, beta: float) -> ir.Value:
    if bias is None or beta == 0:
        return value
    return add_node(node, "Add", [value, _times(graph, node, bias, beta)])


def matmul_to_gemm(model: ir.Model) -> bool:
    """Make a product of a matrix and constant weights a Gemm with zero bias; a later Add is folded into it.

    Requires: ranks. Ensures: no MatMul of rank 2 with constant weights of rank 2.
    """
    changed = False
    for node in nodes_of(model, "MatMul"):
        left, weight = node.inputs
        if left is None or weight is None or rank_of(left) != 2 or rank_of(weight) != 2 or not is_constant(weight):
            continue
        array = constant(weight)
        assert array is not None
        if not np.issubdtype(array.dtype, np.floating):
            continue
        zeros = add_constant(model.graph, np.zeros(array.shape[1], array.dtype), f"{stem_of(node.outputs[0])}/bias")
        take_place(add_node(node, "Gemm", [left, weight, zeros]), node.outputs[0])
        changed = True
    return settled(model.graph, changed=changed)


def flat_matmul_bias(model: ir.Model) -> bool:
    """Give the bias that is added to a product with constant weights the shape (N,).

    Requires: `constants_right`, ranks. Ensures: an Add of a constant per channel after such a MatMul has one axis.
    """
    changed = False
    for node in nodes_of(model, "MatMul"):
        reader = sole_reader(node.outputs[0])
        if reader is None or not is_op(reader, "Add", "Sub") or not is_constant(node.inputs[1]):
            continue
        array = constant(reader.inputs[1])
        vector = per_channel(array, node) if array is not None and rank_of_weight(node) == 2 else None
        if array is None or vector is None or reader.inputs[0] is not node.outputs[0]:
            continue
        if reader.op_type == "Add" and array.shape == vector.shape:
            continue
        row = add_constant(
            model.graph, -vector if reader.op_type == "Sub" else vector, f"{stem_of(reader.outputs[0])}/bias"
        )
        take_place(add_node(reader, "Add", [node.outputs[0], row]), reader.outputs[0])
        changed = True
    return settled(model.graph, changed=changed)


def rank_of_weight(node: ir.Node) -> int | None:
    return rank_of(node.inputs[1]) if node.inputs[1] is not None else None


def unfold_gemm(model: ir.Model) -> bool:
    """Undo Reshape-Gemm-Reshape around a tensor of higher rank: MatMul and Add in the shape that comes out.

    Requires: `plain_gemm`, shapes. Ensures: no Gemm whose input is a Reshape and whose sole reader reshapes to
    (.., N) of rank 3 or more with at most one open axis, N being the Gemm's; the first Reshape then gives (.., K).
    """
    changed = False
    for node in nodes_of(model, "Gemm"):
        before = producer(node.inputs[0], *VIEWS)
        after = sole_reader(node.outputs[0])
        if before is None or after is None or not is_op(after, *VIEWS) or not _is_plain(node):
            continue
        source, out = before.inputs[0], after.outputs[0]
        wanted = _unfolded(node, out)
        target = static_target(wanted, source) if wanted is not None and source is not None else None
        if target is None or source is None:
            continue
        if source.shape is None or not dims_equal(source.shape.dims, wanted or ()):
            shape = add_constant(model.graph, np.array(target, np.int64), f"{stem_of(source)}/shape")
            source = add_node(after, "Reshape", [source, shape], name=before.name, stem=f"{stem_of(source)}/unfolded")
        product = add_node(after, "MatMul", [source, node.inputs[1]], name=node.name, stem=stem_of(node.outputs[0]))
        take_place(add_node(after, "Add", [product, node.inputs[2]]), out)
        changed = True
    return settled(model.graph, changed=changed)


def _unfolded(node: ir.Node, out: ir.Value) -> tuple[Dim, ...] | None:
    """The shape (.., K) of the input where the output is (.., N)."""
    weight = static_shape(node.inputs[1]) if node.inputs[1] is not None else None
    if out.shape is None or weight is None or len(out.shape) < 3 or out.shape[-1] != weight[1]:
        return None
    lead = out.shape.dims[:-1]
    # A row per sample stays a Gemm, though it is viewed as (batch, 1, .., N) afterwards.
    if all(factors(size) == (1, None) for size in lead[1:]) and (not isinstance(lead[0], int) or lead[0] == 1):
        return None
    return (*lead, weight[0])
