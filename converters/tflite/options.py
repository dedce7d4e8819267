"""Operators' options: from names and values to the schema's tables, and back.

A field's name is the schema's own, in snake case; the value of a field that is an enum is the enum's name ("SAME",
"RELU6"; "float32" where it is a tensor type).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from converters.tflite.enums import OPERATORS, SCHEMA, TYPES, members
from converters.tflite.model import Option, Options

_SHARED: Mapping[str, str] = {
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions",
    **dict.fromkeys(("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"), "Pool2DOptions"),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions"),
    **dict.fromkeys(("MEAN", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN"), "ReducerOptions"),
    **dict.fromkeys(("REDUCE_PROD", "SUM"), "ReducerOptions"),
    **dict.fromkeys(("MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM"), "RandomOptions"),
}
"""Operators whose options have not the operator's own name."""


def _tables() -> Mapping[str, str]:
    """The schema names an operator's options after it: CONV_2D has Conv2DOptions, BATCH_MATMUL BatchMatMulOptions."""
    kinds = (*members("BuiltinOptions"), *members("BuiltinOptions2"))
    named = {kind.removesuffix("Options").upper(): kind for kind in kinds}
    own = {code: named.get(code.replace("_", "")) for code in OPERATORS}
    return {code: name for code, name in own.items() if name} | dict(_SHARED)


TABLES: Mapping[str, str] = _tables()
"""Operator -> the table of its options; operators that are absent have none."""

_ENUMS: Mapping[str, str] = {
    "algorithm": "RngAlgorithm", "combiner": "CombinerType", "compare_type": "StablehloComparisonType",
    "comparison_direction": "StablehloComparisonDirection", "fused_activation_function": "ActivationFunctionType",
    "idx_out_type": "TensorType", "in_data_type": "TensorType", "kernel_type": "LSTMKernelType",
    "key_dtype": "TensorType", "mode": "MirrorPadMode", "out_data_type": "TensorType", "out_type": "TensorType",
    "output_type": "TensorType", "padding": "Padding", "quantized_bias_type": "TensorType",
    "reduce_function": "ReduceWindowFunction", "type": "LSHProjectionType", "value_dtype": "TensorType",
    "weights_format": "FullyConnectedOptionsWeightsFormat",
}  # fmt: skip
"""Scalar field -> its enum; a field of that name is of that enum in every table that has it as one number."""

_STARTS: Mapping[str, Options] = {
    "Conv2DOptions": {"stride_w": 1, "stride_h": 1},
    "Conv3DOptions": {"stride_d": 1, "stride_w": 1, "stride_h": 1},
    "DepthwiseConv2DOptions": {"stride_w": 1, "stride_h": 1, "depth_multiplier": 1},
    "LSTMOptions": {"fused_activation_function": "TANH"},
    "BidirectionalSequenceLSTMOptions": {"fused_activation_function": "TANH"},
    "UnidirectionalSequenceLSTMOptions": {"fused_activation_function": "TANH"},
    "LocalResponseNormalizationOptions": {"radius": 5, "bias": 1.0, "alpha": 1.0, "beta": 0.5},
    "Pool2DOptions": {"stride_w": 1, "stride_h": 1},
    "SoftmaxOptions": {"beta": 1.0},
    "TransposeConvOptions": {"stride_w": 1, "stride_h": 1},
}
"""What is written for an absent field, where the schema's own default (0) would run and be wrong or slow."""

_REQUIRED: Mapping[str, Sequence[str]] = {
    "ArgMaxOptions": ("output_type",),
    "ArgMinOptions": ("output_type",),
    "CallOnceOptions": ("init_subgraph_index",),
    "DepthToSpaceOptions": ("block_size",),
    "IfOptions": ("then_subgraph_index", "else_subgraph_index"),
    "LeakyReluOptions": ("alpha",),
    "PackOptions": ("values_count",),
    "Pool2DOptions": ("padding", "filter_width", "filter_height"),
    "ShapeOptions": ("out_type",),
    "SpaceToDepthOptions": ("block_size",),
    "SplitOptions": ("num_splits",),
    "SplitVOptions": ("num_splits",),
    "UnpackOptions": ("num",),
    "WhileOptions": ("cond_subgraph_index", "body_subgraph_index"),
}
"""Fields that nothing sensible stands for."""

_CUSTOM = "custom_options"
"""The bytes of a custom operator's options, which have no table."""


class Packed(NamedTuple):
    """Options as the generated OperatorT holds them.

    Attributes:
        field: of OperatorT ("builtinOptions", "builtinOptions2", "customOptions"), "" for no options at all.
        kind: number of the union's member; 0 for custom options.
        table: the generated object; bytes for custom options.
    """

    field: str
    kind: int = 0
    table: Any = None


