"""Operators that work element by element."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from converters.importers.tflite.op import ONNX_TYPES, Op, Rule
from converters.importers.tflite.scope import Perm

_CUT = {"int8", "int16", "uint8", "uint16", "uint32"}
_WHOLE = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}


def _unary(op_type: str, op: Op) -> None:
    perm = op.order(0)
    op.out(op.add(op_type, op.real(0, perm)), perm)


def _binary(op_type: str, op: Op) -> None:
    a, b, perm = _pair(op)
    op.out(op.add(op_type, a, b), perm)


def _pair(op: Op) -> tuple[str, str, Perm]:
    perm = op.order(0, 1)
    return op.aligned(0, perm), op.aligned(1, perm), perm


def _is_whole(op: Op) -> bool:
    """Whether it works on whole numbers that are no steps."""
    return op.tensor(0).dtype in _WHOLE and not op.quantised


def _compare(op_type: str, op: Op) -> None:
    """Of 16-bit steps kernels compare the steps, whatever their scales. Source: LiteRT, kernels/comparisons.cc."""
    if op.tensor(0).dtype == "int16" and op.shape(0) == op.shape(1):
        perm = op.order(0, 1)
        made = op.add(op_type, *(op.add("Cast", op.stored(at, perm), to=ONNX_TYPES["int32"]) for at in (0, 1)))
    else:
        a, b, perm = _pair(op)
        made = op.add(op_type, a, b)
    op.out_stored(op.add("Not", made) if op.code == "NOT_EQUAL" else made, perm)


def neg(op: Op) -> None:
    """Kernels change the sign of the steps, which is that of the numbers where step 0 is 0."""
    if op.quantised:
        given, made = op.tensor(0).quantization, op.result().quantization
        if given is None or not given.same(made) or given.zero_point.any():
            raise op.refuse("its steps are negated as they are, but their zero point is not 0, or their scales differ")
    _unary("Neg", op)


def add_n(op: Op) -> None:
    total = op.real(0)
    for position in range(1, op.count):
        total = op.add("Add", total, op.real(position))
    op.out(total)


def right_shift(op: Op) -> None:
    """Of whole numbers with their sign: the quotient by a power of two, rounded down."""
    a, b, perm = _pair(op)
    power = op.add("Pow", op.number(2, "int64"), op.add("Clip", b, op.number(0, "int64"), op.number(31, "int64")))
    op.out(op.add("Div", op.add("Sub", a, op.add("Mod", a, power, fmod=0)), power), perm)


def atan2(op: Op) -> None:
    """Of y and x: the quotient's, moved by half a turn where x is negative."""
    if op.shape(0) != op.shape(1):
        raise op.refuse("its inputs have two shapes, which the kernel does not broadcast")
    y, x, perm = _pair(op)
    zero = op.number(0.0, op.result().dtype)
    turn = [op.number(value, op.result().dtype) for value in (-np.pi, np.pi)]
    half = op.add("Where", op.add("Less", y, zero), *turn)
    angle = op.add("Atan", op.add("Div", y, x))
    moved = op.add("Where", op.add("Less", x, zero), op.add("Add", angle, half), angle)
    origin = op.add("And", op.add("Equal", x, zero), op.add("Equal", y, zero))
    op.out(op.add("Where", origin, zero, moved), perm)


def bucketize(op: Op) -> None:
    """How many boundaries are not above each element."""
    bounds = op.operator.options.get("boundaries", ())
    if not isinstance(bounds, Sequence) or isinstance(bounds, str):
        raise op.refuse("it does not say its boundaries")
    x = op.add("Cast", op.add("Unsqueeze", op.real(0), op.ints_of([op.rank(0)])), to=ONNX_TYPES["float32"])
    above = op.add("GreaterOrEqual", x, op.scope.graph.constant(np.array(bounds, np.float32), "boundaries"))
    whole = op.add("Cast", above, to=ONNX_TYPES["int32"])
    op.out_stored(op.add("ReduceSum", whole, op.ints_of([op.rank(0)]), keepdims=0))


def fake_quant(op: Op) -> None:
    """Rounding to steps between two bounds, moved so that 0 is a step. Source: LiteRT, reference/fake_quant.h."""
    low, high = op.option("min", 0.0), op.option("max", 0.0)
    first, last = int(op.flag("narrow_range")), 2 ** op.option("num_bits", 8) - 1
    scale = (high - low) / (last - first)
    if not scale > 0:
        raise op.refuse(f"steps between {low} and {high}")
    point = min(max(math.floor(first - low / scale + 0.5), first), last)
    least, most = ((step - point) * scale for step in (first, last))
    perm = op.order(0)
    steps = op.add("Div", op.add("Sub", op.clip(op.real(0, perm), least, most), op.number(least)), op.number(scale))
    rounded = op.add("Floor", op.add("Add", steps, op.number(0.5)))
    op.out(op.add("Add", op.add("Mul", rounded, op.number(scale)), op.number(least)), perm)


