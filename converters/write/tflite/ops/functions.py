"""Functions that TFLite lacks, from those that it has, accurate to about 1e-6 of their value."""

from collections.abc import Sequence

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula
from converters.write.tflite.program import Together, Value
from converters.write.tflite.table import lowers

_LARGE = 1e8
"""From here on x + 1 is x in float32, and so are their roots and logarithms."""


@lowers("Tan", since=7)
def tan(low: Lowering) -> None:
    formula, x = Formula(low), low.input(0)
    formula.div(formula.unary("SIN", x), formula.unary("COS", x), low.output())


@lowers("Atan", since=7)
def atan(low: Lowering) -> None:
    """The angle of (1, x)."""
    formula, x = Formula(low), low.input(0)
    formula.binary("ATAN2", x, _ones(low, x), low.output())


@lowers("Asin", "Acos", since=7)
def arc(low: Lowering) -> None:
    """The angle of the point (sqrt(1 - x^2), x) or (x, sqrt(1 - x^2)); outside of [-1, 1] the root is NaN."""
    formula, x = Formula(low), low.input(0)
    root = formula.unary("SQRT", formula.mul(formula.sub(1.0, x), formula.add(x, 1.0)))
    sides = (x, root) if low.node.op_type == "Asin" else (root, x)
    formula.binary("ATAN2", *sides, low.output())


def _ones(low: Lowering, x: Value) -> Value:
    """Ones of a value's shape, for ATAN2, which does not broadcast; 0 where it is NaN."""
    formula = Formula(low)
    equal = formula.binary("EQUAL", x, x, dtype="bool")
    made = low.like(x)
    low.emit("CAST", [equal], [made], {"in_data_type": "bool", "out_data_type": "float32"}, rule=Together())
    return made


@lowers("Sinh", since=9)
def sinh(low: Lowering) -> None:
    """(e^x - e^-x) / 2; up to 1 by its series, where the difference would lose digits."""
    formula, x = Formula(low), low.input(0)
    near = formula.mul(_polynomial(formula, formula.mul(x, x), (1.0, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880)), x)
    size = formula.unary("ABS", x)
    grown, shrunk = _halves(formula, size)
    far = _signed(formula, formula.sub(grown, shrunk), x)
    formula.select(formula.binary("GREATER", size, 1.0, dtype="bool"), far, near, low.output())


@lowers("Cosh", since=9)
def cosh(low: Lowering) -> None:
    """(e^x + e^-x) / 2; NaN goes around XNNPACK's EXP, which makes 0 of it."""
    formula, x = Formula(low), low.input(0)
    grown, shrunk = _halves(formula, formula.unary("ABS", x))
    formula.select(formula.binary("EQUAL", x, x, dtype="bool"), formula.add(grown, shrunk), x, low.output())


def _halves(formula: Formula, x: Value) -> tuple[Value, Value]:
    """e^x / 2 and e^-x / 2: e^(x / 2) twice, since e^x leaves float32 before its half does."""
    root = formula.unary("EXP", formula.mul(x, 0.5))
    return formula.mul(formula.mul(root, 0.5), root), formula.div(formula.div(0.5, root), root)


def _polynomial(formula: Formula, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's scheme, coefficients from the constant one up."""
    *rest, last = coefficients
    made = formula.mul(x, last)
    for coefficient in reversed(rest[1:]):
        made = formula.mul(formula.add(made, coefficient), x)
    return formula.add(made, rest[0])


def _signed(formula: Formula, x: Value, like: Value, out: Value | None = None) -> Value:
    """A number that is not negative, with the sign of another."""
    return formula.select(formula.binary("LESS", like, 0.0, dtype="bool"), formula.unary("NEG", x), x, out)


@lowers("Asinh", since=9)
def asinh(low: Lowering) -> None:
    """log(1 + u) with u = |x| + x^2 / (1 + sqrt(x^2 + 1)), and the sign of x."""
    formula, x = Formula(low), low.input(0)
    size = formula.unary("ABS", x)
    capped = formula.minimum(size, _LARGE)
    square = formula.mul(capped, capped)
    root = formula.add(formula.unary("SQRT", formula.add(square, 1.0)), 1.0)
    near = _log1p(formula, formula.add(capped, formula.div(square, root)))
    _signed(formula, _or_log_double(formula, near, size), x, low.output())


@lowers("Acosh", since=9)
def acosh(low: Lowering) -> None:
    """log(1 + u) with u = (x - 1) + sqrt(x - 1) sqrt(x + 1); below 1 a root is NaN."""
    formula, x = Formula(low), low.input(0)
    capped = formula.minimum(x, _LARGE)
    below, above = formula.sub(capped, 1.0), formula.add(capped, 1.0)
    roots = formula.mul(formula.unary("SQRT", below), formula.unary("SQRT", above))
    near = _log1p(formula, formula.add(below, roots))
    formula.same(_or_log_double(formula, near, x), low.output())


@lowers("Atanh", since=9)
def atanh(low: Lowering) -> None:
    """log((1 + x) / (1 - x)) / 2, or its series."""
    formula, x = Formula(low), low.input(0)
    size = formula.unary("ABS", x)
    far = formula.mul(formula.unary("LOG", formula.div(formula.add(size, 1.0), formula.sub(1.0, size))), 0.5)
    _signed(formula, _or_series(formula, far, size), x, low.output())


def _log1p(formula: Formula, u: Value) -> Value:
    """log(1 + u) for u >= 0, which is 2 atanh(u / (2 + u))."""
    half = formula.mul(formula.unary("LOG", formula.add(u, 1.0)), 0.5)
    return formula.mul(_or_series(formula, half, formula.div(u, formula.add(u, 2.0))), 2.0)


def _or_series(formula: Formula, far: Value, x: Value) -> Value:
    """Atanh of x >= 0: below 1/4 by its series, where the logarithm of nearly 1 would lose digits."""
    near = formula.mul(_polynomial(formula, formula.mul(x, x), [1 / order for order in (1, 3, 5, 7, 9, 11)]), x)
    return formula.select(formula.binary("GREATER", x, 0.25, dtype="bool"), far, near)


def _or_log_double(formula: Formula, near: Value, x: Value) -> Value:
    """log(2 x) where x is large."""
    far = formula.add(formula.unary("LOG", x), 0.6931471805599453)
    return formula.select(formula.binary("GREATER", x, _LARGE, dtype="bool"), far, near)
