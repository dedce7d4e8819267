"""Reductions over axes, running sums, the largest and where it is."""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import NamedTuple

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, known, product
from converters.write.tflite.ops.widen import (
    FLOAT,
    NUMBERS,
    cast,
    constant_ints,
    elementwise,
    fill,
    narrowed,
    same,
    working_type,
)
from converters.write.tflite.program import Axes, Choice, Fixed, Order, Size, Together, Value, nhwc
from converters.write.tflite.table import lowers

_CODES = {
    "ReduceSum": "SUM", "ReduceMean": "MEAN", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}  # fmt: skip
_EMPTY = {
    "ReduceSum": 0.0, "ReduceProd": 1.0, "ReduceMax": -np.inf, "ReduceMin": np.inf, "ReduceL1": 0.0, "ReduceL2": 0.0,
    "ReduceSumSquare": 0.0, "ReduceLogSum": -np.inf, "ReduceLogSumExp": -np.inf,
}  # fmt: skip
"""What no numbers at all give."""
_MAX_RANK = 6
"""XNNPACK takes no more axes."""


class _Over(NamedTuple):
    """The axes to reduce.

    Attributes:
        axes: counted from the front; None where they are computed or fed.
        given: the input that has them then.
        shape: of the result with its reduced axes kept, where that is known.
    """

    axes: tuple[int, ...] | None
    given: Value | None
    shape: tuple[Size, ...]


def _over(low: Lowering, x: Value) -> _Over | None:
    """None where nothing is reduced."""
    given = low.optional(1)
    axes = constant_ints(given) if given is not None else low.integers("axes")
    if axes is None:
        return _Over(None, given, low.output().shape)
    if not axes and low.integer("noop_with_empty_axes", 0):
        return None
    chosen = tuple(sorted({axis % x.rank for axis in axes})) if axes else tuple(range(x.rank))
    return _Over(chosen, None, tuple(1 if axis in chosen else size for axis, size in enumerate(x.shape)))


def _reduce(low: Lowering, code: str, x: Value, over: _Over, output: Value | None = None) -> Value:
    """One kernel; the result keeps its axes unless `output` has fewer."""
    made = output if output is not None and output.shape == over.shape else _result(low, x, over, output)
    if over.axes is None:
        if x.rank > _MAX_RANK:
            low.refuse(f"TFLite reduces at most {_MAX_RANK} axes along some that are fed")
        axes = low.constant(np.int32(0)) if over.given is None else narrowed(low, over.given)
        low.emit(code, [x, axes], [made], {"keep_dims": bool(low.integer("keepdims", 1))})
    elif not over.axes:
        same(low, x, made)
    elif x.rank > _MAX_RANK:
        _reduce_merged(low, code, x, over.axes, made)
    else:
        low.emit(code, [x, Axes(over.axes)], [made], {"keep_dims": True}, rule=Together())
    if output is not None and made is not output:
        return low.reshape(made, output.shape, output)
    return made


def _reduce_merged(low: Lowering, code: str, x: Value, axes: tuple[int, ...], output: Value) -> None:
    """Neighbours that are all kept, or all reduced, read as one axis."""
    runs = [list(run) for _, run in groupby(range(x.rank), key=lambda axis: axis in axes)]
    if len(runs) > _MAX_RANK:
        low.refuse(f"TFLite reduces at most {_MAX_RANK} axes, and these are {len(runs)}")
    merged = low.reshape(x, [product([x.shape[axis] for axis in run], low) for run in runs])
    inner = tuple(index for index, run in enumerate(runs) if run[0] in axes)
    shape = tuple(1 if index in inner else size for index, size in enumerate(merged.shape))
    low.reshape(_reduce(low, code, merged, _Over(inner, None, shape)), output.shape, output)


def _result(low: Lowering, x: Value, over: _Over, output: Value | None) -> Value:
    return Value(f"{low.node.name}/kept", over.shape, x.dtype, output.quantization if output else x.quantization)


