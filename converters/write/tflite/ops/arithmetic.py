"""Sums, products and their kin; integers, signs and rounding."""

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, broadcast, scalar
from converters.write.tflite.ops.widen import FLOAT, NUMBERS, aligned, cast, elementwise, same, working_type
from converters.write.tflite.program import Together, Value
from converters.write.tflite.table import lowers

_ORDERED: frozenset[DType] = NUMBERS | {"int8", "uint8", "int16"}
_INT32: frozenset[DType] = frozenset({"float32", "int32"})
_BITS: frozenset[DType] = frozenset({"int32", "int64"})
_CODES = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Max": "MAXIMUM", "Min": "MINIMUM", "Sum": "ADD", "Mean": "ADD"}


@lowers("Add", "Sub", "Mul", since=7, int8=True)
def binary(low: Lowering) -> None:
    elementwise(low, _CODES[low.node.op_type], [low.input(0), low.input(1)], low.output(), takes=NUMBERS)


@lowers("Div", since=7)
def div(low: Lowering) -> None:
    """Integers are divided towards zero, as the kernel does; a division by zero fails when it is run."""
    elementwise(low, "DIV", [low.input(0), low.input(1)], low.output(), takes=_INT32)


@lowers("Max", "Min", since=8, int8=True, moves=True)
def extreme(low: Lowering) -> None:
    _chain(low, low.output(), _ORDERED)


@lowers("Sum", since=8)
def total(low: Lowering) -> None:
    _chain(low, low.output(), NUMBERS)


@lowers("Mean", since=8)
def mean(low: Lowering) -> None:
    output = low.output()
    summed = low.like(output)
    _chain(low, summed, FLOAT)
    Formula(low).div(summed, float(len(low.inputs)), output)


def _chain(low: Lowering, output: Value, takes: frozenset[DType]) -> None:
    code, made = _CODES[low.node.op_type], low.input(0)
    last = len(low.inputs) - 1
    if not last:
        same(low, made, output)
    for index in range(1, last + 1):
        operand = low.input(index)
        shape = broadcast(made.shape, operand.shape)
        made = elementwise(low, code, [made, operand], output if index == last else None, takes=takes, shape=shape)


@lowers("Neg", since=6)
def neg(low: Lowering) -> None:
    elementwise(low, "NEG", [low.input(0)], low.output(), takes=NUMBERS)


@lowers("Abs", since=6)
def absolute(low: Lowering) -> None:
    x = low.input(0)
    if x.dtype in {"uint8", "uint16", "uint32", "uint64", "bool"}:
        same(low, x, low.output())
    elif x.dtype == "int64":
        negated = elementwise(low, "NEG", [x], takes=NUMBERS)
        elementwise(low, "MAXIMUM", [x, negated], low.output(), takes=NUMBERS)
    else:
        elementwise(low, "ABS", [x], low.output(), takes=_INT32)


_UNARY = {
    "Sqrt": "SQRT", "Exp": "EXP", "Log": "LOG", "Sin": "SIN", "Cos": "COS",
    "Floor": "FLOOR", "Ceil": "CEIL", "Round": "ROUND",
}  # fmt: skip


@lowers(*_UNARY, since=6)
def unary(low: Lowering) -> None:
    elementwise(low, _UNARY[low.node.op_type], [low.input(0)], low.output())


@lowers("Sign", since=9)
def sign(low: Lowering) -> None:
    """Of int64 and unsigned integers: (x > 0) - (x < 0)."""
    x, output = low.input(0), low.output()
    if x.dtype != "int64":
        elementwise(low, "SIGN", [x], output, takes=_INT32)
        return
    zero = low.constant(np.int64(0))
    above, below = (
        cast(low, elementwise(low, code, [x, zero], takes=NUMBERS, gives="bool"), "int64")
        for code in ("GREATER", "LESS")
    )
    elementwise(low, "SUB", [above, below], output, takes=NUMBERS)


@lowers("Reciprocal", since=6)
def reciprocal(low: Lowering) -> None:
    Formula(low).div(1.0, low.input(0), low.output())


