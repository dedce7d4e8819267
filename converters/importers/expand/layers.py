"""Normalisations and activations of ONNX Runtime's optimiser, and operators that became ONNX's own later.

Source: com.microsoft's schemas in ONNX Runtime 1.32.
"""

from typing import cast

import onnx

from converters.importers.expand.quantised import Scaled
from converters.importers.rewriting import Context, attribute, changed, integer, text


def number(steps: Scaled, context: Context, value: float, like: str) -> str:
    """A number of the type that `like` has."""
    made = context.scalar_like(value, like, f"{steps.target()}/number")
    steps.nodes += made
    return str(made[-1].output[0])


def gelu(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Gelu, BiasGelu, and FastGelu, which approximates it by tanh."""
    steps = Scaled(node, context)
    x = steps.do("Add", steps.given(0), steps.given(1)) if steps.given(1) else steps.given(0)
    how = "tanh" if node.op_type == "FastGelu" else "none"
    steps.do("Gelu", x, to=node.output[0], approximate=how)
    return steps.nodes


def quick_gelu(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """X sigmoid(alpha x)."""
    steps, alpha = Scaled(node, context), cast("float", attribute(node, "alpha", 1.702))
    inner = steps.do("Mul", node.input[0], number(steps, context, alpha, node.input[0]))
    steps.do("Mul", node.input[0], steps.do("Sigmoid", inner), to=node.output[0])
    return steps.nodes


def bias_softmax(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Over the last axis, of data and bias that broadcast as ONNX's Add does."""
    rank = context.rank(node.input[0])
    inner = integer(node, "is_inner_broadcast", 0)
    if rank is None or integer(node, "axis", 1) % rank != rank - 1 or (inner and rank != context.rank(node.input[1])):
        return None
    steps = Scaled(node, context)
    steps.do("Softmax", steps.do("Add", *node.input[:2]), to=node.output[0], axis=-1)
    return steps.nodes


def _epsilon(node: onnx.NodeProto, default: float) -> float:
    return cast("float", attribute(node, "epsilon", default))


def rms_norm(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """X / sqrt(mean(x^2) + epsilon) times the scale; over the last axes."""
    axis, rank = integer(node, "axis", -1), context.rank(node.input[0])
    if rank is None and axis != -1:
        return None
    axes = list(range(axis % rank, rank)) if rank else [-1]
    steps = Scaled(node, context)
    _rms(steps, context, (steps.given(0), steps.given(1)), _epsilon(node, 1e-5), axes)
    return steps.nodes


def _rms(steps: Scaled, context: Context, ends: tuple[str, str], epsilon: float, axes: list[int]) -> None:
    """Ends: what is normalised, and its scale."""
    x, scale = ends
    mean = steps.do("ReduceMean", steps.do("Mul", x, x), steps.axes(*axes))
    root = steps.do("Sqrt", steps.do("Add", mean, number(steps, context, epsilon, x)))
    _reciprocal(steps, root, 1)
    steps.do("Mul", steps.do("Div", x, root), scale, to=steps.target())


def _reciprocal(steps: Scaled, root: str, index: int) -> None:
    """The output that tells 1 / sqrt(...), where it is wanted."""
    if steps.optional_target(index):
        steps.do("Reciprocal", root, to=steps.optional_target(index))


def skip_norm(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """The norm of input + skip + bias, and that sum; inputs are input, skip, gamma, (beta,) bias."""
    plain = node.op_type == "SkipLayerNormalization"
    steps, used = Scaled(node, context), context.used
    bias = steps.given(4 if plain else 3)
    summed = steps.optional_target(3) if steps.optional_target(3) in used else ""
    total = steps.do("Add", *node.input[:2], to="" if bias else summed)
    total = steps.do("Add", total, bias, to=summed) if bias else total
    if any(name and name in used for name in node.output[1:3]):
        return None
    if not plain:
        _rms(steps, context, (total, node.input[2]), _epsilon(node, 1e-12), [-1])
        return steps.nodes
    scale, shift = node.input[2], steps.given(3)
    inputs = [total, scale, *([shift] if shift else [])]
    steps.do("LayerNormalization", *inputs, to=node.output[0], axis=-1, epsilon=_epsilon(node, 1e-12))
    return steps.nodes


def grid_sample(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto] | None:
    """ONNX's operator of opset 20 under other names of its modes."""
    modes = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}
    mode = modes.get(text(node, "mode", "bilinear"))
    if mode is None:
        return None
    made = changed(node, mode=mode)
    made.domain = ""
    return [made]


def expand_dims(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    known = context.constants.get(node.input[1])
    if known is None:
        return None
    steps = Scaled(node, context)
    steps.do("Unsqueeze", node.input[0], steps.axes(int(known.reshape(()))), to=node.output[0])
    return steps.nodes


def plain(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto] | None:
    """Operators that ONNX has now, as they are."""
    made = changed(node)
    made.domain = ""
    return [made]


def mean_variance(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto] | None:
    """The axes written on the node where it relies on the default: ONNX's checker knows no default in a function."""
    return [changed(node, axes=[0, 2, 3])] if attribute(node, "axes") is None else None
