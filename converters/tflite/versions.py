"""Which version of an operator a use of it needs, and which versions each runtime has.

A runtime refuses an operator whose version is above its own; one that is too low is run, and may be run wrongly by a
runtime that does not know what the operator says. So the lowest right version is written.
Source of the rules: tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from types import MappingProxyType

import msgspec

from converters.tflite.model import DType, Operator, Tensor, TfliteModel
from converters.tflite.use import Use


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """One row of versions.json.

    Attributes:
        since: TensorFlow release that first had version 1, 2, ...; "" where none is named. Source: runtime_version.cc.
        litert: highest version that LiteRT 2.3.0 loads, found by trying; 0 where it has no such operator.
        tflite_runtime: likewise of tflite-runtime 2.14.0.
    """

    since: tuple[str, ...] = ()
    litert: int = 0
    tflite_runtime: int = msgspec.field(default=0, name="tflite-runtime")


_KNOWN = msgspec.json.decode(
    resources.files("converters.tflite").joinpath("versions.json").read_bytes(), type=dict[str, _Known]
)

MAXIMA: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "litert": MappingProxyType({code: known.litert for code, known in _KNOWN.items() if known.litert}),
        "tflite-runtime": MappingProxyType(
            {code: known.tflite_runtime for code, known in _KNOWN.items() if known.tflite_runtime}
        ),
    }
)
"""Runtime -> operator -> the highest version that it loads; operators that it lacks are absent."""

_MINIMA = {"BROADCAST_TO": 2}
"""Operators whose first version no runtime has."""


def _broadcasts(use: Use) -> bool:
    """Whether it broadcasts more axes than the first kernels could."""
    first, second = use.input(0), use.input(1)
    return bool(first and second and first.shape != second.shape and max(len(first.shape), len(second.shape)) > 4)


_Rule = tuple[int, Callable[[Use], bool]]

_INT8: Mapping[DType, int] = {"int8": 2}
_INT8_INT16: Mapping[DType, int] = {"int8": 2, "int16": 3}
_NARROW: Mapping[DType, int] = {"int8": 2, "int16": 2}
_PADS: Mapping[DType, int] = {"int8": 2, "int16": 3, "bool": 5}

_BY_TYPE: Mapping[str, Mapping[DType, int]] = {
    "ABS": {"int8": 2, "uint8": 2, "int32": 5},
    "ADD": {"int8": 2, "int64": 4, "float16": 6},
    "ARG_MAX": {"int8": 2, "bool": 3},
    "ARG_MIN": {"int8": 2, "bool": 3},
    "AVERAGE_POOL_2D": _INT8_INT16,
    "BATCH_MATMUL": _INT8_INT16,
    "BATCH_TO_SPACE_ND": {"int8": 2, "int16": 4},
    "BROADCAST_TO": {"int8": 3, "int16": 3},
    "CONCATENATION": {"int8": 2, "int16": 3, "uint32": 4, "int4": 5, "float16": 6},
    "COS": {"float16": 2},
    "DEPTH_TO_SPACE": _INT8,
    "DEQUANTIZE": {"int8": 2, "int16": 3, "float16": 3, "int4": 6},
    "DYNAMIC_UPDATE_SLICE": {"float16": 3, "int16": 4, "int4": 5, "bfloat16": 6},
    "EQUAL": {"int8": 2, "string": 3, "int16": 5},
    "EXP": _NARROW,
    "FLOOR_DIV": {"float32": 2, "int8": 3, "int16": 3},
    "FLOOR_MOD": _NARROW,
    "GATHER": {"int8": 2, "bool": 3, "int16": 4, "int4": 7},
    "GATHER_ND": {"string": 2, "int16": 3, "bool": 5},
    "GELU": {"int8": 2, "uint8": 2},
    "GREATER": _INT8,
    "GREATER_EQUAL": _INT8_INT16,
    "L2_NORMALIZATION": _INT8,
    "LEAKY_RELU": {"int16": 2},
    "LESS": _INT8_INT16,
    "LESS_EQUAL": _INT8,
    "LOG": _NARROW,
    "LOGISTIC": _INT8_INT16,
    "LOG_SOFTMAX": _INT8,
    "MAXIMUM": {"int8": 2, "int16": 4},
    "MAX_POOL_2D": _INT8_INT16,
    "MEAN": _INT8_INT16,
    "MINIMUM": {"int8": 2, "int16": 4},
    "MIRROR_PAD": _INT8_INT16,
    "MUL": {"int8": 2, "int16": 4, "int64": 5, "complex64": 6, "uint32": 7, "float16": 8},
    "NOT_EQUAL": {"int8": 2, "string": 3, "int16": 4},
    "PACK": {"int8": 2, "int16": 3, "uint32": 4},
    "PAD": _PADS,
    "PADV2": _PADS,
    "RANGE": {"int64": 2},
    "REDUCE_MAX": _INT8_INT16,
    "REDUCE_MIN": _INT8_INT16,
    "REDUCE_PROD": _NARROW,
    "RELU": {"int8": 2, "uint8": 2, "int16": 3},
    "RELU6": _INT8_INT16,
    "RESIZE_BILINEAR": {"int8": 2, "int16": 4},
    "RESIZE_NEAREST_NEIGHBOR": {"int8": 2, "int16": 4},
    "REVERSE_V2": {"bool": 2, "int8": 3},
    "RSQRT": _INT8_INT16,
    "SIGN": {"int32": 2},
    "SIN": {"float16": 2},
    "SLICE": {"int8": 2, "string": 3, "int16": 4, "uint32": 6, "int4": 7, "float16": 8},
    "SOFTMAX": {"int8": 2, "int16": 3, "float16": 4},
    "SPACE_TO_BATCH_ND": {"int8": 2, "int16": 4},
    "SPACE_TO_DEPTH": _INT8,
    "SPLIT_V": _INT8,
    "SQRT": _NARROW,
    "SQUARED_DIFFERENCE": _INT8,
    "SQUEEZE": {"string": 2},
    "STRIDED_SLICE": {"int8": 2, "bool": 3, "string": 5, "uint32": 7},
    "SUB": {"int8": 2, "int64": 4},
    "SUM": _INT8,
    "SVDF": {"int8": 3},
    "TANH": _INT8_INT16,
    "TILE": {"string": 2, "int8": 3},
    "TOPK_V2": _INT8_INT16,
    "TRANSPOSE": {"int8": 2, "bool": 3, "int16": 5, "int4": 7, "bfloat16": 8, "float16": 9},
    "UNPACK": {"int8": 2, "uint8": 2, "bool": 3, "int16": 4, "float16": 5, "bfloat16": 5},
}
"""Operator -> type of its first input -> version."""

_CAST_TYPES: Mapping[DType, int] = {
    "uint32": 2, "int8": 3, "uint16": 4, "float16": 5, "float64": 5, "int4": 6, "bfloat16": 7,
}  # fmt: skip
_WIDE_BIAS = "quantized_bias_type"


def _int16_bias(use: Use) -> bool:
    return use.types("int16", "int8") and use.option(_WIDE_BIAS) != "float32"


def _asymmetric(use: Use) -> bool:
    return use.hybrid() and bool(use.option("asymmetric_quantize_inputs"))


def _no_bias(use: Use) -> bool:
    return use.input(2) is None


def _grouped(use: Use) -> bool:
    data, weights = use.input(0), use.input(1)
    return bool(data and weights and data.shape and weights.shape and data.shape[-1] != weights.shape[-1])


def _dilated(use: Use) -> bool:
    return use.option("dilation_w_factor") != 1 or use.option("dilation_h_factor") != 1


def _scales_up(use: Use) -> bool:
    """Whether a quantised product is multiplied by 1 or more to become steps of the output."""
    first, second = use.scales(0), use.scales(1)
    made = use.output()
    if first is None or second is None or made is None or made.quantization is None:
        return False
    return bool(first.scale[0] * second.scale[0] >= made.quantization.scale[0])


def _plain_int16(use: Use) -> bool:
    return use.types("int16") and use.scales(0) is None and use.scales(1) is None


def _rounded_int16(use: Use) -> bool:
    return use.types("int16") and use.makes("int16") and not use.option("pot_scale_int16")


def _casts(dtype: DType) -> Callable[[Use], bool]:
    return lambda use: use.types(dtype) or use.makes(dtype)


def _beyond(rank: int) -> Callable[[Use], bool]:
    return lambda use: use.rank() > rank


def _half_pixel(use: Use) -> bool:
    return bool(use.option("half_pixel_centers"))


_BROADCASTS_WIDELY: _Rule = (3, _broadcasts)
_HYBRID_CELL: Sequence[_Rule] = ((2, Use.hybrid), (3, _asymmetric))
_FOUR_AXES: Sequence[_Rule] = ((3, lambda use: use.rank() != 4),)
_PAD_RANK: Sequence[_Rule] = ((4, _beyond(4)),)

_RULES: Mapping[str, Sequence[_Rule]] = {
    "ABS": (
        (3, lambda use: use.types("int16")),
        (4, _plain_int16),
    ),
    "ADD": ((3, _rounded_int16), (5, _plain_int16)),
    "BATCH_MATMUL": ((4, _asymmetric),),
    "BATCH_TO_SPACE_ND": _FOUR_AXES,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _HYBRID_CELL,
    "BIDIRECTIONAL_SEQUENCE_RNN": _HYBRID_CELL,
    "CAST": tuple((version, _casts(dtype)) for dtype, version in _CAST_TYPES.items()),
    "CONV_2D": (
        (2, Use.hybrid),
        (3, lambda use: use.types("int8", "int8")),
        (4, lambda use: use.types("int16")),
        (5, lambda use: use.hybrid() and use.per_channel(1)),
        (6, _grouped),
        (7, lambda use: use.types("int8", "int4")),
        (8, _int16_bias),
    ),
    "DEPTHWISE_CONV_2D": (
        (2, _dilated),
        (3, lambda use: use.types("int8", "int8")),
        (4, Use.hybrid),
        (5, lambda use: use.types("int16")),
        (6, lambda use: use.hybrid() and use.per_channel(1)),
        (7, lambda use: use.types("int8", "int4")),
    ),
    "DEQUANTIZE": ((5, lambda use: use.types("int8") and use.per_channel(0)),),
    "DIV": ((2, _broadcasts),),
    "DYNAMIC_UPDATE_SLICE": ((2, lambda use: use.types(None, None, "int64")),),
    "EMBEDDING_LOOKUP": ((4, lambda use: use.types(None, "int4") or use.per_channel(1)),),
    "FAKE_QUANT": ((2, lambda use: bool(use.option("narrow_range"))),),
    "FILL": (
        (2, lambda use: use.types(None, "bool") or use.types(None, "string")),
        (3, lambda use: use.types(None, "int8") or use.types(None, "int16")),
        (4, lambda use: use.types(None, "float16")),
    ),
    "FULLY_CONNECTED": (
        (2, lambda use: use.option("weights_format") != "DEFAULT"),
        (3, Use.hybrid),
        (4, lambda use: use.types("int8", "int8")),
        (5, lambda use: bool(use.option("keep_num_dims"))),
        (6, _no_bias),
        (7, lambda use: use.types("int16")),
        (9, _asymmetric),
        (10, lambda use: use.types("int8", "int4")),
        (11, _int16_bias),
        (12, lambda use: use.hybrid() and use.per_channel(1)),
        (13, lambda use: use.types("int16", "int4")),
    ),
    "GATHER": ((5, lambda use: use.option("batch_dims") != 0), (6, lambda use: use.types(None, "int16"))),
    "GATHER_ND": ((4, lambda use: use.types(None, "int16")),),
    "LSTM": (
        (2, lambda use: use.option("kernel_type") == "BASIC"),
        (3, lambda use: use.hybrid(2)),
        (4, lambda use: use.hybrid(2) and bool(use.option("asymmetric_quantize_inputs"))),
    ),
    "MAXIMUM": (_BROADCASTS_WIDELY,),
    "MINIMUM": (_BROADCASTS_WIDELY,),
    "MUL": ((3, _scales_up), (7, _plain_int16)),
    "PAD": _PAD_RANK,
    "PADV2": _PAD_RANK,
    "QUANTIZE": (
        (2, lambda use: use.makes("int16") or not use.types("float32")),
        (3, lambda use: any(one and one.quantization and one.quantization.per_channel for one in use.outputs)),
        (4, lambda use: use.types("int4") or use.makes("int4")),
    ),
    "RESIZE_BILINEAR": ((3, _half_pixel),),
    "RESIZE_NEAREST_NEIGHBOR": ((3, lambda use: _half_pixel(use) or bool(use.option("align_corners"))),),
    "RNN": _HYBRID_CELL,
    "SELECT": (
        (2, lambda use: use.types(None, "int8")),
        (3, lambda use: max(map(use.rank, range(3))) > 4),
        (4, lambda use: use.types(None, "uint32")),
    ),
    "SELECT_V2": ((2, lambda use: use.types(None, "uint32")),),
    "SLICE": ((5, _beyond(4)),),
    "SPACE_TO_BATCH_ND": _FOUR_AXES,
    "SPARSE_TO_DENSE": (
        (2, lambda use: use.types(None, None, "int64")),
        (3, lambda use: use.types(None, None, "int8") or use.types(None, None, "uint8")),
    ),
    "SPLIT": (
        (2, lambda use: use.types(None, "int8")),
        (3, lambda use: use.types(None, "int32")),
        (4, lambda use: use.types(None, "int16")),
    ),
    "STRIDED_SLICE": (
        (4, _beyond(4)),
        (6, lambda use: bool(use.option("ellipsis_mask") or use.option("new_axis_mask"))),
        (8, lambda use: bool(use.option("offset"))),
    ),
    "SUB": (_BROADCASTS_WIDELY, (5, _rounded_int16)),
    "SVDF": ((2, Use.hybrid), (4, _asymmetric)),
    "TOPK_V2": ((3, lambda use: use.types(None, "int16")),),
    "TRANSPOSE": ((4, _beyond(4)), (6, _beyond(5)), (8, _beyond(6))),
    "TRANSPOSE_CONV": (
        (2, lambda use: use.types(None, "int8")),
        (3, lambda use: use.input(3) is not None),
        (4, lambda use: use.option("fused_activation_function") != "NONE"),
        (5, lambda use: use.types(None, "int8", "int16") and use.option(_WIDE_BIAS) != "float32"),
    ),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        (2, lambda use: use.hybrid(2)),
        (3, lambda use: use.hybrid(2) and bool(use.option("asymmetric_quantize_inputs"))),
        (4, lambda use: bool(use.option("diagonal_recurrent_tensors"))),
    ),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _HYBRID_CELL,
    "WHERE": ((2, lambda use: not use.types("bool")),),
}
"""Operator -> what else calls for which version."""


def needed_version(operator: Operator, tensors: Sequence[Tensor]) -> int:
    """The lowest version that says all of what `operator` does.

    Args:
        operator: its own version is not looked at.
        tensors: of its subgraph.
    """
    if operator.code == "CUSTOM":
        return operator.version
    use = Use.of(operator, tensors)
    first = use.input(0)
    by_type = _BY_TYPE.get(operator.code, {}).get(first.dtype, 1) if first else 1
    rules = [version for version, applies in _RULES.get(operator.code, ()) if applies(use)]
    return max(_MINIMA.get(operator.code, 1), by_type, *rules)


def with_versions(model: TfliteModel) -> TfliteModel:
    """`model` with the version on each operator that it needs."""
    subgraphs = [
        replace(one, operators=[replace(op, version=needed_version(op, one.tensors)) for op in one.operators])
        for one in model.subgraphs
    ]
    return replace(model, subgraphs=subgraphs)


def runtime_version(operators: Iterable[Operator]) -> str:
    """The oldest TensorFlow release whose TFLite has all of these versions; "" where none of them is known.

    What a file's metadata say as min_runtime_version; no runtime enforces it.
    """
    releases = [
        _KNOWN[one.code].since[one.version - 1]
        for one in operators
        if one.code in _KNOWN and one.version <= len(_KNOWN[one.code].since)
    ]
    return max(releases, key=_numbers, default="")


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)))