@lowers("ReduceSum", "ReduceMean", since=11, int8=True)
@lowers("ReduceMax", "ReduceMin", since=11, int8=True, moves=True)
@lowers("ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", since=11)
def reduce(low: Lowering) -> None:
    x, output, operator = low.input(0), low.output(), low.node.op_type
    over = _over(low, x)
    if over is None and operator in {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"}:
        same(low, x, output)
        return
    over = over or _Over((), None, x.shape)
    if 0 in x.shape:
        _empty(low, over, output)
    elif x.quantization is not None:
        _reduce(low, _CODES[operator], x, over, output)
    elif operator in _CODES:
        _plain(low, _CODES[operator], x, over, output)
    else:
        _composed(low, x, over, output)


def _empty(low: Lowering, over: _Over, output: Value) -> None:
    sizes = known(output.shape)
    if sizes is None or (over.axes is None and 0 in sizes):
        low.refuse("it reduces an empty tensor along axes that are not known")
    number, dtype = _EMPTY.get(low.node.op_type, np.nan), np.dtype(output.dtype)
    if 0 in sizes or dtype.kind == "f" or np.isfinite(number):
        if np.isnan(number) and 0 not in sizes:
            low.refuse("there is no mean of no numbers")
        fill(low, np.zeros(sizes) if 0 in sizes else np.full(sizes, number), output)
    elif dtype.kind in "iu" and low.node.op_type in {"ReduceMax", "ReduceMin"}:
        fill(low, np.full(sizes, np.iinfo(dtype).max if number > 0 else np.iinfo(dtype).min, dtype), output)
    elif dtype.kind == "b":
        fill(low, np.full(sizes, number > 0), output)
    else:
        low.refuse(f"it has no {output.dtype} to give for no numbers")


_TAKES: dict[str, frozenset[DType]] = {
    "SUM": NUMBERS, "MEAN": FLOAT, "REDUCE_MAX": NUMBERS, "REDUCE_MIN": NUMBERS, "REDUCE_PROD": NUMBERS,
}  # fmt: skip


def _plain(low: Lowering, code: str, x: Value, over: _Over, output: Value) -> None:
    dtype = working_type(low, x.dtype, _TAKES[code])
    if dtype == output.dtype:
        _reduce(low, code, x, over, output)
        return
    made = _reduce(low, code, cast(low, x, dtype), over)
    narrow = cast(low, made, output.dtype)
    low.reshape(narrow, output.shape, output)


def _composed(low: Lowering, x: Value, over: _Over, output: Value) -> None:
    """What is made of a sum."""
    if low.node.op_type == "ReduceLogSumExp" and x.dtype == "float32":
        _log_sum_exp(low, x, over, output)
        return
    dtype = working_type(low, x.dtype, NUMBERS)
    if dtype != "float32" and low.node.op_type not in {"ReduceL1", "ReduceSumSquare"}:
        low.refuse(f"TFLite takes logarithms and roots of float32 alone, not of {x.dtype}")
    before = _BEFORE[low.node.op_type](low, cast(low, x, dtype))
    made = _reduce(low, "SUM", before, over)
    after = {"ReduceL2": "SQRT", "ReduceLogSum": "LOG"}.get(low.node.op_type)
    if after is not None:
        made = Formula(low).unary(after, made)
    low.reshape(cast(low, made, output.dtype), output.shape, output)


def _size(low: Lowering, x: Value) -> Value:
    if x.dtype == "int64":
        return elementwise(low, "MAXIMUM", [x, Formula(low).unary("NEG", x)], takes=NUMBERS)
    return Formula(low).unary("ABS", x)


def _square(low: Lowering, x: Value) -> Value:
    return Formula(low).mul(x, x)


_BEFORE: Mapping[str, Callable[[Lowering, Value], Value]] = {
    "ReduceL1": _size, "ReduceL2": _square, "ReduceSumSquare": _square, "ReduceLogSum": lambda _low, x: x,
}  # fmt: skip


def _log_sum_exp(low: Lowering, x: Value, over: _Over, output: Value) -> None:
    """log(sum(exp(x - m))) + m with m the largest x, where that is finite."""
    if over.axes is None and not low.integer("keepdims", 1):
        low.refuse("the axes that it drops must be constant in TFLite")
    formula = Formula(low)
    largest = _reduce(low, "REDUCE_MAX", x, over)
    finite = formula.binary("LESS", formula.unary("ABS", largest), float("inf"), dtype="bool")
    shift = formula.select(finite, largest, 0.0)
    summed = _reduce(low, "SUM", formula.unary("EXP", formula.sub(x, shift)), over)
    low.reshape(formula.add(formula.unary("LOG", summed), shift), output.shape, output)


@lowers("ArgMax", "ArgMin", since=11)
def arg_extreme(low: Lowering) -> None:
    """The last of several equal ones: the first of the axis turned around, counted from its end."""
    x, output = low.input(0), low.output()
    axis = low.axis(0, x.rank)
    if x.dtype not in {"float32", "int32", "int8", "uint8"}:
        x = cast(low, x, working_type(low, x.dtype, frozenset({"int32"})))
    last = bool(low.integer("select_last_index", 0))
    if last:
        turned = low.like(x)
        low.emit("REVERSE_V2", [x, Axes((axis,))], [turned], rule=Together(straight=frozenset({axis})))
        x = turned
    shape = tuple(size for at, size in enumerate(x.shape) if at != axis)
    made = low.temp(shape, "int64")
    code = "ARG_MAX" if low.node.op_type == "ArgMax" else "ARG_MIN"
    low.emit(code, [x, Axes((axis,), scalar=True)], [made], {"output_type": "int64"}, rule=_dropping(x.rank, axis))
    if last:
        size = x.shape[axis]
        if isinstance(size, str):
            low.refuse("the size of the axis whose last index it selects is open")
        made = Formula(low).sub(low.constant(np.int64(size - 1)), made)
    low.reshape(made, output.shape, output)


def _dropping(rank: int, axis: int) -> Choice:
    """A kernel that drops one axis, in the graph's order or with the channels last."""

    def way(order: Order) -> Fixed:
        rest = tuple(at - (at > axis) for at in order if at != axis)
        return Fixed(inputs={0: order}, outputs={0: rest})

    orders = [tuple(range(rank))] + ([nhwc(rank)] if rank > 2 else [])
    return Choice(tuple(way(order) for order in orders))


@lowers("CumSum", since=11)
def cumulative(low: Lowering) -> None:
    x, output = low.input(0), low.output()
    options = {"exclusive": bool(low.integer("exclusive", 0)), "reverse": bool(low.integer("reverse", 0))}
    axes = constant_ints(low.input(1))
    dtype = working_type(low, x.dtype, NUMBERS)
    made = output if dtype == output.dtype else low.like(output, dtype=dtype)
    if axes is None:
        axis = low.reshape(narrowed(low, low.input(1)), ())
        low.emit("CUMSUM", [cast(low, x, dtype), axis], [made], options)
    else:
        [index] = axes
        rule = Together(straight=frozenset({index % x.rank}))
        low.emit("CUMSUM", [cast(low, x, dtype), Axes((index % x.rank,), scalar=True)], [made], options, rule=rule)
    if made is not output:
        cast(low, made, output.dtype, output)


@lowers("TopK", since=11)
def top_k(low: Lowering) -> None:
    """The kernel takes the largest along the last axis; the smallest are the largest of -x, or of -1 - x."""
    x = low.input(0)
    axis = low.axis(-1, x.rank)
    dtype = working_type(low, x.dtype, frozenset({"float32", "int32", "int64"}))
    largest = bool(low.integer("largest", 1))
    source = cast(low, x, dtype)
    source = _turned(low, source) if not largest else source
    order = [at for at in range(x.rank) if at != axis] + [axis]
    source = low.transpose(source, tuple(order))
    count = low.reshape(narrowed(low, low.input(1)), ()) if not low.input(1).constant else _scalar(low)
    given = low.input(1)
    size = int(given.array().reshape(())) if given.constant else f"{low.node.name}_largest"
    shape = (*source.shape[:-1], size)
    values, places = low.temp(shape, dtype), low.temp(shape, "int32")
    low.emit("TOPK_V2", [source, count], [values, places])
    back = tuple(int(at) for at in np.argsort(order))
    output, indices = low.optional_output(0), low.optional_output(1)
    if output is not None:
        found = _turned(low, values) if not largest else values
        low.transpose(cast(low, found, output.dtype), back, output)
    if indices is not None:
        low.transpose(cast(low, places, "int64"), back, indices)


def _scalar(low: Lowering) -> Value:
    return low.constant(np.int32(low.input(1).array().reshape(())))


def _turned(low: Lowering, x: Value) -> Value:
    """In the opposite order, without overflow."""
    formula = Formula(low)
    return (
        formula.unary("NEG", x)
        if x.dtype == "float32"
        else formula.sub(low.constant(np.array(-1, np.dtype(x.dtype))), x)
    )