def pack_options(code: str, options: Options) -> Packed:
    """Options for the writer. Absent fields have the schema's default, or a better one where that would bite.

    Raises:
        ValueError: the operator has no such option, or lacks one that must be said, or a value is not of the
            field's kind. A mistake of whoever made the operator: no file can cause it.
    """
    if code == "CUSTOM":
        return Packed("customOptions", 0, bytes(_vector(code, _CUSTOM, options[_CUSTOM]))) if options else Packed("")
    name = TABLES.get(code)
    if name is None:
        if options:
            raise ValueError(f"{code} has no options, given {sorted(options)}")
        return Packed("")
    made = getattr(SCHEMA, name + "T")()
    fields = _fields(name)
    missing = [field for field in _REQUIRED.get(name, ()) if field not in options]
    unknown = [field for field in options if field not in fields]
    if missing or unknown:
        raise ValueError(f"options of {code} lack {missing} and do not know {unknown}")
    for field, value in {**_STARTS.get(name, {}), **options}.items():
        setattr(made, fields[field].generated, _encoded(code, field, fields[field], value))
    union, kind = _member(name)
    return Packed(union, kind, made)


def options_of(code: str, generated: object) -> Options:
    """The options that a generated table holds, every field named; vectors and strings that are absent are left out.

    Args:
        code: of the operator.
        generated: its ...OptionsT, or None where the file has no options for it; bytes of a custom operator.

    Raises:
        ValueError: the table is another operator's, or an enum has no such number. The reader says of which file.
    """
    if generated is None:
        return {}
    if isinstance(generated, bytes | bytearray | memoryview):
        return {_CUSTOM: bytes(generated)}
    name = TABLES.get(code)
    if type(generated).__name__ != f"{name}T":
        raise ValueError(f"{code} with the options {type(generated).__name__.removesuffix('T')}")
    found: dict[str, Option] = {}
    for field, spec in _fields(str(name)).items():
        value = getattr(generated, spec.generated)
        if value is not None:
            found[field] = _decoded(code, field, spec, value)
    return found


@cache
def defaults(code: str) -> Options:
    """What is written for fields that an operator's options leave out."""
    name = TABLES.get(code)
    if name is None:
        return {}
    return {**options_of(code, getattr(SCHEMA, name + "T")()), **_STARTS.get(name, {})}


class _Field(NamedTuple):
    """generated: the attribute's name; default: its value in a new table; enum: "" for plain values."""

    generated: str
    default: Any
    enum: str


@cache
def _fields(name: str) -> Mapping[str, _Field]:
    found = {}
    for generated, default in vars(getattr(SCHEMA, name + "T")()).items():
        snake = re.sub(r"(?<!^)([A-Z])", lambda match: "_" + match[1].lower(), generated)
        scalar = isinstance(default, int) and not isinstance(default, bool)
        found[snake] = _Field(generated, default, _ENUMS.get(snake, "") if scalar else "")
    return found


@cache
def _numbers(enum: str) -> Mapping[str, int]:
    return TYPES if enum == "TensorType" else members(enum)


@cache
def _names(enum: str) -> Mapping[int, str]:
    return {number: name for name, number in _numbers(enum).items()}


@cache
def _member(name: str) -> tuple[str, int]:
    """The union that has the table, as OperatorT names it, and the table's number in it."""
    first = members("BuiltinOptions").get(name)
    return ("builtinOptions", first) if first is not None else ("builtinOptions2", members("BuiltinOptions2")[name])


def _encoded(code: str, field: str, spec: _Field, value: Option) -> object:
    if spec.enum:
        number = _numbers(spec.enum).get(str(value))
        if number is None:
            raise ValueError(f"{field} of {code}: {value!r} is none of {sorted(_numbers(spec.enum))}")
        return number
    if spec.default is None:
        return value if isinstance(value, str) else _vector(code, field, value)
    kind = type(spec.default)
    if isinstance(value, str | Sequence) or (kind is not float and kind(value) != value):
        raise ValueError(f"{field} of {code} is of type {kind.__name__}, given {value!r}")
    return kind(value)


def _vector(code: str, field: str, value: Option) -> Sequence[Any]:
    if isinstance(value, bytes | bytearray):
        return value
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [one.item() if isinstance(one, np.generic) else one for one in value]
    raise ValueError(f"{field} of {code} is a list, given {value!r}")


def _decoded(code: str, field: str, spec: _Field, value: Any) -> Option:
    if spec.enum:
        if value not in _names(spec.enum):
            raise ValueError(f"{field} of {code}: {spec.enum} has no {value}")
        return _names(spec.enum)[value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if spec.default is None:
        return value if isinstance(value, str) else tuple(value.tolist() if isinstance(value, np.ndarray) else value)
    kept: int | float | bool = type(spec.default)(value)
    return kept
