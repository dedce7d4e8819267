"""Operators that work element by element."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from converters.importers.tflite.op import ONNX_TYPES, Op, Rule
from converters.importers.tflite.scope import Perm

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


def not_equal(op: Op) -> None:
    a, b, perm = _pair(op)
    op.out(op.add("Not", op.add("Equal", a, b)), perm)


def add_n(op: Op) -> None:
    op.out(op.add("Sum", *(op.real(position) for position in range(op.count))))


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
    perm = op.order(0)
    if op.result().dtype not in ONNX_TYPES or op.tensor(0).dtype not in ONNX_TYPES:
        raise op.refuse(f"from {op.tensor(0).dtype} to {op.result().dtype}")
    op.out_stored(op.add("Cast", op.stored(0, perm), to=ONNX_TYPES[op.result().dtype]), perm)


def quantize(op: Op) -> None:
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
    condition = op.aligned(0, perm)
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
    "HARD_SWISH": "HardSwish", "LOG": "Log", "LOGICAL_NOT": "Not", "LOGISTIC": "Sigmoid", "NEG": "Neg",
    "RELU": "Relu", "ROUND": "Round", "SIGN": "Sign", "SIN": "Sin", "SQRT": "Sqrt", "TANH": "Tanh",
}  # fmt: skip
_BINARY = {
    "ADD": "Add", "BITWISE_XOR": "BitwiseXor", "DIV": "Div", "EQUAL": "Equal", "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual", "LESS": "Less", "LESS_EQUAL": "LessOrEqual", "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or", "MAXIMUM": "Max", "MINIMUM": "Min", "MUL": "Mul", "POW": "Pow", "SUB": "Sub",
}  # fmt: skip
_CLIPS = {"RELU6": (0.0, 6.0), "RELU_0_TO_1": (0.0, 1.0), "RELU_N1_TO_1": (-1.0, 1.0)}

ELEMENTWISE: Mapping[str, Rule] = {
    **{code: partial(_unary, op_type) for code, op_type in _UNARY.items()},
    **{code: partial(_binary, op_type) for code, op_type in _BINARY.items()},
    **{code: partial(_clipped, *bounds) for code, bounds in _CLIPS.items()},
    "ADD_N": add_n,
    "CAST": cast,
    "DEQUANTIZE": dequantize,
    "FLOOR_DIV": floor_div,
    "FLOOR_MOD": floor_mod,
    "GELU": gelu,
    "L2_NORMALIZATION": l2_normalization,
    "LEAKY_RELU": leaky_relu,
    "LOCAL_RESPONSE_NORMALIZATION": local_response_normalization,
    "LOG_SOFTMAX": log_softmax,
    "NOT_EQUAL": not_equal,
    "PRELU": prelu,
    "QUANTIZE": quantize,
    "RSQRT": rsqrt,
    "SELECT": select,
    "SELECT_V2": select,
    "SOFTMAX": softmax,
    "SQUARE": square,
    "SQUARED_DIFFERENCE": squared_difference,
    "ZEROS_LIKE": zeros_like,
}
