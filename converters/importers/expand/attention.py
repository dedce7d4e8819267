"""Attention and embedding of ONNX Runtime's transformers, without states that are carried from run to run.

Source: com.microsoft's schemas in ONNX Runtime 1.32; what masks do is from its CPU kernels: a masked key has
`mask_filter_value` added to its score, a later key of a causal row the lowest number in its place.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx
from onnx import TensorProto

from converters.importers.expand.layers import number
from converters.importers.expand.quantised import Scaled
from converters.importers.rewriting import Context, attribute, integer, integers

_LOWEST = float(np.finfo(np.float32).min)


def attention(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """One projection to queries, keys and values; left alone with a past, rotation, or masks in other forms."""
    known = context.types.get(node.input[1])
    width = known.shape[-1] if known is not None and known.shape else None
    mask, beside = _at(node, 3), _at(node, 5)
    carried = _at(node, 4) or _at(node, 6) or _is_used(node, context, 1) or integer(node, "do_rotary", 0)
    if carried or width is None or not _is_plain(mask, context, (2, 3)) or not _is_float(node, context):
        return None
    sizes = integers(node, "qkv_hidden_sizes") or [width // 3] * 3
    steps = Scaled(node, context)
    made = steps.do("MatMul", *node.input[:2])
    made = steps.do("Add", made, node.input[2]) if _at(node, 2) else made
    parts = _split(steps, context, made, sizes)
    _attend(steps, context, parts, sizes, (mask, beside))
    return steps.nodes


def multi_head(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Queries, keys and values of rank 3, projected already; left alone with a past, or packed in one."""
    ends = [_at(node, index) for index in range(3)]
    widths = [_width(name, context) for name in ends]
    carried = any(_at(node, index) for index in range(6, 10)) or any(_is_used(node, context, at) for at in (1, 2, 3))
    if carried or None in widths or not _is_plain(_at(node, 4), context, (2,)) or not _is_float(node, context):
        return None
    steps = Scaled(node, context)
    sizes = [width or 0 for width in widths]
    if _at(node, 3):
        biases = _split(steps, context, _at(node, 3), sizes)
        ends = [steps.do("Add", value, bias) for value, bias in zip(ends, biases, strict=True)]
    _attend(steps, context, ends, sizes, (_at(node, 4), _at(node, 5)))
    return steps.nodes


def _at(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""


def _is_used(node: onnx.NodeProto, context: Context, index: int) -> bool:
    return index < len(node.output) and bool(node.output[index]) and node.output[index] in context.used


def _is_float(node: onnx.NodeProto, context: Context) -> bool:
    """Whether it computes in float32: the lowest number is another one in float16."""
    known = context.types.get(node.input[0])
    return known is not None and known.elem_type == TensorProto.FLOAT


def _is_plain(mask: str, context: Context, ranks: Sequence[int]) -> bool:
    """Whether there is no mask, or one with a number for each key."""
    return not mask or context.rank(mask) in ranks


def _width(name: str, context: Context) -> int | None:
    known = context.types.get(name)
    return known.shape[2] if known is not None and known.shape is not None and len(known.shape) == 3 else None


def _split(steps: Scaled, context: Context, value: str, sizes: Sequence[int]) -> list[str]:
    names = [context.names.fresh(f"{steps.target()}/{part}") for part in ("query", "key", "value")]
    lengths = steps.constant(np.array(sizes, np.int64), "sizes")
    steps.nodes.append(onnx.helper.make_node("Split", [value, lengths], names, axis=-1))
    return names


def _attend(
    steps: Scaled, context: Context, parts: Sequence[str], sizes: Sequence[int], masks: tuple[str, str]
) -> None:
    """Softmax of the scores, times the values; heads lie side by side in the last axis of what goes in and out.

    Masks: numbers for keys, and what is added to the scores; "" for none.
    """
    node, (mask, beside) = steps.node, masks
    heads = integer(node, "num_heads", 1)
    query, key, value = (
        _in_heads(steps, part, [0, 0, heads, size // heads], perm)
        for part, size, perm in zip(parts, sizes, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scale = cast("float", attribute(node, "scale", 0.0)) or (sizes[0] // heads) ** -0.5
    scores = steps.do("Mul", steps.do("MatMul", query, key), number(steps, context, scale, parts[0]))
    if integer(node, "unidirectional", 0):
        scores = _causal(steps, scores)
    if mask:
        scores = steps.do("Add", scores, _masked(steps, context, mask))
    if beside:
        scores = steps.do("Add", scores, beside)
    mixed = steps.do("MatMul", steps.do("Softmax", scores, axis=-1), value)
    joined = steps.do("Transpose", mixed, perm=[0, 2, 1, 3])
    steps.do("Reshape", joined, steps.axes(0, 0, sizes[2]), to=steps.target())


def _in_heads(steps: Scaled, value: str, shape: Sequence[int], perm: Sequence[int]) -> str:
    return steps.do("Transpose", steps.do("Reshape", value, steps.axes(*shape)), perm=perm)


def _masked(steps: Scaled, context: Context, mask: str) -> str:
    """What is added to each key's score: nothing where the mask is positive."""
    filler = cast("float", attribute(steps.node, "mask_filter_value", -10000.0))
    wide = steps.do("Unsqueeze", mask, steps.axes(*([1, 2] if context.rank(mask) == 2 else [1])))
    shown = steps.do("Greater", steps.cast(wide, TensorProto.FLOAT), steps.scalar(0, "zero"))
    return steps.do("Where", shown, steps.scalar(0, "zero"), steps.scalar(filler, "filler"))


def _causal(steps: Scaled, scores: str) -> str:
    """The last query sees all keys, each one before it one fewer."""
    shape = steps.do("Shape", scores)
    zero, one = steps.constant(np.array(0, np.int64), "zero"), steps.constant(np.array(1, np.int64), "one")
    rows, columns = (
        steps.do("Gather", shape, steps.constant(np.array(axis, np.int64), "axis"), axis=0) for axis in (2, 3)
    )
    row = steps.do("Add", steps.do("Range", zero, rows, one), steps.do("Sub", columns, rows))
    seen = steps.do(
        "LessOrEqual",
        steps.do("Unsqueeze", steps.do("Range", zero, columns, one), steps.axes(0)),
        steps.do("Unsqueeze", row, steps.axes(1)),
    )
    return steps.do("Where", seen, scores, steps.scalar(_LOWEST, "lowest"))


def embedding(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """The norm of words + positions + segments; how many words the mask shows, and that sum."""
    steps = Scaled(node, context)
    ids, segments, words, positions, parts, scale, shift, mask, places = (_at(node, index) for index in range(9))
    if (_is_used(node, context, 1) and not mask) or not ids or not words or not positions:
        return None
    found = steps.do("Gather", words, ids, axis=0)
    if places:
        placed = steps.do("Gather", positions, places, axis=0)
    else:
        length = steps.do("Slice", steps.do("Shape", ids), steps.axes(1), steps.axes(2))
        placed = steps.do("Slice", positions, steps.axes(0), length, steps.axes(0))
    found = steps.do("Add", found, placed)
    if segments and parts:
        found = steps.do("Add", found, steps.do("Gather", parts, segments, axis=0))
    epsilon = cast("float", attribute(node, "epsilon", 1e-12))
    steps.do("LayerNormalization", found, scale, shift, to=node.output[0], axis=-1, epsilon=epsilon)
    if _is_used(node, context, 1):
        steps.do("ReduceSum", mask, steps.axes(1), to=node.output[1], keepdims=0)
    if _is_used(node, context, 2):
        steps.do("Identity", found, to=node.output[2])
    return steps.nodes
