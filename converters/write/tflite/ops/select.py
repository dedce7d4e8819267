"""Entries by conditions: one-hot rows, triangles, those that are not zero; sequences turned around."""

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, known
from converters.write.tflite.ops.gather import held_type
from converters.write.tflite.ops.pad import take
from converters.write.tflite.ops.widen import NUMBERS, cast, fill, narrowed, same
from converters.write.tflite.program import Together, Value
from converters.write.tflite.table import lowers

_HOT: frozenset[DType] = NUMBERS | {"int8", "uint8", "bool"}
_TURNED: frozenset[DType] = NUMBERS | {"uint8", "int16"}
_COUNTED: frozenset[DType] = NUMBERS | {"bool", "int8", "uint8"}


@lowers("OneHot", since=11)
def one_hot(low: Lowering) -> None:
    """Indices outside of [-depth, depth) give rows of the off value, as the kernel does with those below 0."""
    index, depth, values, output = low.input(0), low.input(1), low.input(2), low.output()
    if output.dtype not in _HOT:
        low.refuse(f"TFLite has no one-hot rows of {output.dtype}")
    whole = narrowed(low, index) if index.dtype == "int64" else cast(low, index, "int32")
    count = _depth(low, depth)
    formula, zero = Formula(low), low.constant(np.int32(0))
    below = formula.binary("LESS", whole, zero, dtype="bool")
    whole = formula.select(below, formula.add(whole, count), whole)
    off, on = (_entry(low, values, at) for at in (0, 1))
    axis = low.axis(-1, output.rank)
    low.emit("ONE_HOT", [whole, count, on, off], [output], {"axis": axis})


def _depth(low: Lowering, depth: Value) -> Value:
    if depth.constant:
        return low.constant(np.int32(depth.array().reshape(())))
    scalar = low.reshape(depth, ()) if depth.rank else depth
    return narrowed(low, scalar) if scalar.dtype == "int64" else cast(low, scalar, "int32")


def _entry(low: Lowering, row: Value, at: int) -> Value:
    if row.constant:
        return low.constant(row.array()[at])
    made = low.temp((1,), row.dtype)
    begin, size = (low.constant(np.array([number], np.int32)) for number in (at, 1))
    low.emit("SLICE", [row, begin, size], [made])
    return low.reshape(made, ())


@lowers("Trilu", since=14)
def triangle(low: Lowering) -> None:
    """Kept where column - row is at least k, or at most k."""
    x, output, given = low.input(0), low.output(), low.optional(1)
    if 0 in x.shape:
        fill(low, np.zeros(known(x.shape) or (0,)), output)
        return
    rows, columns = x.shape[-2:]
    if isinstance(rows, str) or isinstance(columns, str):
        low.refuse("the sizes of its matrices are open")
    upper = bool(low.integer("upper", 1))
    distance = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    if given is None or given.constant:
        bound = 0 if given is None else int(given.array().reshape(()))
        mask = low.constant(distance >= bound if upper else distance <= bound)
    else:
        bound_value = low.reshape(given, (1, 1)) if given.rank < 2 else given
        code = "GREATER_EQUAL" if upper else "LESS_EQUAL"
        mask = Formula(low).binary(code, low.constant(distance), bound_value, dtype="bool")
        mask = low.reshape(mask, (1,) * (x.rank - 2) + mask.shape)
    zero = low.constant(np.zeros((), np.dtype(x.dtype)))
    low.emit("SELECT_V2", [mask, x, zero], [output], rule=Together())


@lowers("NonZero", since=9)
def non_zero(low: Lowering) -> None:
    """One row an axis; the kernel gives one row an entry."""
    x, output = low.input(0), low.output()
    if not x.rank or 0 in x.shape:
        low.refuse("TFLite finds no entries in a tensor without axes or entries")
    held = x if x.dtype in _COUNTED else cast(low, x, "int32")
    found = low.temp((output.shape[1], x.rank), "int64")
    low.emit("WHERE", [held], [found])
    low.transpose(found, (1, 0), output)


@lowers("Compress", since=9)
def compress(low: Lowering) -> None:
    x, condition, output = low.input(0), low.input(1), low.output()
    axis = low.node.attributes.get("axis")
    if axis is None:
        sizes = known(x.shape)
        x = low.reshape(x, (int(np.prod(sizes)) if sizes is not None else f"{x.name}_entries",))
    at = 0 if axis is None else axis.as_int() % x.rank
    if condition.constant:
        index = low.constant(np.flatnonzero(condition.array()).astype(np.int32))
    else:
        found = low.temp((output.shape[at], 1), "int64")
        low.emit("WHERE", [condition], [found])
        index = low.reshape(found, (output.shape[at],))
    if 0 in x.shape or 0 in index.shape:
        low.refuse("it takes nothing")
    held = held_type(low, x)
    made = output if held.dtype == output.dtype else low.like(output, dtype=held.dtype)
    take(low, held, index, at, made)
    if made is not output:
        cast(low, made, output.dtype, output)


@lowers("ReverseSequence", since=10)
def reverse_sequence(low: Lowering) -> None:
    """The kernel is right where the batch is the first axis and time the second."""
    x, lengths, output = low.input(0), low.input(1), low.output()
    first = [low.integer("batch_axis", 1) % x.rank, low.integer("time_axis", 0) % x.rank]
    order = tuple(first + [axis for axis in range(x.rank) if axis not in first])
    held = x if x.dtype in _TURNED else cast(low, x, "int32")
    turned = low.transpose(held, order)
    made = low.like(turned)
    low.emit("REVERSE_SEQUENCE", [turned, lengths], [made], {"seq_dim": 1, "batch_dim": 0})
    back = low.transpose(made, tuple(int(axis) for axis in np.argsort(order)))
    low.reshape(cast(low, back, output.dtype), output.shape, output)


_WINDOWS = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}
"""Coefficients of 1, -cos(t) and cos(2 t). Source: ONNX's function bodies."""


@lowers(*_WINDOWS, since=17)
def window(low: Lowering) -> None:
    """A - b cos(t) + c cos(2 t) with t = 2 pi n / N, N one less where the window is symmetric."""
    length, output = low.reshape(low.input(0), ()), low.output()
    if output.dtype != "float32":
        low.refuse(f"TFLite has no cosines of {output.dtype}")
    first, second, third = _WINDOWS[low.node.op_type]
    formula = Formula(low)
    whole = narrowed(low, length) if length.dtype == "int64" else cast(low, length, "int32")
    index = low.temp(output.shape, "int32")
    low.emit("RANGE", [low.constant(np.int32(0)), whole, low.constant(np.int32(1))], [index])
    period = whole if low.integer("periodic", 1) else formula.sub(whole, low.constant(np.int32(1)))
    ratio = formula.div(cast(low, index, "float32"), cast(low, period, "float32"))
    angle = formula.mul(ratio, 2 * np.pi)
    made = formula.sub(first, formula.mul(formula.unary("COS", angle), second))
    if third:
        made = formula.add(made, formula.mul(formula.unary("COS", formula.mul(angle, 2.0)), third))
    same(low, made, output)
