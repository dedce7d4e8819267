"""Comparisons, logic, and choices between two values."""

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula
from converters.write.tflite.ops.widen import NUMBERS, aligned, elementwise, fill
from converters.write.tflite.program import Together
from converters.write.tflite.table import lowers

_BOOL: frozenset[DType] = frozenset({"bool"})
_ORDERS = {"Less": "LESS", "LessOrEqual": "LESS_EQUAL", "Greater": "GREATER", "GreaterOrEqual": "GREATER_EQUAL"}
_LOGIC = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL"}


@lowers(*_ORDERS, since=7)
def order(low: Lowering) -> None:
    inputs = [low.input(0), low.input(1)]
    elementwise(low, _ORDERS[low.node.op_type], inputs, low.output(), takes=NUMBERS, gives="bool")


@lowers("Equal", since=7)
def equal(low: Lowering) -> None:
    elementwise(low, "EQUAL", [low.input(0), low.input(1)], low.output(), takes=NUMBERS | _BOOL, gives="bool")


@lowers(*_LOGIC, since=7)
def logic(low: Lowering) -> None:
    elementwise(low, _LOGIC[low.node.op_type], [low.input(0), low.input(1)], low.output(), takes=_BOOL)


@lowers("Not", since=1)
def negation(low: Lowering) -> None:
    elementwise(low, "LOGICAL_NOT", [low.input(0)], low.output(), takes=_BOOL)


@lowers("IsNaN", since=9)
def is_nan(low: Lowering) -> None:
    """NaN alone differs from itself."""
    x = low.input(0)
    elementwise(low, "NOT_EQUAL", [x, x], low.output(), gives="bool")


@lowers("IsInf", since=10)
def is_inf(low: Lowering) -> None:
    positive, negative = low.integer("detect_positive", 1), low.integer("detect_negative", 1)
    x, output = low.input(0), low.output()
    if not positive and not negative:
        fill(low, np.zeros(tuple(1 if isinstance(size, str) else size for size in x.shape), np.bool_), output)
        return
    if positive and negative:
        x = Formula(low).unary("ABS", x)
    limit = low.constant(np.float32(np.inf if positive else -np.inf))
    elementwise(low, "EQUAL", [x, limit], output, gives="bool")


@lowers("Where", since=9)
def where(low: Lowering) -> None:
    condition, x, y, output = low.input(0), low.input(1), low.input(2), low.output()
    operands = [aligned(low, value, output.rank) for value in (condition, x, y)]
    low.emit("SELECT_V2", operands, [output], rule=Together())
