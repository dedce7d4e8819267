"""Activations: TFLite's own where it has one, else their formula."""

import math
from collections.abc import Callable

import numpy as np

from converters.tflite.model import Quantization
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, Options, product, scalar
from converters.write.tflite.program import Fixed, Order, Together, Value
from converters.write.tflite.table import lowers

_ANY = Together()
_LARGEST = float(np.finfo(np.float32).max)
_CLIPS = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1"}
_FIXED_SCALES = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
"""Scale and zero point that these kernels must have for int8 (LiteRT 8-bit quantisation specification)."""


def _one(code: str, **options: float | bool) -> Callable[[Lowering], None]:
    """An operator that TFLite has."""

    def lower(low: Lowering) -> None:
        _emit(low, code, options)

    return lower


def _emit(low: Lowering, code: str, options: Options, rule: Together = _ANY) -> None:
    x, out = low.input(0), low.output()
    if x.dtype not in {"float32", "int8"}:
        low.refuse(f"{code} of {x.dtype}")
    _check_scale(low, code, out)
    low.emit(code, [x], [out], options, rule=rule)


def _check_scale(low: Lowering, code: str, out: Value) -> None:
    if out.quantization is not None and code in _FIXED_SCALES:
        scale, zero = _FIXED_SCALES[code]
        wanted = Quantization(np.array([scale], np.float32), np.array([zero], np.int64))
        if not wanted.same(out.quantization):
            low.refuse(f"an int8 output at another scale than {scale} and zero point {zero}")


for _operator, _since, _code in (
    ("Sigmoid", 6, "LOGISTIC"),
    ("Tanh", 6, "TANH"),
    ("HardSwish", 14, "HARD_SWISH"),
):
    lowers(_operator, since=_since, int8=True)(_one(_code))


@lowers("Relu", since=6, int8=True)
def relu(low: Lowering) -> None:
    if low.input(0).dtype == "float32" or low.input(0).quantization is not None:
        low.emit("RELU", [low.input(0)], [low.output()], rule=Together())
    else:
        _bounded(low, 0, math.inf)


@lowers("Clip", since=11, int8=True, parameters=(1, 2))
def clip(low: Lowering) -> None:
    """Bounds may be computed."""
    low_bound, high_bound = low.optional(1), low.optional(2)
    computed = [bound for bound in (low_bound, high_bound) if bound is not None and not bound.constant]
    if computed and low.input(0).quantization is not None:
        low.refuse("computed bounds in int8")
    if computed:
        _between(low, low_bound, high_bound)
        return
    low_limit = -math.inf if low_bound is None else scalar(low_bound)
    high_limit = math.inf if high_bound is None else scalar(high_bound)
    if low_limit is None or high_limit is None:
        low.refuse("bounds that are no scalars")
    _bounded(low, low_limit, high_limit)


@lowers("Clip", since=6, int8=True)
def clip_by_attributes(low: Lowering) -> None:
    _bounded(low, low.number("min", -math.inf), low.number("max", math.inf))


def _bounded(low: Lowering, lowest: float, highest: float) -> None:
    x, out = low.input(0), low.output()
    highest = math.inf if x.dtype == "float32" and highest >= _LARGEST else highest
    lowest = -math.inf if x.dtype == "float32" and lowest <= -_LARGEST else lowest
    code = _CLIPS.get((lowest, highest)) if x.dtype == "float32" or x.quantization is not None else None
    if code is not None:
        low.emit(code, [x], [out], rule=Together())
        return
    if x.quantization is not None and not x.quantization.same(out.quantization):
        low.refuse("bounds that TFLite has no activation for, with another scale behind")
    values = [None if math.isinf(bound) else low.constant_like(np.array(bound), x) for bound in (lowest, highest)]
    _between(low, values[0], values[1])


def _between(low: Lowering, lowest: Value | None, highest: Value | None) -> None:
    x, out, formula = low.input(0), low.output(), Formula(low)
    if x.dtype not in {"float32", "int8", "uint8", "int16", "int32", "int64"}:
        low.refuse(f"bounds of {x.dtype}")
    if lowest is None and highest is None:
        formula.same(x, out)
    elif highest is None and lowest is not None:
        formula.maximum(x, lowest, out)
    elif highest is not None:
        formula.minimum(x if lowest is None else formula.binary("MAXIMUM", x, lowest, low.like(x)), highest, out)


@lowers("LeakyRelu", since=6, int8=True)
def leaky_relu(low: Lowering) -> None:
    _emit(low, "LEAKY_RELU", {"alpha": low.number("alpha", 0.01)})


