"""Rules on scales and zero points that kernels assume and do not test.

Found by running one-operator int8 files against their float twins, in LiteRT 2.3.0 with and without XNNPACK and in
tflite-runtime 2.14.0: with other scales these operators give other numbers, in silence in at least one of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from converters.tflite.model import DType, Quantization, Tensor
from converters.tflite.use import QUANTIZED, Use

SAME_SCALE = frozenset({
    "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "DYNAMIC_UPDATE_SLICE",
    "EXPAND_DIMS", "FILL", "GATHER", "GATHER_ND", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "NEG", "PACK",
    "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
    "REVERSE_SEQUENCE", "REVERSE_V2", "SCATTER_ND", "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TOPK_V2", "TRANSPOSE", "UNPACK",
})  # fmt: skip
"""Operators that hand steps on as they are: inputs and outputs must have one scale and zero point."""

_RESCALES_UINT8 = frozenset({"CONCATENATION"})
"""Of those, the ones whose uint8 kernel takes any scales."""

_ZERO_IS_ZERO = frozenset({"NEG", "SCATTER_ND"})
"""Operators that take step 0 for the real 0."""

_Fixed = Mapping[DType, tuple[float, int]]
FIXED: Mapping[str, _Fixed] = {
    "L2_NORMALIZATION": {"int8": (1 / 128, 0), "uint8": (1 / 128, 128)},
    "LOGISTIC": {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)},
    "LOG_SOFTMAX": {"int8": (16 / 256, 127), "uint8": (16 / 256, 255)},
    "SOFTMAX": {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)},
    "TANH": {"int8": (1 / 128, 0), "uint8": (1 / 128, 128), "int16": (1 / 32768, 0)},
}
"""Operator -> type of the output -> the scale and zero point that it has whatever the file says.

Source: TFLite's quantization specification; the CPU kernels of TANH take others, which delegates need not.
"""


_COMPUTES = frozenset({
    "ABS", "ADD", "BATCH_MATMUL", "DEQUANTIZE", "DIV", "ELU", "EXP", "GELU", "HARD_SWISH", "L2_NORMALIZATION",
    "LEAKY_RELU", "LOG", "LOGISTIC", "LOG_SOFTMAX", "MEAN", "MUL", "PRELU", "QUANTIZE", "REDUCE_PROD", "RELU", "RELU6",
    "RELU_0_TO_1", "RELU_N1_TO_1", "RSQRT", "SOFTMAX", "SQRT", "SQUARED_DIFFERENCE", "SUB", "SUM", "TANH",
})  # fmt: skip
"""Operators that compute with scales, beside those with weights: without any, all is 0, or the process is aborted."""

_EIGHT_BITS: frozenset[DType] = frozenset({"int8", "uint8"})
"""Types that these operators take with scales alone; int16 is a number of its own to some."""


class Weighted(NamedTuple):
    """Where an operator has its data, weights and bias, and the weights' axis of output channels."""

    data: int
    weights: int
    bias: int
    axis: int


WEIGHTED: Mapping[str, Weighted] = {
    "CONV_2D": Weighted(0, 1, 2, 0),
    "CONV_3D": Weighted(0, 1, 2, 4),
    "DEPTHWISE_CONV_2D": Weighted(0, 1, 2, 3),
    "FULLY_CONNECTED": Weighted(0, 1, 2, 0),
    "TRANSPOSE_CONV": Weighted(2, 1, 3, 0),
}

_BIAS_BY_OPTION = frozenset({"CONV_2D", "TRANSPOSE_CONV"})

_PER_CHANNEL_INPUTS: Mapping[str, Sequence[int]] = {
    "BATCH_MATMUL": (1,), "DENSIFY": (0,), "DEQUANTIZE": (0,), "EMBEDDING_LOOKUP": (1,),
}  # fmt: skip
"""Inputs beside weights and biases that may have a scale for each channel."""

_SAME = 1e-5
"""Relative: across 256 steps two such scales differ by 0.003 of a step, which no rounding shows."""
_PRODUCT = 1e-4
"""Relative, of a bias's scale. Float32 leaves 2e-7; at this, a bias as large as the whole output is 0.03 steps off."""
_NEAR_FIXED = 1e-3
"""Relative, as the kernels allow it themselves."""


def scale_problems(use: Use) -> Iterator[str]:
    """What is wrong with the scales of one operator's tensors, each as the rest of a sentence."""
    if use.code in WEIGHTED:
        yield from _weights(use, WEIGHTED[use.code])
    if use.code in SAME_SCALE:
        yield from _same_scale(use)
    yield from unscaled(use)
    yield from _fixed(use)
    yield from _per_channel(use)


def tensor_problems(tensor: Tensor) -> Iterator[str]:
    """What is wrong with a tensor's own scales."""
    scales = tensor.quantization
    if scales is None:
        return
    if not len(scales.scale) == len(scales.zero_point) > 0:
        yield f"{len(scales.scale)} scales and {len(scales.zero_point)} zero points"
    if not (np.isfinite(scales.scale).all() and (scales.scale > 0).all()):
        yield "a scale that is no positive number"
    if len(scales.scale) > 1:
        channels = tensor.shape[scales.axis] if 0 <= scales.axis < len(tensor.shape) else None
        if channels != len(scales.scale):
            yield f"{len(scales.scale)} scales along axis {scales.axis} of the shape {tensor.shape}"
    if tensor.dtype in QUANTIZED:
        limits = (-8, 7) if tensor.dtype == "int4" else _limits(tensor.dtype)
        if ((scales.zero_point < limits[0]) | (scales.zero_point > limits[1])).any():
            yield f"a zero point outside of {tensor.dtype}"