@lowers("Mod", since=10)
def mod(low: Lowering) -> None:
    """Fmod = 0: the sign of the divisor; fmod = 1: that of the dividend, so |x| mod |y| with the sign of x."""
    x, y, output = low.input(0), low.input(1), low.output()
    if low.integer("fmod", 0) == 0:
        elementwise(low, "FLOOR_MOD", [x, y], output, takes=NUMBERS)
        return
    dtype = working_type(low, x.dtype, NUMBERS)
    formula, (x, y) = Formula(low), (aligned(low, cast(low, one, dtype), output.rank) for one in (x, y))
    sizes = [formula.maximum(one, formula.unary("NEG", one)) for one in (x, y)]
    rest = formula.binary("FLOOR_MOD", *sizes)
    zero = low.constant(np.zeros((), np.dtype(dtype)))
    below = formula.binary("LESS", x, zero, dtype="bool")
    signed = low.temp(output.shape, dtype)
    low.emit("SELECT_V2", [below, formula.unary("NEG", rest), rest], [signed], rule=Together())
    cast(low, signed, output.dtype, output)


@lowers("Pow", since=7)
def power(low: Lowering) -> None:
    x, exponent, output = low.input(0), low.input(1), low.output()
    number = scalar(exponent)
    if number in {1.0, 2.0, 3.0} and output.shape == x.shape:
        _product(low, x, int(number or 0), output)
    elif x.dtype == "float32":
        elementwise(low, "POW", [x, cast(low, exponent, "float32")], output)
    elif number is not None and number >= 0 and number == int(number):
        elementwise(low, "POW", [x, low.constant(np.array(number, np.dtype(x.dtype)))], output, takes=_INT32)
    else:
        low.refuse("TFLite raises integers to constant, whole, not negative powers alone")


def _product(low: Lowering, x: Value, count: int, output: Value) -> None:
    made = x
    for index in range(1, count):
        made = elementwise(low, "MUL", [made, x], output if index == count - 1 else None, takes=NUMBERS)
    if count == 1:
        same(low, x, output)


@lowers("BitwiseAnd", "BitwiseOr", "BitwiseXor", since=18)
def bitwise(low: Lowering) -> None:
    """X | y = x + y - (x & y), x ^ y = x + y - 2 (x & y): right in arithmetic that wraps around."""
    output, formula = low.output(), Formula(low)
    dtype = working_type(low, low.input(0).dtype, _BITS)
    x, y = (_spread(low, cast(low, low.input(index), dtype), output) for index in (0, 1))
    made = low.temp(output.shape, dtype)
    low.emit("STABLEHLO_AND", [x, y], [made], rule=Together())
    if low.node.op_type == "BitwiseXor":
        made = formula.add(made, made)
    if low.node.op_type != "BitwiseAnd":
        made = formula.sub(formula.add(x, y), made)
    cast(low, made, output.dtype, output)


def _spread(low: Lowering, value: Value, output: Value) -> Value:
    """Of the output's shape, for kernels that do not broadcast: zeros are added to it."""
    if value.shape == output.shape:
        return value
    sizes = [size for size in output.shape if isinstance(size, int)]
    if len(sizes) < output.rank:
        low.refuse("it broadcasts along open sizes")
    if value.constant:
        return low.constant(np.broadcast_to(value.array(), sizes).copy())
    zeros = low.constant(np.zeros(sizes, np.dtype(value.dtype)))
    return elementwise(low, "ADD", [value, zeros], takes=NUMBERS, shape=output.shape)


@lowers("BitwiseNot", since=18)
def bitwise_not(low: Lowering) -> None:
    """-1 - x, in two's complement."""
    x = low.input(0)
    dtype = working_type(low, x.dtype, _BITS)
    minus = low.constant(np.array(-1, np.dtype(dtype)))
    cast(low, Formula(low).sub(minus, cast(low, x, dtype)), x.dtype, low.output())


@lowers("BitShift", since=11)
def bit_shift(low: Lowering) -> None:
    """To the left: times 2 to the power; shifts by more than the type's bits give 0 in both directions."""
    x, count, output = low.input(0), low.input(1), low.output()
    if x.dtype not in {"uint8", "uint16"}:
        low.refuse(f"TFLite shifts no {x.dtype}")
    bits = 8 * np.dtype(x.dtype).itemsize
    x, count = (aligned(low, cast(low, one, "int32"), output.rank) for one in (x, count))
    formula = Formula(low)
    capped = formula.minimum(count, low.constant(np.int32(bits)))
    if low.text("direction", "") == "RIGHT":
        made = formula.binary("RIGHT_SHIFT", x, capped)
    else:
        two = low.constant(np.int32(2))
        made = formula.mul(x, formula.binary("POW", two, capped))
    cast(low, made, output.dtype, output)
