"""The table from (domain, operator) to functions that write a node in plain operators, and the walk that applies it.

ONNX Runtime's optimiser and its quantiser write operators of their own (com.microsoft), and ONNX has some that compute
with the steps of quantised tensors (QLinearConv, MatMulInteger). What is read, planned and written knows neither: it
finds the same arithmetic in ONNX's plain operators, quantised tensors between QuantizeLinear and DequantizeLinear.
What a function leaves alone (it gives None), and what has no row, stays as it is.
"""

from collections.abc import Callable, Mapping

import onnx

from converters.importers.expand import attention, fused, layers, quantised, sums
from converters.importers.rewriting import Context, changed, context_of, graphs

DOMAIN = "com.microsoft"
_ROUNDS = 64
"""A node behind one of com.microsoft has no inferred type before that is expanded; most functions need none."""

Expand = Callable[[onnx.NodeProto, Context], list[onnx.NodeProto] | None]

_STANDARD: Mapping[str, Expand] = {
    "ConvInteger": sums.conv_integer,
    "DynamicQuantizeLinear": sums.dynamic_quantize,
    "MatMulInteger": sums.matmul_integer,
    "MeanVarianceNormalization": layers.mean_variance,
    "QLinearConv": quantised.conv,
    "QLinearMatMul": quantised.matmul,
}
_MICROSOFT: Mapping[str, Expand] = {
    "Attention": attention.attention,
    "BiasGelu": layers.gelu,
    "BiasSoftmax": layers.bias_softmax,
    "DequantizeLinear": quantised.plain,
    "DynamicQuantizeMatMul": sums.dynamic_matmul,
    "EmbedLayerNormalization": attention.embedding,
    "ExpandDims": layers.expand_dims,
    "FastGelu": layers.gelu,
    "FusedConv": fused.conv,
    "FusedGemm": fused.gemm,
    "FusedMatMul": fused.matmul,
    "FusedMatMulActivation": fused.matmul,
    "GatherND": layers.plain,
    "Gelu": layers.gelu,
    "GridSample": layers.grid_sample,
    "LayerNormalization": layers.plain,
    "MatMulIntegerToFloat": sums.matmul_to_float,
    "MultiHeadAttention": attention.multi_head,
    "NhwcConv": fused.nhwc_conv,
    "NhwcFusedConv": fused.nhwc_conv,
    "NhwcMaxPool": fused.nhwc_pool,
    "QGemm": quantised.gemm,
    "QLinearAdd": quantised.binary,
    "QLinearAveragePool": quantised.pool,
    "QLinearConcat": quantised.concat,
    "QLinearConv": quantised.conv,
    "QLinearGlobalAveragePool": quantised.pool,
    "QLinearLeakyRelu": quantised.unary,
    "QLinearMul": quantised.binary,
    "QLinearReduceMean": quantised.reduce_mean,
    "QLinearSigmoid": quantised.unary,
    "QLinearSoftmax": quantised.softmax,
    "QLinearWhere": quantised.where,
    "QuantizeLinear": quantised.plain,
    "QuickGelu": layers.quick_gelu,
    "Range": layers.plain,
    "RMSNormalization": layers.rms_norm,
    "SimplifiedLayerNormalization": layers.rms_norm,
    "SkipLayerNormalization": layers.skip_norm,
    "SkipSimplifiedLayerNormalization": layers.skip_norm,
    "TransposeMatMul": fused.matmul,
    "Trilu": layers.plain,
}
_ADOPTED = {"LayerNormalization": 17, "SimplifiedLayerNormalization": 1 << 31}
"""What ONNX Runtime puts into ONNX's own domain before, or without, its being there; the opset from which it is."""


def adopt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let operators that are ONNX Runtime's own be in its domain, where its optimiser wrote them into ONNX's.

    Args:
        model: any; it is not changed.

    Returns:
        A copy, or the model itself where there are none of these.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    if not any(_is_adopted(node, opset) for graph in graphs(model.graph) for node in graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for graph in graphs(made.graph):
        for node in graph.node:
            if _is_adopted(node, opset):
                node.domain = DOMAIN
    if all(entry.domain != DOMAIN for entry in made.opset_import):
        made.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return made


def _is_adopted(node: onnx.NodeProto, opset: int) -> bool:
    return node.domain in {"", "ai.onnx"} and opset < _ADOPTED.get(node.op_type, 0)


def expand(model: onnx.ModelProto, *, where: str) -> onnx.ModelProto:
    """Write what has a row in the table in plain operators of opset 20.

    Args:
        model: a checked model of opset 20; it is not changed.
        where: how messages name it.

    Returns:
        A model that computes the same; the same object where there is nothing to do. Names, types and order of inputs
        and outputs are as they were. Sums of integers that float32 does not hold stay what they are, and so do nodes
        inside of bodies.
    """
    if not any(_row(node) for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    sums.as_floats(made.graph)
    for _ in range(_ROUNDS):
        if not _round(made, where):
            break
    _drop_domain(made)
    return made


def _row(node: onnx.NodeProto) -> Expand | None:
    if node.domain == DOMAIN:
        return _MICROSOFT.get(node.op_type)
    if node.domain == sums.REAL:
        return sums.real
    return _STANDARD.get(node.op_type) if node.domain in {"", "ai.onnx"} else None


def _round(model: onnx.ModelProto, where: str) -> bool:
    """Expand what can be with what is known now; whether anything was."""
    context = context_of(model, where=where, infer=True)
    nodes: list[onnx.NodeProto] = []
    found = False
    for node in model.graph.node:
        made = _expanded(node, context)
        found |= made is not None
        nodes += [node] if made is None else made
    if found:
        copies = [changed(node) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return found


def _expanded(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    row = _row(node)
    made = row(node, context) if row else None
    for number, inner in enumerate(made or ()):
        if node.name and inner.op_type != "Constant":
            inner.name = context.names.fresh(f"{node.name}/{inner.op_type}_{number}")
    return made


def _drop_domain(model: onnx.ModelProto) -> None:
    if any(node.domain == DOMAIN for graph in graphs(model.graph) for node in graph.node):
        return
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