@lowers("PRelu", since=7, int8=True)
def prelu(low: Lowering) -> None:
    """PRELU, or its formula past the four axes that the kernel takes."""
    x, slope, out, formula = low.input(0), low.input(1), low.output(), Formula(low)
    if x.dtype not in {"float32", "int8"}:
        low.refuse(f"PRELU of {x.dtype}")
    if x.rank <= 4 and slope.rank <= x.rank:
        if not slope.constant and slope.rank < x.rank:
            slope = low.reshape(slope, (1,) * (x.rank - slope.rank) + slope.shape)
        low.emit("PRELU", [x, slope], [out], rule=Together())
    elif x.quantization is None:
        formula.add(formula.unary("RELU", x), formula.mul(slope, formula.minimum(x, 0)), out)
    else:
        low.refuse("more than four axes in int8")


@lowers("Elu", since=6)
def elu(low: Lowering) -> None:
    alpha = low.number("alpha", 1)
    if alpha == 1:
        _emit(low, "ELU", {})
    else:
        _scaled_elu(low, alpha, 1, 1)


@lowers("Celu", since=12)
def celu(low: Lowering) -> None:
    alpha = low.number("alpha", 1)
    if alpha == 0:
        low.refuse("alpha of 0")
    _scaled_elu(low, alpha, 1 / alpha, 1)


@lowers("Selu", since=6)
def selu(low: Lowering) -> None:
    """Defaults: ONNX operators, Selu."""
    gamma = low.number("gamma", 1.0507009873554805)
    _scaled_elu(low, gamma * low.number("alpha", 1.6732632423543772), 1, gamma)


def _scaled_elu(low: Lowering, below: float, inner: float, above: float) -> None:
    """Above max(x, 0) + below elu(inner min(x, 0)); a negative `inner` turns the sign of what is let through."""
    x, formula = low.input(0), Formula(low)
    if inner < 0:
        low.refuse("a negative alpha")
    left = formula.unary("RELU", x)
    left = left if above == 1 else formula.mul(left, above)
    right = formula.minimum(x, 0)
    right = right if inner == 1 else formula.mul(right, inner)
    formula.add(left, formula.mul(formula.unary("ELU", right), below), low.output())


@lowers("Gelu", since=20)
def gelu(low: Lowering) -> None:
    _emit(low, "GELU", {"approximate": low.text("approximate", "none") == "tanh"})


@lowers("HardSigmoid", since=6)
def hard_sigmoid(low: Lowering) -> None:
    """relu6(6 alpha x + 6 beta) / 6: RELU6 can be fused where a clip to [0, 1] cannot."""
    x, formula = low.input(0), Formula(low)
    slope, offset = 6 * low.number("alpha", 0.2), 6 * low.number("beta", 0.5)
    inner = x if np.float32(slope) == 1 or math.isclose(slope, 1, rel_tol=1e-7) else formula.mul(x, slope)
    inner = formula.add(inner, offset)
    formula.mul(formula.unary("RELU6", inner), 1 / 6, low.output())


@lowers("Softplus")
def softplus(low: Lowering) -> None:
    _softplus(low, low.input(0), low.output())


