"""Values put beside each other, cut apart, cut out, framed and repeated."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, known
from converters.write.tflite.ops.widen import NUMBERS, cast, constant_ints, fill, narrowed, same
from converters.write.tflite.program import Axes, Axis, AxisMask, Input, OptionOrAxis, PerAxis, Together, Value
from converters.write.tflite.table import lowers

_JOINED: frozenset[DType] = NUMBERS | {"int8", "uint8", "int16", "bool"}
_SPLIT: frozenset[DType] = NUMBERS | {"int8", "uint8", "int16"}
_PADDED: frozenset[DType] = _JOINED
_MAX_RANK = 6
"""XNNPACK takes no more axes."""
_END = 2**31 - 1


def _held(low: Lowering, value: Value, types: frozenset[DType]) -> Value:
    """In a type that a kernel moves: every kernel has int32 and int64, and casts between integers lose nothing."""
    if value.dtype in types:
        return value
    return cast(low, value, "int64" if value.dtype == "uint32" else "int32")


def _back(low: Lowering, made: Value, output: Value) -> None:
    if made is not output:
        cast(low, made, output.dtype, output)


def _goal(low: Lowering, output: Value, dtype: DType) -> Value:
    return output if output.dtype == dtype else low.like(output, dtype=dtype)


@lowers("Concat", since=4, int8=True, moves=True)
def concat(low: Lowering) -> None:
    output = low.output()
    parts = [low.input(index) for index in range(len(low.inputs))]
    parts = [part for part in parts if 0 not in part.shape] or parts[:1]
    axis = low.axis(0, output.rank)
    if len(parts) == 1:
        same(low, parts[0], output) if not parts[0].constant else fill(low, parts[0].array(), output)
        return
    if output.rank > _MAX_RANK:
        low.refuse(f"TFLite puts tensors of at most {_MAX_RANK} axes beside each other")
    held = [_held(low, part, _JOINED) for part in parts]
    made = _goal(low, output, held[0].dtype)
    low.emit("CONCATENATION", list(held), [made], {"axis": Axis(axis)}, rule=Together(straight=frozenset({axis})))
    _back(low, made, output)


@lowers("Split", since=13, int8=True, moves=True)
def split(low: Lowering) -> None:
    """Even parts by SPLIT, which XNNPACK takes; others by a slice each."""
    x = low.input(0)
    axis = low.axis(0, x.rank)
    outputs = [low.optional_output(index) for index in range(len(low.outputs))]
    sizes = _parts(low, x, axis, outputs)
    even = len(set(sizes)) == 1 and x.dtype in _SPLIT and None not in outputs and x.rank <= _MAX_RANK
    if even and sizes[0] and len(sizes) > 1:
        rule = Together(straight=frozenset({axis}))
        found = [output for output in outputs if output is not None]
        low.emit("SPLIT", [Axes((axis,), scalar=True), x], found, {"num_splits": len(found)}, rule=rule)
        return
    begin = 0
    for size, output in zip(sizes, outputs, strict=True):
        if output is not None:
            cut(low, x, {axis: Cut(begin, begin + size)}, output)
        begin += size


def _parts(low: Lowering, x: Value, axis: int, outputs: Sequence[Value | None]) -> list[int]:
    given = low.optional(1)
    sizes = constant_ints(given)
    if sizes is not None:
        return sizes
    found = [output.shape[axis] for output in outputs if output is not None]
    total = x.shape[axis]
    if given is not None and len(found) == len(outputs) and known(found) is not None:
        return [int(size) for size in found]
    if given is not None or not isinstance(total, int):
        low.refuse("the sizes of its parts must be constant in TFLite")
    each = -(-total // len(outputs))
    return [min(each, max(0, total - each * index)) for index in range(len(outputs))]


class Cut(NamedTuple):
    """What is kept along one axis, as Python's slices say it; an end of None is the axis's own."""

    start: int
    end: int | None
    step: int = 1


def cut(low: Lowering, x: Value, cuts: dict[int, Cut], output: Value) -> None:
    """Cut out along some axes; numbers as in ONNX, clamped to the axis."""
    sizes = known(output.shape)
    if sizes is not None and 0 in sizes:
        fill(low, np.zeros(sizes), output)
        return
    rule = Together(straight=frozenset(cuts))
    ends = _Ends(x, cuts)
    if all(one.step == 1 for one in cuts.values()) and known(x.shape) is not None:
        begin = PerAxis(np.array(ends.begin, np.int32))
        length = [end - start for start, end in zip(ends.begin, ends.end, strict=True)]
        low.emit("SLICE", [x, begin, PerAxis(np.array(length, np.int32))], [output], rule=rule)
        return
    inputs: list[Input] = [x, *(PerAxis(np.array(row, np.int32)) for row in (ends.begin, ends.end, ends.step))]
    options: dict[str, OptionOrAxis] = {"end_mask": AxisMask(ends.to_end)}
    low.emit("STRIDED_SLICE", inputs, [output], options, rule=rule)


class _Ends:
    """One row an axis; masks where a number cannot say it."""

    def __init__(self, x: Value, cuts: dict[int, Cut]) -> None:
        self.begin, self.end, self.step = [0] * x.rank, [0] * x.rank, [1] * x.rank
        stop: set[int] = set()
        for axis, size in enumerate(x.shape):
            one = cuts.get(axis, Cut(0, None))
            self.step[axis] = one.step
            if isinstance(size, int):
                first, last, _ = slice(one.start, one.end, one.step).indices(size)
                self.begin[axis], self.end[axis] = first, last
                if last < 0:
                    stop.add(axis)
                continue
            self.begin[axis] = max(-_END, min(one.start, _END))
            if one.end is None:
                stop.add(axis)
            else:
                self.end[axis] = max(-_END, min(one.end, _END))
        self.to_end = frozenset(stop)


@lowers("Slice", since=10, int8=True, moves=True)
def slices(low: Lowering) -> None:
    x, output = low.input(0), low.output()
    parameters = [low.optional(index) for index in range(1, 5)]
    if any(one is not None and constant_ints(one) is None for one in parameters):
        _computed(low, x, output)
        return
    starts, ends, axes, steps = (constant_ints(one) for one in parameters)
    starts, ends = starts or [], ends or []
    axes = [axis % x.rank for axis in axes] if axes is not None else list(range(len(starts)))
    steps = steps or [1] * len(starts)
    cuts = {
        axis: Cut(start, None if abs(end) >= _END and (end > 0) == (step > 0) else end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }
    cut(low, x, cuts, output)


def _computed(low: Lowering, x: Value, output: Value) -> None:
    """Rows for all axes from those that are given: what is not cut begins at 0 and ends at the largest number."""
    starts, ends = (narrowed(low, low.input(index)) for index in (1, 2))
    [count] = starts.shape
    if isinstance(count, str):
        low.refuse("the number of axes that it cuts is open")
    sizes = known(output.shape)
    if sizes is not None and 0 in sizes:
        fill(low, np.zeros(sizes), output)
        return
    if not count:
        same(low, x, output)
        return
    places = axis_places(low, low.optional(3), count, x.rank)
    formula = Formula(low)
    largest = low.constant(np.int32(_END))
    begin = scattered(low, places, starts, x.rank)
    end = formula.add(scattered(low, places, formula.sub(ends, largest), x.rank), largest)
    step = low.constant(np.ones(x.rank, np.int32))
    given = low.optional(4)
    if given is not None:
        more = formula.sub(narrowed(low, given), low.constant(np.int32(1)))
        step = formula.add(scattered(low, places, more, x.rank), low.constant(np.int32(1)))
    low.emit("STRIDED_SLICE", [x, begin, end, step], [output])


def axis_places(low: Lowering, axes: Value | None, count: int, rank: int) -> Value:
    """Axes counted from the front, shape (count, 1), int32."""
    if axes is None:
        return low.constant(np.arange(count, dtype=np.int32).reshape(count, 1))
    if axes.constant:
        return low.constant(np.mod(axes.array(), rank).astype(np.int32).reshape(count, 1))
    whole = Formula(low).binary("FLOOR_MOD", narrowed(low, axes), low.constant(np.int32(rank)))
    return low.reshape(whole, (count, 1))


def scattered(low: Lowering, places: Value, numbers: Value, rank: int) -> Value:
    """One number an axis, 0 where there is none."""
    if numbers.constant and places.constant:
        made = np.zeros((rank, *numbers.array().shape[1:]), np.int32)
        made[places.array().reshape(-1)] = numbers.array()
        return low.constant(made)
    shape = (rank, *numbers.shape[1:])
    made_value = low.temp(shape, "int32")
    low.emit("SCATTER_ND", [places, numbers, low.constant(np.array(shape, np.int32))], [made_value])
    return made_value


@lowers("Tile", since=6, int8=True, moves=True)
def tile(low: Lowering) -> None:
    x, output = low.input(0), low.output()
    repeats = constant_ints(low.input(1))
    if repeats is None:
        low.emit("TILE", [x, narrowed(low, low.input(1))], [output])
    elif 0 in output.shape:
        fill(low, np.zeros(known(output.shape) or (0,)), output)
    else:
        rule = Together(straight=frozenset(axis for axis, count in enumerate(repeats) if count != 1))
        low.emit("TILE", [x, PerAxis(np.array(repeats, np.int32))], [output], rule=rule)
