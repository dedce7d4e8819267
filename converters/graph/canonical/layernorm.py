"""Layer normalisation known by its formula, over the last axes."""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.algebra import is_closed
from converters.graph.canonical.edit import (
    Array,
    add_constant,
    add_node,
    attribute_float,
    attribute_int,
    constant,
    ints,
    is_constant,
    is_op,
    nodes_of,
    producer,
    scalar,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.shapes import rank_of, shape_of


class _Deviation(NamedTuple):
    """1 / sqrt(var + epsilon), or its inverse, of a tensor over some axes; `nodes` compute it."""

    source: ir.Value
    mean: ir.Value
    axes: tuple[int, ...]
    epsilon: float
    nodes: frozenset[ir.Node]


def layer_norm(model: ir.Model) -> bool:
    """Recognise (x - mean) / sqrt(var + epsilon) over the last axes, with or without scale and bias.

    Known spellings: the quotient by a square root; the product with its reciprocal or with the power -1/2; variance as
    the mean of squared differences or as mean(x^2) - mean(x)^2; and x * r + (bias - mean * r).
    Source: Ba et al., Layer Normalization, 2016.

    Requires: constants folded, `merge_equal`, static sizes of the normalised axes. Ensures: no such formula, unless it
    is over other axes or something else reads a part of it.
    """
    changed = False
    for node in nodes_of(model, "Div", "Mul", "Add"):
        found = _shifted(node) if node.op_type == "Add" else _quotient(node)
        if found is None:
            continue
        deviation, scale, bias = found
        changed |= _write(model.graph, node, deviation, scale, bias)
    return settled(model.graph, changed=changed)


_Found = tuple[_Deviation, ir.Value | None, ir.Value | None]


def _write(graph: ir.Graph, node: ir.Node, found: _Deviation, scale: ir.Value | None, bias: ir.Value | None) -> bool:
    root, shape = node.outputs[0], shape_of(found.source)
    if shape is None or rank_of(root) != len(shape) or not is_closed({*found.nodes, node}, root):
        return False
    rank = len(shape)
    tail = shape[len(shape) - len(found.axes) :]
    if sorted(found.axes) != list(range(rank - len(found.axes), rank)) or None in tail or found.source.dtype is None:
        return False
    sizes = [size for size in tail if size is not None]
    dtype = found.source.dtype.numpy()
    factor = np.ones(sizes, dtype) if scale is None else _parameter(constant(scale), sizes)
    term = None if bias is None else _parameter(constant(bias), sizes)
    if factor is None or (bias is not None and term is None):
        return False
    stem = stem_of(root)
    inputs = [found.source, add_constant(graph, factor, stem_of(scale) if scale is not None else f"{stem}/scale")]
    if term is not None and bias is not None:
        inputs.append(add_constant(graph, term, stem_of(bias)))
    attributes = {"axis": -len(found.axes), "epsilon": found.epsilon}
    take_place(add_node(node, "LayerNormalization", inputs, attributes), root)
    return True


def _parameter(array: Array | None, sizes: list[int]) -> Array | None:
    """A constant operand as an array over the normalised axes; None where it varies over others."""
    if array is None:
        return None
    tail = array.shape[max(0, array.ndim - len(sizes)) :]
    if any(size != 1 for size in array.shape[: max(0, array.ndim - len(sizes))]):
        return None
    try:
        return np.ascontiguousarray(np.broadcast_to(array.reshape(tail), sizes))
    except ValueError:
        return None


def _quotient(node: ir.Node) -> _Found | None:
    """(x - mean) / sqrt(..) or (x - mean) * (1 / sqrt(..)), the factor scaled or not."""
    pairs = [(node.inputs[0], node.inputs[1])]
    if node.op_type == "Mul":
        pairs.append((node.inputs[1], node.inputs[0]))
    for difference, by in pairs:
        centred = producer(difference, "Sub")
        if centred is None or by is None:
            continue
        scale = None
        found = _root(by) if node.op_type == "Div" else _inverse(by)
        if found is None and node.op_type == "Mul":
            found, scale = _scaled_inverse(by)
        if found is not None and centred.inputs[0] is found.source and centred.inputs[1] is found.mean:
            return found._replace(nodes=found.nodes | {centred}), scale, None
    return None


def _shifted(node: ir.Node) -> _Found | None:
    """Read x * r + (bias - mean * r), r = scale / sqrt(..)."""
    for first, second in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        product, rest = producer(first, "Mul"), producer(second, "Sub")
        if product is None or rest is None or not is_constant(rest.inputs[0]):
            continue
        moved = producer(rest.inputs[1], "Mul")
        for x, by in (tuple(product.inputs), tuple(reversed(product.inputs))):
            found, scale = _scaled_inverse(by)
            if found is None and by is not None:
                found = _inverse(by)
            if found is None or moved is None or found.source is not x:
                continue
            if set(moved.inputs) == {found.mean, by}:
                return found._replace(nodes=found.nodes | {product, rest, moved}), scale, rest.inputs[0]
    return None


def _scaled_inverse(value: ir.Value | None) -> tuple[_Deviation | None, ir.Value | None]:
    node = producer(value, "Mul")
    if node is None or not is_constant(node.inputs[1]) or node.inputs[0] is None:
        return None, None
    found = _inverse(node.inputs[0])
    return (None, None) if found is None else (found._replace(nodes=found.nodes | {node}), node.inputs[1])


def _inverse(value: ir.Value) -> _Deviation | None:
    node = producer(value, "Reciprocal", "Div", "Pow")
    if node is None:
        return None
    if node.op_type == "Pow":
        found = _variance(node.inputs[0]) if scalar(node.inputs[1]) == -0.5 else None
    elif node.op_type == "Div":
        found = _root(node.inputs[1]) if scalar(node.inputs[0]) == 1 else None
    else:
        found = _root(node.inputs[0])
    return None if found is None else found._replace(nodes=found.nodes | {node})


def _root(value: ir.Value | None) -> _Deviation | None:
    node = producer(value, "Sqrt", "Pow")
    if node is None or (node.op_type == "Pow" and scalar(node.inputs[1]) != 0.5):
        return None
    found = _variance(node.inputs[0])
    return None if found is None else found._replace(nodes=found.nodes | {node})


def _variance(value: ir.Value | None) -> _Deviation | None:
    """Read var + epsilon."""
    node = producer(value, "Add")
    epsilon = scalar(node.inputs[1]) if node is not None else None
    if node is None or epsilon is None:
        return None
    found = _mean_of_squares(node.inputs[0]) or _difference_of_squares(node.inputs[0])
    return None if found is None else found._replace(epsilon=epsilon, nodes=found.nodes | {node})


def _mean_of_squares(value: ir.Value | None) -> _Deviation | None:
    """mean((x - mean(x))^2)."""
    outer, axes = _mean(value)
    inner, square = _square(outer.inputs[0]) if outer is not None else (None, None)
    centred = producer(inner, "Sub")
    if outer is None or square is None or centred is None:
        return None
    for x, mean in ((centred.inputs[0], centred.inputs[1]), (centred.inputs[1], centred.inputs[0])):
        first, same = _mean(mean)
        if x is not None and mean is not None and first is not None and first.inputs[0] is x and same == axes:
            return _Deviation(x, mean, axes, 0.0, frozenset({outer, square, centred, first}))
    return None


def _difference_of_squares(value: ir.Value | None) -> _Deviation | None:
    """mean(x^2) - mean(x)^2, cut at 0 or not."""
    cut = producer(value, "Relu", "Max")
    node = producer(cut.inputs[0] if cut is not None else value, "Sub")
    if node is None or (cut is not None and is_op(cut, "Max") and scalar(cut.inputs[1]) != 0):
        return None
    outer, axes = _mean(node.inputs[0])
    x, square = _square(outer.inputs[0]) if outer is not None else (None, None)
    mean, second = _square(node.inputs[1])
    first, same = _mean(mean)
    if outer is None or square is None or second is None or first is None or x is None or mean is None:
        return None
    if first.inputs[0] is not x or same != axes:
        return None
    nodes = frozenset({node, outer, square, second, first} | ({cut} if cut is not None else set()))
    return _Deviation(x, mean, axes, 0.0, nodes)


def _square(value: ir.Value | None) -> tuple[ir.Value | None, ir.Node | None]:
    node = producer(value, "Mul", "Pow")
    if node is None:
        return None, None
    twice = node.inputs[0] is node.inputs[1] if node.op_type == "Mul" else scalar(node.inputs[1]) == 2
    return (node.inputs[0], node) if twice else (None, None)


def _mean(value: ir.Value | None) -> tuple[ir.Node | None, tuple[int, ...]]:
    """A ReduceMean that keeps its axes, and those axes counted from 0."""
    node = producer(value, "ReduceMean")
    rank = rank_of(node.inputs[0]) if node is not None and node.inputs[0] is not None else None
    if node is None or rank is None or not attribute_int(node, "keepdims", 1):
        return None, ()
    axes = ints(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else list(range(rank))
    return (None, ()) if not axes else (node, tuple(sorted(axis % rank for axis in axes)))


def fold_layer_norm_affine(model: ir.Model) -> bool:
    """Fold Mul and Add by a constant over the normalised axes into the LayerNormalization that they alone read.

    Requires: `constants_right`. Ensures: no LayerNormalization with constant parameters has such a sole reader.
    """
    changed = False
    for node in nodes_of(model, "LayerNormalization"):
        reader = sole_reader(node.outputs[0])
        if reader is None or not is_op(reader, "Mul", "Add") or reader.inputs[0] is not node.outputs[0]:
            continue
        scale = constant(node.inputs[1])
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
        has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
        by = _parameter(constant(reader.inputs[1]), list(scale.shape)) if scale is not None else None
        if scale is None or by is None or len(node.outputs) > 1 or (has_bias and bias is None):
            continue
        if reader.op_type == "Mul":
            scale, bias = scale * by, None if bias is None else bias * by
        else:
            bias = by if bias is None else bias + by
        stem = stem_of(reader.outputs[0])
        inputs = [node.inputs[0], add_constant(model.graph, scale, f"{stem}/scale")]
        inputs += [] if bias is None else [add_constant(model.graph, bias, f"{stem}/bias")]
        attributes = {"axis": attribute_int(node, "axis", -1), "epsilon": attribute_float(node, "epsilon", 1e-5)}
        take_place(add_node(reader, "LayerNormalization", inputs, attributes), reader.outputs[0])
        changed = True
    return settled(model.graph, changed=changed)
