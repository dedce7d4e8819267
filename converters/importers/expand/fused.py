"""Convolutions and products that ONNX Runtime fused with what stood behind or before them.

Source: com.microsoft's schemas in ONNX Runtime 1.32 (FusedConv, FusedGemm, FusedMatMul, Nhwc...).
"""

from collections.abc import Mapping, Sequence
from typing import cast

import onnx

from converters.importers.expand.quantised import Scaled, kept
from converters.importers.rewriting import Context, attribute, integer, text

_ACTIVATIONS: Mapping[str, Sequence[tuple[str, float]]] = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "Softplus": (), "Softsign": (), "HardSwish": (),
    "LeakyRelu": (("alpha", 0.01),), "Elu": (("alpha", 1.0),), "ThresholdedRelu": (("alpha", 1.0),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
}  # fmt: skip
"""Parameters in their order, with the plain operator's defaults."""


def _numbers(node: onnx.NodeProto) -> list[float]:
    """The activation's parameters: a list of a FusedConv, attributes by name of a FusedGemm."""
    listed = attribute(node, "activation_params")
    if listed is not None:
        return list(cast("Sequence[float]", listed))
    named = [attribute(node, f"activation_{name}") for name in ("alpha", "beta")]
    return [cast("float", one) for one in named if one is not None]


def _known(node: onnx.NodeProto) -> bool:
    name = text(node, "activation", "")
    return not name or name in _ACTIVATIONS or (name == "Clip" and len(_numbers(node)) == 2)


def _activated(steps: Scaled, node: onnx.NodeProto, value: str) -> str:
    name, numbers = text(node, "activation", ""), _numbers(node)
    if not name:
        return value
    if name == "Clip":
        return steps.do("Clip", value, *(steps.scalar(number, "bound") for number in numbers))
    parameters = dict(_ACTIVATIONS[name])
    parameters |= dict(zip(parameters, numbers, strict=False))
    return steps.like(name, [value], parameters)


def conv(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Input 3, where there is one, is added before the activation."""
    if not _known(node):
        return None
    steps = Scaled(node, context)
    made = steps.like("Conv", [name for name in node.input[:3] if name], kept(node))
    if steps.given(3):
        made = steps.do("Add", made, steps.given(3))
    steps.do("Identity", _activated(steps, node, made), to=node.output[0])
    return steps.nodes


def nhwc_conv(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Data with channels last; the weights too."""
    if not _known(node) or any(context.rank(name) != 4 for name in node.input[:2]):
        return None
    steps = Scaled(node, context)
    x, w = steps.channels(steps.given(0), first=True), steps.channels(steps.given(1), first=True)
    made = steps.like("Conv", [x, w, *([steps.given(2)] if steps.given(2) else [])], kept(node))
    if steps.given(3):
        made = steps.do("Add", made, steps.channels(steps.given(3), first=True))
    steps.do("Transpose", _activated(steps, node, made), to=node.output[0], perm=[0, 2, 3, 1])
    return steps.nodes


def nhwc_pool(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    if context.rank(node.input[0]) != 4:
        return None
    steps = Scaled(node, context)
    made = steps.like("MaxPool", [steps.channels(steps.given(0), first=True)], kept(node))
    steps.do("Transpose", made, to=node.output[0], perm=[0, 2, 3, 1])
    return steps.nodes


def gemm(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    if not _known(node):
        return None
    steps = Scaled(node, context)
    own = [entry.name for entry in node.attribute if entry.name.startswith("activation")]
    made = steps.like("Gemm", [name for name in node.input if name], kept(node, *own))
    steps.do("Identity", _activated(steps, node, made), to=node.output[0])
    return steps.nodes


def matmul(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Alpha times the product of matrices that may lie transposed; batches in another order are left alone."""
    turned = [integer(node, name, 0) for name in ("transA", "transB")]
    if any(integer(node, name, 0) for name in ("transBatchA", "transBatchB")) or not _known(node):
        return None
    ranks = [context.rank(name) for name in node.input[:2]]
    if any(turn and rank is None for turn, rank in zip(turned, ranks, strict=True)):
        return None
    steps = Scaled(node, context)
    sides = [
        steps.do("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2]) if turn and (rank or 0) > 1 else name
        for name, turn, rank in zip(node.input[:2], turned, [rank or 0 for rank in ranks], strict=True)
    ]
    made, alpha = steps.do("MatMul", *sides), cast("float", attribute(node, "alpha", 1.0))
    if alpha != 1:
        factor = context.scalar_like(
            alpha, made if context.types.get(node.input[0]) is None else node.input[0], "alpha"
        )
        steps.nodes += factor
        made = steps.do("Mul", made, factor[-1].output[0])
    steps.do("Identity", _activated(steps, node, made), to=node.output[0])
    return steps.nodes