def _softplus(low: Lowering, x: Value, out: Value | None = None) -> Value:
    """max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    formula = Formula(low)
    small = formula.unary("EXP", formula.unary("NEG", formula.unary("ABS", x)))
    return formula.add(formula.unary("RELU", x), formula.unary("LOG", formula.add(small, 1)), out)


@lowers("Mish", since=18)
def mish(low: Lowering) -> None:
    """X tanh(softplus(x))."""
    x, formula = low.input(0), Formula(low)
    formula.mul(x, formula.unary("TANH", _softplus(low, x)), low.output())


@lowers("Softsign")
def softsign(low: Lowering) -> None:
    """X / (1 + |x|)."""
    x, formula = low.input(0), Formula(low)
    formula.div(x, formula.add(formula.unary("ABS", x), 1), low.output())


@lowers("Swish", since=24)
def swish(low: Lowering) -> None:
    """X sigmoid(alpha x)."""
    x, formula, alpha = low.input(0), Formula(low), low.number("alpha", 1)
    inner = x if alpha == 1 else formula.mul(x, alpha)
    formula.mul(x, formula.unary("LOGISTIC", inner), low.output())


@lowers("ThresholdedRelu", since=10)
def thresholded_relu(low: Lowering) -> None:
    x, formula = low.input(0), Formula(low)
    above = formula.binary("GREATER", x, low.number("alpha", 1), dtype="bool")
    formula.select(above, x, 0, low.output())


@lowers("Shrink", since=9)
def shrink(low: Lowering) -> None:
    """X + bias below -lambd, x - bias above lambd, 0 between."""
    x, formula = low.input(0), Formula(low)
    if x.dtype != "float32":
        low.refuse(f"Shrink of {x.dtype}")
    bias, bound = low.number("bias", 0), low.number("lambd", 0.5)
    above = formula.binary("GREATER", x, bound, dtype="bool")
    below = formula.binary("LESS", x, -bound, dtype="bool")
    upper = formula.select(above, formula.sub(x, bias), 0)
    formula.select(below, formula.add(x, bias), upper, low.output())


@lowers("Erf", since=9)
def erf(low: Lowering) -> None:
    """By GELU: with g, the quotient of gelu(z) and z = sqrt(2) |x|, it is sign(x) (2 g - 1).

    z is kept between 1e-20 and 14, where the quotient has a limit. The error is that of one float32 rounding of 1,
    which is too much for an x near 0: there the first terms of the series stand.
    """
    x, formula = low.input(0), Formula(low)
    if x.dtype != "float32":
        low.refuse(f"Erf of {x.dtype}")
    size = formula.unary("ABS", x)
    bounded = formula.minimum(formula.maximum(formula.mul(size, math.sqrt(2)), 1e-20), 14)
    gelu_of = formula.unary("GELU", bounded, approximate=False)
    far = formula.mul(formula.unary("SIGN", x), formula.sub(formula.mul(formula.div(gelu_of, bounded), 2), 1))
    near = formula.binary("LESS", size, _ERF_NEAR, dtype="bool")
    formula.select(near, _erf_series(formula, x), far, low.output())


_ERF_NEAR, _ERF_TERMS = 0.25, 5


def _erf_series(formula: Formula, x: Value) -> Value:
    """2 / sqrt(pi) times the sum of (-1)^n x^(2n+1) / (n! (2n+1)), by Horner's scheme (DLMF 7.6.1); error 1e-9 x."""
    terms = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(_ERF_TERMS)]
    square = formula.mul(x, x)
    total = formula.add(formula.mul(square, terms[-1]), terms[-2])
    for term in terms[-3::-1]:
        total = formula.add(formula.mul(square, total), term)
    return formula.mul(x, total)


@lowers("Softmax", since=13, int8=True)
def softmax(low: Lowering) -> None:
    _along(low, "SOFTMAX")


@lowers("LogSoftmax", since=13)
def log_softmax(low: Lowering) -> None:
    _along(low, "LOG_SOFTMAX")


def _along(low: Lowering, code: str) -> None:
    """The kernel works along the last axis, of four at most."""
    x, out = low.input(0), low.output()
    if x.rank == 0:
        low.refuse("a scalar")
    axis = low.axis(-1, x.rank)
    if x.rank <= 4:
        _emit(low, code, {}, Together(last=axis))
        return
    if x.dtype not in {"float32", "int8"}:
        low.refuse(f"{code} of {x.dtype}")
    _check_scale(low, code, out)
    last = moved_last(x.rank, axis)
    turned = low.transpose(x, last)
    flat = low.reshape(turned, _in_two(low, turned))
    made = low.like(out, flat.shape)
    low.emit(code, [flat], [made], rule=Together(last=1))
    low.transpose(low.reshape(made, turned.shape), inverse(last), out)


def _in_two(low: Lowering, value: Value) -> tuple[int | str, int | str]:
    return (product(value.shape[:-1], low), value.shape[-1])


def moved_last(rank: int, axis: int) -> Order:
    """The order in which an axis comes last."""
    return (*(one for one in range(rank) if one != axis), axis)


def inverse(order: Order) -> Order:
    """The order that takes it back."""
    return tuple(order.index(axis) for axis in range(len(order)))


@lowers("Hardmax", since=13)
def hardmax(low: Lowering) -> None:
    """One at the first of the largest entries along an axis."""
    x, out = low.input(0), low.output()
    axis = low.axis(-1, x.rank)
    count = x.shape[axis]
    if not isinstance(count, int):
        low.refuse("an axis of open size")
    order = moved_last(x.rank, axis)
    turned = low.transpose(x, order)
    place = low.temp(turned.shape[:-1], "int64")
    low.emit("ARG_MAX", [turned, low.constant(np.int32(x.rank - 1))], [place], {"output_type": "int64"}, rule=Fixed())
    one, zero = low.constant(np.float32(1)), low.constant(np.float32(0))
    made = low.temp(turned.shape, "float32")
    low.emit("ONE_HOT", [place, low.constant(np.int32(count)), one, zero], [made], {"axis": -1})
    low.transpose(made, inverse(order), out)