def squared_difference(op: Op) -> None:
    a, b, perm = _pair(op)
    apart = op.add("Sub", a, b)
    op.out(op.add("Mul", apart, apart), perm)


def square(op: Op) -> None:
    perm = op.order(0)
    x = op.real(0, perm)
    op.out(op.add("Mul", x, x), perm)


def rsqrt(op: Op) -> None:
    perm = op.order(0)
    op.out(op.add("Reciprocal", op.add("Sqrt", op.real(0, perm))), perm)


def floor_div(op: Op) -> None:
    """ONNX cuts the quotient of whole numbers; less the remainder, of the divisor's sign, there is nothing to cut."""
    a, b, perm = _pair(op)
    if _is_whole(op):
        op.out(op.add("Div", op.add("Sub", a, op.add("Mod", a, b, fmod=0)), b), perm)
    else:
        op.out(op.add("Floor", op.add("Div", a, b)), perm)


def floor_mod(op: Op) -> None:
    """The remainder has the divisor's sign; ONNX has that for whole numbers alone."""
    a, b, perm = _pair(op)
    if _is_whole(op):
        op.out(op.add("Mod", a, b, fmod=0), perm)
        return
    rest, zero = op.add("Mod", a, b, fmod=1), op.number(0.0)
    other = op.add("Less", op.add("Mul", rest, b), zero)
    op.out(op.add("Where", other, op.add("Add", rest, b), rest), perm)


def prelu(op: Op) -> None:
    a, b, perm = _pair(op)
    op.out(op.add("PRelu", a, b), perm)


def leaky_relu(op: Op) -> None:
    perm = op.order(0)
    op.out(op.add("LeakyRelu", op.real(0, perm), alpha=op.option("alpha", 0.0)), perm)


def _clipped(low: float, high: float, op: Op) -> None:
    perm = op.order(0)
    op.out(op.clip(op.real(0, perm), low, high), perm)


def gelu(op: Op) -> None:
    perm = op.order(0)
    how = "tanh" if op.flag("approximate") else "none"
    op.out(op.add("Gelu", op.real(0, perm), approximate=how), perm)


def softmax(op: Op) -> None:
    """Over the last axis, as `beta` times the input."""
    perm, last = op.order(0), op.rank(0) - 1
    x, beta = op.real(0, perm), op.option("beta", 1.0)
    if beta != 1.0:
        x = op.add("Mul", x, op.number(beta))
    op.out(op.add("Softmax", x, axis=perm.index(last) if perm else -1), perm)


def log_softmax(op: Op) -> None:
    perm, last = op.order(0), op.rank(0) - 1
    op.out(op.add("LogSoftmax", op.real(0, perm), axis=perm.index(last) if perm else -1), perm)


def l2_normalization(op: Op) -> None:
    """Over the last axis; lengths below 1e-6 count as that. Source: LiteRT, reference/l2normalization.h."""
    perm, last = op.order(0), op.rank(0) - 1
    x = op.real(0, perm)
    axis = op.ints_of([perm.index(last) if perm else last])
    length = op.add("Sqrt", op.add("ReduceSum", op.add("Mul", x, x), axis, keepdims=1))
    op.out(op.add("Div", x, op.add("Max", length, op.number(1e-6))), perm)


def local_response_normalization(op: Op) -> None:
    """TFLite adds the squares of a window, ONNX takes their mean."""
    op.rank(0, 4)
    perm = (0, 3, 1, 2)
    size = 2 * op.option("radius", 0) + 1
    made = op.add(
        "LRN", op.real(0, perm), size=size, alpha=op.option("alpha", 0.0) * size, beta=op.option("beta", 0.0),
        bias=op.option("bias", 0.0),
    )  # fmt: skip
    op.out(made, perm)


def cast(op: Op) -> None:
    """Of numbers that a narrow type does not hold kernels give the nearest that it does."""
    perm = op.order(0)
    if op.result().dtype not in ONNX_TYPES or op.tensor(0).dtype not in ONNX_TYPES:
        raise op.refuse(f"from {op.tensor(0).dtype} to {op.result().dtype}")
    x, kind = op.stored(0, perm), op.result().dtype
    if op.tensor(0).dtype.startswith("float") and kind in _CUT:
        low, high = np.iinfo(kind).min, min(np.iinfo(kind).max, 2**32 - 256)
        x = op.add("Clip", x, *(op.number(bound, op.tensor(0).dtype) for bound in (low, high)))
    op.out_stored(op.add("Cast", x, to=ONNX_TYPES[kind]), perm)


