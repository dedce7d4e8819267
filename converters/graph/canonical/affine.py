"""Batch norm, and scales and shifts by constants, folded into the linear operator before them."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Array,
    add_constant,
    add_node,
    attribute_float,
    attribute_int,
    constant,
    is_constant,
    is_op,
    nodes_of,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.shapes import rank_of, shape_of

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_AFFINE = ("Mul", "Div", "Add", "Sub")


def batch_norm_to_affine(model: ir.Model) -> bool:
    """Spell batch norm at inference as Mul and Add of constants.

    y = (x - mean) / sqrt(var + epsilon) * scale + bias (ONNX operators, BatchNormalization).

    Requires: ranks. Ensures: no BatchNormalization with constant statistics, but one that is told to train.
    """
    changed = False
    for node in nodes_of(model, "BatchNormalization"):
        rank = rank_of(node.inputs[0]) if node.inputs[0] is not None else None
        training = attribute_int(node, "training_mode", 0)
        others = any(out.uses() or out.is_graph_output() for out in node.outputs[1:])
        arrays = [constant(value) for value in node.inputs[1:5]]
        if rank is None or rank < 2 or training or others:
            continue
        known = [array.astype(np.float64) for array in arrays if array is not None]
        dtype = arrays[0].dtype if arrays[0] is not None else np.dtype(np.float32)
        if len(known) < 4:
            continue
        gamma, beta, mean, variance = known
        scale = gamma / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
        form = (-1,) + (1,) * (rank - 2)
        stem = stem_of(node.outputs[0])
        factor = add_constant(model.graph, scale.astype(dtype).reshape(form), f"{stem}/scale")
        term = add_constant(model.graph, (beta - mean * scale).astype(dtype).reshape(form), f"{stem}/shift")
        scaled = add_node(node, "Mul", [node.inputs[0], factor], stem=f"{stem}/scaled")
        take_place(add_node(node, "Add", [scaled, term]), node.outputs[0])
        changed = True
    return settled(model.graph, changed=changed)


def fold_affine(model: ir.Model) -> bool:
    """Fold Mul, Div, Add, Sub by a constant per output channel into the linear operator that they alone read.

    Requires: `constants_right`, explicit convolution biases. Ensures: no Conv, ConvTranspose or Gemm with constant
    weights has such a sole reader; nor a MatMul a Mul or Div (its Add is its bias).
    """
    changed = False
    for node in nodes_of(model, *_LINEAR):
        changed |= _fold_readers(model.graph, node)
    return settled(model.graph, changed=changed)


def _fold_readers(graph: ir.Graph, node: ir.Node) -> bool:
    """Fold as long as the next reader can be."""
    changed = False
    while True:
        reader = sole_reader(node.outputs[0])
        if reader is None or not is_op(reader, *_AFFINE) or not _foldable(node):
            return changed
        found = _factor_and_term(node, reader)
        if found is None or (node.op_type == "MatMul" and found[1] is not None):
            return changed
        node = _folded(graph, node, reader, *found)
        changed = True


def _foldable(node: ir.Node) -> bool:
    if not is_constant(node.inputs[1]):
        return False
    if node.op_type == "MatMul":
        return rank_of(node.inputs[1]) == 2 if node.inputs[1] is not None else False
    if len(node.inputs) < 3 or not is_constant(node.inputs[2]):
        return False
    plain = attribute_float(node, "alpha", 1) == attribute_float(node, "beta", 1) == 1
    return node.op_type != "Gemm" or (plain and not attribute_int(node, "transB", 0) and rank_of_bias(node) == 1)


def rank_of_bias(node: ir.Node) -> int | None:
    return rank_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None


def channels_of(node: ir.Node) -> int | None:
    """Output channels of a linear operator with known weights."""
    weight = node.inputs[1]
    shape = shape_of(weight) if weight is not None else None
    if shape is None:
        return None
    if node.op_type == "Conv":
        return shape[0]
    if node.op_type == "ConvTranspose":
        return None if shape[1] is None else shape[1] * attribute_int(node, "group", 1)
    return shape[-1]


def channel_axis(node: ir.Node) -> int | None:
    """The axis of the output that counts channels, from the end: -1 for products."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return -1
    rank = rank_of(node.inputs[1]) if node.inputs[1] is not None else None
    return None if rank is None else 1 - rank