def _limits(dtype: DType) -> tuple[int, int]:
    found = np.iinfo(np.dtype(dtype))
    return int(found.min), int(found.max)


def _weights(use: Use, slots: Weighted) -> Iterator[str]:
    data, weights, bias = use.input(slots.data), use.input(slots.weights), use.input(slots.bias)
    if weights is None or weights.quantization is None or weights.dtype not in QUANTIZED:
        return
    scales = weights.quantization
    symmetric = scales.per_channel or weights.data is not None
    if weights.dtype != "uint8" and symmetric and scales.zero_point.any():
        yield f"the weights {weights.name!r} have zero points other than 0, which the kernel does not read"
    if scales.per_channel and scales.axis != slots.axis:
        yield f"the weights {weights.name!r} have their scales along axis {scales.axis}, the kernel along {slots.axis}"
    if data is not None and bias is not None:
        yield from _bias_type(use, data, bias)
    if data is None or data.quantization is None or bias is None or bias.quantization is None:
        return
    if bias.dtype in {"int32", "int64"}:
        yield from _bias(bias, bias.quantization, data.quantization, scales)


def _bias_type(use: Use, data: Tensor, bias: Tensor) -> Iterator[str]:
    """Beside 16-bit data a bias has 64 bits, and these kernels read as many where the options do not say 32."""
    if use.code not in _BIAS_BY_OPTION or data.dtype != "int16" or bias.dtype != "int32":
        return
    if use.option("quantized_bias_type") != "int32":
        yield f"the bias {bias.name!r} is int32, and the kernel reads 64 bits where quantized_bias_type is not int32"


def _bias(bias: Tensor, own: Quantization, data: Quantization, weights: Quantization) -> Iterator[str]:
    if own.zero_point.any():
        yield f"the bias {bias.name!r} has zero points other than 0, which the kernel does not read"
    product = data.scale[:1].astype(np.float64) * weights.scale
    if len(own.scale) not in {1, len(product)}:
        yield f"the bias {bias.name!r} has {len(own.scale)} scales, the weights {len(product)}"
    elif not np.allclose(own.scale, product, rtol=_PRODUCT, atol=0):
        worst = int(np.argmax(np.abs(own.scale / product - 1)))
        got, want = np.broadcast_to(own.scale, product.shape)[worst], product[worst]
        yield (
            f"the bias {bias.name!r} has the scale {got:.7g} in channel {worst}; the kernel takes the data's scale x "
            f"the weights', which is {want:.7g}"
        )


def _same_scale(use: Use) -> Iterator[str]:
    made = use.output()
    if made is None or made.dtype not in QUANTIZED or (made.dtype == "uint8" and use.code in _RESCALES_UINT8):
        return
    others = [one for one in (*use.inputs, *use.outputs[1:]) if one is not None and one.dtype == made.dtype]
    for one in others:
        if not _alike(one, made):
            yield (
                f"{one.name!r} ({_said(one.quantization)}) and {made.name!r} ({_said(made.quantization)}) must have "
                f"one scale and zero point, because the kernel hands steps on as they are"
            )
    if use.code in _ZERO_IS_ZERO and made.quantization is not None and made.quantization.zero_point.any():
        yield f"{made.name!r} must have the zero point 0, because the kernel takes step 0 for the number 0"


def _alike(one: Tensor, made: Tensor) -> bool:
    first, second = one.quantization, made.quantization
    if first is None or second is None:
        # A constant without scales is taken to be in the output's.
        return first is second or (first is None and one.data is not None)
    return (
        first.scale.shape == second.scale.shape
        and np.allclose(first.scale, second.scale, rtol=_SAME, atol=0)
        and np.array_equal(first.zero_point, second.zero_point)
    )


def unscaled(use: Use) -> Iterator[str]:
    """Tensors of 8 bits without scales, of an operator that computes with them; each as the rest of a sentence."""
    if use.code not in _COMPUTES and use.code not in WEIGHTED:
        return
    for one in (*use.inputs, *use.outputs):
        if one is not None and one.dtype in _EIGHT_BITS and one.quantization is None:
            yield f"{one.name!r} is {one.dtype} without a scale, which the kernel takes for 0"


def _fixed(use: Use) -> Iterator[str]:
    made = use.output()
    fixed = FIXED.get(use.code, {}).get(made.dtype) if made else None
    if made is None or fixed is None or made.quantization is None:
        return
    scale, zero_point = fixed
    own = made.quantization
    if not np.allclose(own.scale, scale, rtol=_NEAR_FIXED, atol=0) or (own.zero_point != zero_point).any():
        wanted = _said(Quantization(np.array([scale], np.float32), np.array([zero_point])))
        yield f"{made.name!r} ({_said(own)}) must have {wanted}, which the kernel computes in"


def _per_channel(use: Use) -> Iterator[str]:
    slots = WEIGHTED.get(use.code)
    allowed = (slots.weights, slots.bias) if slots else _PER_CHANNEL_INPUTS.get(use.code, ())
    inputs = [one for index, one in enumerate(use.inputs) if index not in allowed]
    outputs = () if use.code == "QUANTIZE" else use.outputs
    for one in (*inputs, *outputs):
        if one is not None and one.dtype in QUANTIZED and one.quantization and one.quantization.per_channel:
            yield f"{one.name!r} has {len(one.quantization.scale)} scales where the kernel reads the first alone"


def _said(scales: Quantization | None) -> str:
    if scales is None:
        return "no scale"
    more = ", ..." if scales.per_channel else ""
    return f"scale {scales.scale[0]:.7g}{more}, zero point {scales.zero_point[0]}{more}"
