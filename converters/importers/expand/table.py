"""The table from (domain, operator) to functions that write a node in plain operators, and the walk that applies it.

ONNX Runtime's optimiser and its quantiser write operators of their own (com.microsoft), and ONNX has some that compute
with the steps of quantised tensors (QLinearConv, MatMulInteger). What is read, planned and written knows neither: it
finds the same arithmetic in ONNX's plain operators, quantised tensors between QuantizeLinear and DequantizeLinear.
What a function leaves alone (it gives None), and what has no row, stays as it is.
"""

from collections.abc import Mapping

import onnx

from converters.importers.expand import attention, fused, layers, quantised, sums
from converters.importers.rewriting import graphs
from converters.importers.rounds import Writer, write_out

DOMAIN = "com.microsoft"
_ROUNDS = 64
"""Most functions need no inferred type of what stands before them."""

_STANDARD: Mapping[str, Writer] = {
    "ConvInteger": sums.conv_integer,
    "DynamicQuantizeLinear": sums.dynamic_quantize,
    "MatMulInteger": sums.matmul_integer,
    "MeanVarianceNormalization": layers.mean_variance,
    "QLinearConv": quantised.conv,
    "QLinearMatMul": quantised.matmul,
}
_MICROSOFT: Mapping[str, Writer] = {
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
    write_out(made, _row, domain=DOMAIN, rounds=_ROUNDS, where=where)
    return made


def _row(node: onnx.NodeProto) -> Writer | None:
    if node.domain == DOMAIN:
        return _MICROSOFT.get(node.op_type)
    if node.domain == sums.REAL:
        return sums.real
    return _STANDARD.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