def per_channel(array: Array, node: ir.Node) -> Array | None:
    """A constant operand beside the node's output as one number per channel; None where it broadcasts otherwise."""
    channels, axis = channels_of(node), channel_axis(node)
    rank = rank_of(node.outputs[0])
    if channels is None or axis is None or rank is None or array.ndim > rank:
        return None
    full = array.reshape((1,) * (rank - array.ndim) + array.shape)
    others = [size for index, size in enumerate(full.shape) if index != rank + axis]
    if any(size != 1 for size in others) or full.shape[rank + axis] not in (1, channels):
        return None
    return np.broadcast_to(full.reshape(-1), (channels,))


_Pair = tuple[Array | None, Array | None]


def _factor_and_term(node: ir.Node, reader: ir.Node) -> _Pair | None:
    """What the reader multiplies by and adds, per channel."""
    left = reader.inputs[0] is not node.outputs[0]
    array = constant(reader.inputs[0 if left else 1])
    vector = per_channel(array, node) if array is not None else None
    if vector is None or not np.issubdtype(vector.dtype, np.floating):
        return None
    minus = np.full_like(vector, -1)
    table: dict[tuple[str, bool], Callable[[], _Pair]] = {
        ("Mul", False): lambda: (vector, None),
        ("Mul", True): lambda: (vector, None),
        ("Add", False): lambda: (None, vector),
        ("Add", True): lambda: (None, vector),
        ("Sub", False): lambda: (None, -vector),
        ("Sub", True): lambda: (minus, vector),
        ("Div", False): lambda: (1 / vector.astype(np.float64), None),
    }
    make = table.get((reader.op_type, left))
    if make is None or (reader.op_type == "Div" and not vector.all()):
        return None
    return make()


def _folded(graph: ir.Graph, node: ir.Node, reader: ir.Node, factor: Array | None, term: Array | None) -> ir.Node:
    """A new linear operator in the place of both; returns its node."""
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None
    if factor is not None:
        array = constant(weight)
        assert array is not None
        weight = add_constant(graph, _scaled(array, factor, node), stem_of(weight))
    if bias is not None:
        numbers = constant(bias)
        assert numbers is not None
        wide = np.broadcast_to(numbers.astype(np.float64), (channels_of(node) or 1,))
        wide = wide if factor is None else wide * factor.astype(np.float64)
        wide = wide if term is None else wide + term.astype(np.float64)
        bias = add_constant(graph, wide.astype(numbers.dtype), stem_of(bias))
    made = ir.Node("", node.op_type, [node.inputs[0], weight, *([] if bias is None else [bias])])
    for item in node.attributes.values():
        made.attributes.add(item)
    graph.insert_before(reader, made)
    take_place(made.outputs[0], reader.outputs[0])
    graph.remove(reader, safe=True)
    graph.remove(node, safe=True)
    return made


def _scaled(weight: Array, factor: Array, node: ir.Node) -> Array:
    """Weights with each output channel multiplied by its factor, in the weights' own type."""
    numbers = factor.astype(weight.dtype if weight.dtype != np.float16 else np.float32)
    if node.op_type == "Conv":
        shaped = numbers.reshape(-1, *[1] * (weight.ndim - 1))
    elif node.op_type == "ConvTranspose":
        groups = attribute_int(node, "group", 1)
        rows = np.repeat(numbers.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        shaped = rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
    else:
        shaped = numbers
    scaled: Array = (weight * shaped).astype(weight.dtype, copy=False)
    return scaled