def quantize(op: Op) -> None:
    if "int32" in {op.tensor(0).dtype, op.result().dtype}:
        raise op.refuse(f"from {op.tensor(0).dtype} to {op.result().dtype}: ONNX has no steps of 32 bits")
    perm = op.order(0)
    op.out(op.real(0, perm), perm)


def dequantize(op: Op) -> None:
    """float16 constants become float32 ones."""
    found = op.constant(0)
    if found is not None and found.dtype == np.float16:
        op.scope.fold(op.operator.outputs[0], found.astype(np.float32))
        return
    perm = op.order(0)
    x = op.real(0, perm)
    op.out_stored(op.add("Cast", x, to=ONNX_TYPES["float32"]) if op.tensor(0).dtype == "float16" else x, perm)


def select(op: Op) -> None:
    """The old form has one condition for each row."""
    perm = op.order(1, 2) if op.rank(0) == len(op.result().shape) else ()
    condition = op.aligned(0, perm, condition=True)
    missing = len(op.result().shape) - op.rank(0)
    if op.code == "SELECT" and op.rank(0) == 1 and missing > 0:
        condition = op.add("Unsqueeze", condition, op.ints_of(range(1, missing + 1)))
    op.out(op.add("Where", condition, op.aligned(1, perm), op.aligned(2, perm)), perm)


def zeros_like(op: Op) -> None:
    zero = np.zeros((), np.float32 if op.quantised else np.dtype(op.tensor(0).dtype))
    shape = op.add("Shape", op.stored(0))
    op.out(op.add("Expand", op.scope.graph.constant(zero), shape))


_UNARY = {
    "ABS": "Abs", "CEIL": "Ceil", "COS": "Cos", "ELU": "Elu", "EXP": "Exp", "FLOOR": "Floor",
    "HARD_SWISH": "HardSwish", "LOG": "Log", "LOGICAL_NOT": "Not", "LOGISTIC": "Sigmoid",
    "RELU": "Relu", "ROUND": "Round", "SIGN": "Sign", "SIN": "Sin", "SQRT": "Sqrt", "TANH": "Tanh",
}  # fmt: skip
_BINARY = {
    "ADD": "Add", "BITWISE_XOR": "BitwiseXor", "DIV": "Div", "LOGICAL_AND": "And", "LOGICAL_OR": "Or",
    "MAXIMUM": "Max", "MINIMUM": "Min", "MUL": "Mul", "POW": "Pow", "STABLEHLO_ADD": "Add", "STABLEHLO_AND": "And",
    "STABLEHLO_MAXIMUM": "Max", "STABLEHLO_MINIMUM": "Min", "STABLEHLO_MULTIPLY": "Mul", "SUB": "Sub",
}  # fmt: skip
_COMPARE = {
    "EQUAL": "Equal", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual", "NOT_EQUAL": "Equal",
}  # fmt: skip
_CLIPS = {"RELU6": (0.0, 6.0), "RELU_0_TO_1": (0.0, 1.0), "RELU_N1_TO_1": (-1.0, 1.0)}

ELEMENTWISE: Mapping[str, Rule] = {
    **{code: partial(_unary, op_type) for code, op_type in _UNARY.items()},
    **{code: partial(_binary, op_type) for code, op_type in _BINARY.items()},
    **{code: partial(_compare, op_type) for code, op_type in _COMPARE.items()},
    **{code: partial(_clipped, *bounds) for code, bounds in _CLIPS.items()},
    "ADD_N": add_n,
    "ATAN2": atan2,
    "BUCKETIZE": bucketize,
    "CAST": cast,
    "DEQUANTIZE": dequantize,
    "FAKE_QUANT": fake_quant,
    "FLOOR_DIV": floor_div,
    "FLOOR_MOD": floor_mod,
    "GELU": gelu,
    "L2_NORMALIZATION": l2_normalization,
    "LEAKY_RELU": leaky_relu,
    "LOCAL_RESPONSE_NORMALIZATION": local_response_normalization,
    "LOG_SOFTMAX": log_softmax,
    "NEG": neg,
    "PRELU": prelu,
    "QUANTIZE": quantize,
    "RIGHT_SHIFT": right_shift,
    "RSQRT": rsqrt,
    "SELECT": select,
    "SELECT_V2": select,
    "SOFTMAX": softmax,
    "SQUARE": square,
    "SQUARED_DIFFERENCE": squared_difference,
    "ZEROS_LIKE": zeros_like,
}
