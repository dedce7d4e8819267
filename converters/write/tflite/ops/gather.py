"""Entries by their indices, read and written. Negative indices count from the end, and TFLite's kernels refuse them."""

import math

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, known
from converters.write.tflite.ops.pad import take
from converters.write.tflite.ops.widen import NUMBERS, cast, elementwise, fill, integers, same, static
from converters.write.tflite.program import Size, Value
from converters.write.tflite.table import lowers

_TAKEN: frozenset[DType] = NUMBERS | {"bool", "int8", "uint8", "int16"}
_SCATTERED: frozenset[DType] = frozenset({"float32", "int32"})


def held_type(low: Lowering, x: Value) -> Value:
    return x if x.dtype in _TAKEN or x.quantization else cast(low, x, "int64" if x.dtype == "uint32" else "int32")


def from_front(low: Lowering, index: Value, size: Size) -> Value:
    """Indices with those below 0 counted from the end of an axis."""
    if index.constant:
        data = integers(index)
        if (data >= 0).all():
            return index
        if isinstance(size, str):
            low.refuse("its indices count from the end of an axis of open size")
        return low.constant(np.where(data < 0, data + size, data).astype(np.dtype(index.dtype)))
    if isinstance(size, str):
        return index
    dtype = np.dtype(index.dtype)
    below = elementwise(low, "LESS", [index, low.constant(np.zeros((), dtype))], takes=NUMBERS, gives="bool")
    formula = Formula(low)
    return formula.select(below, formula.add(index, low.constant(np.array(size, dtype))), index)


@lowers("Gather", since=1, int8=True, moves=True)
def gather(low: Lowering) -> None:
    x, index, output = low.input(0), low.input(1), low.output()
    axis = low.axis(0, x.rank)
    if 0 in output.shape:
        fill(low, np.zeros(known(output.shape) or (0,)), output)
        return
    held = held_type(low, x)
    if not index.constant and sum(isinstance(size, str) for size in index.shape) > 1 and held.dtype == output.dtype:
        picked = from_front(low, index, x.shape[axis])
        low.emit("GATHER", [held, picked], [output], {"axis": axis, "batch_dims": 0})
        return
    picked = from_front(low, _flat(low, index), x.shape[axis])
    shape = (*x.shape[:axis], picked.shape[0], *x.shape[axis + 1 :])
    direct = shape == output.shape and held.dtype == output.dtype
    made = output if direct else low.like(held, shape)
    take(low, held, picked, axis, made)
    if not direct:
        low.reshape(cast(low, made, output.dtype), output.shape, output)


def _flat(low: Lowering, index: Value) -> Value:
    """In one row."""
    if index.rank == 1:
        return index
    if index.constant:
        return low.constant(index.array().reshape(-1))
    sizes = known(index.shape)
    name: Size = math.prod(sizes) if sizes is not None else f"{index.name}_entries"
    if sizes is None and sum(isinstance(size, str) for size in index.shape) > 1:
        low.refuse("several sizes of its indices are open")
    return low.reshape(index, (name,))


@lowers("GatherElements", since=11)
def gather_elements(low: Lowering) -> None:
    """Entries of x as one row: those at index times the axis's stride beside where the entry itself lies."""
    x, output = low.input(0), low.output()
    index = low.input(1)
    if 0 in output.shape:
        fill(low, np.zeros(known(output.shape) or (0,)), output)
        return
    held, axis = held_type(low, x), low.axis(0, x.rank)
    if axis and isinstance(x.shape[0], str) and index.shape[0] == x.shape[0] and not index.constant:
        _each_alone(low, held, axis)
        return
    places = _places(low, x, index, axis)
    row = low.reshape(held, (math.prod(static(low, x, "the shape")),))
    made = low.temp(places.shape, held.dtype)
    take(low, row, places, 0, made)
    low.reshape(cast(low, made, output.dtype), output.shape, output)


def _each_alone(low: Lowering, held: Value, axis: int) -> None:
    """The same within each sample, where the batch is open."""
    index, output = low.input(1), low.output()
    batch, rest = held.shape[0], known(held.shape[1:])
    if rest is None or known(index.shape[1:]) is None:
        low.refuse(f"the shape {list(held.shape)} has open sizes beside the batch")
    strides = [math.prod(rest[at + 1 :]) for at in range(len(rest))]
    grid = np.indices(known(index.shape[1:]) or ())
    others = [grid[at] * strides[at] for at in range(len(rest)) if at != axis - 1]
    base = sum(others, np.zeros(grid.shape[1:], np.int64))
    dtype, formula = np.dtype(index.dtype), Formula(low)
    places = formula.mul(from_front(low, index, rest[axis - 1]), low.constant(np.array(strides[axis - 1], dtype)))
    places = formula.add(places, low.constant(base[None].astype(dtype)))
    row, picked = low.reshape(held, (batch, math.prod(rest))), low.reshape(places, (batch, base.size))
    made = low.temp((batch, base.size), held.dtype)
    low.emit("GATHER", [row, picked], [made], {"axis": 1, "batch_dims": 1})
    low.reshape(cast(low, made, output.dtype), output.shape, output)


def _places(low: Lowering, x: Value, index: Value, axis: int) -> Value:
    """Where in the row of all entries of x each index along `axis` points, in one row."""
    sizes, shape = static(low, x, "the shape"), static(low, index, "the shape of the indices")
    strides = [math.prod(sizes[at + 1 :]) for at in range(len(sizes))]
    grid = np.indices(shape)
    base = sum((grid[at] * strides[at] for at in range(len(sizes)) if at != axis), np.zeros(shape, np.int64))
    whole = from_front(low, index, sizes[axis])
    dtype = np.dtype(index.dtype)
    if whole.constant:
        return low.constant((integers(whole) * strides[axis] + base).reshape(-1).astype(dtype))
    formula = Formula(low)
    scaled = formula.mul(whole, low.constant(np.array(strides[axis], dtype)))
    return low.reshape(formula.add(scaled, low.constant(base.astype(dtype))), (math.prod(shape),))


@lowers("GatherND", since=12)
def gather_nd(low: Lowering) -> None:
    x, index, output = low.input(0), low.input(1), low.output()
    if 0 in output.shape:
        fill(low, np.zeros(known(output.shape) or (0,)), output)
        return
    held, batch = held_type(low, x), low.integer("batch_dims", 0)
    made = output if held.dtype == output.dtype else low.like(output, dtype=held.dtype)
    low.emit("GATHER_ND", [held, _tuples(low, x, index, batch)], [made])
    if made is not output:
        cast(low, made, output.dtype, output)


def _tuples(low: Lowering, x: Value, index: Value, batch: int) -> Value:
    """Indices counted from the front, behind those of the axes that go through both tensors at once."""
    depth = index.shape[-1]
    if isinstance(depth, str):
        low.refuse("the length of its index tuples is open")
    sizes = known(x.shape[batch : batch + depth])
    whole = index
    if sizes is not None:
        whole = _each_from_front(low, index, np.array(sizes))
    elif index.constant and integers(index).min() < 0:
        low.refuse("its indices count from the end of an axis of open size")
    if not batch:
        return whole
    shape = static(low, index, "the shape of the indices")
    dtype = np.dtype(index.dtype)
    lead = np.moveaxis(np.indices(shape[:-1])[:batch], 0, -1).astype(dtype)
    if whole.constant:
        return low.constant(np.concatenate([lead, whole.array()], -1))
    made = low.temp((*shape[:-1], batch + depth), index.dtype)
    low.emit("CONCATENATION", [low.constant(lead), whole], [made], {"axis": len(shape) - 1})
    return made


def _each_from_front(low: Lowering, index: Value, sizes: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Value:
    dtype = np.dtype(index.dtype)
    if index.constant:
        data = integers(index)
        return low.constant(np.where(data < 0, data + sizes, data).astype(dtype))
    below = elementwise(low, "LESS", [index, low.constant(np.zeros((), dtype))], takes=NUMBERS, gives="bool")
    formula = Formula(low)
    return formula.select(below, formula.add(index, low.constant(sizes.astype(dtype))), index)


@lowers("ScatterND", since=11)
def scatter_nd(low: Lowering) -> None:
    x, index, updates = low.input(0), low.input(1), low.input(2)
    sizes, depth = static(low, x, "the shape"), index.shape[-1]
    if isinstance(depth, str) or known(index.shape) is None:
        low.refuse("the shape of its indices is open")
    if 0 in index.shape or 0 in sizes:
        same(low, x, low.output())
        return
    whole = _each_from_front(low, index, np.array(sizes[:depth]))
    strides = np.array([math.prod(sizes[at + 1 : depth]) for at in range(depth)])
    lead, rest = math.prod(sizes[:depth]), math.prod(sizes[depth:])
    formula, dtype = Formula(low), np.dtype(index.dtype)
    if whole.constant:
        places = low.constant((integers(whole) * strides).sum(-1).reshape(-1).astype(np.int32))
    else:
        scaled = low.reshape(formula.mul(whole, low.constant(strides.astype(dtype))), (_count(index), depth))
        summed = low.temp((scaled.shape[0],), index.dtype)
        low.emit("SUM", [scaled, low.constant(np.array([1], np.int32))], [summed], {"keep_dims": False})
        places = summed
    _scatter(low, (x, updates), places, (lead, rest))


def _count(index: Value) -> int:
    return math.prod(int(size) for size in index.shape[:-1])


@lowers("ScatterElements", "Scatter", since=11)
def scatter_elements(low: Lowering) -> None:
    x, index, updates = low.input(0), low.input(1), low.input(2)
    if 0 in index.shape or 0 in x.shape:
        same(low, x, low.output())
        return
    places = _places(low, x, index, low.axis(0, x.rank))
    _scatter(low, (x, updates), places, (math.prod(static(low, x, "the shape")), 1))


_REDUCTIONS = {
    "add": ("UNSORTED_SEGMENT_SUM", "ADD"), "mul": ("UNSORTED_SEGMENT_PROD", "MUL"),
    "max": ("UNSORTED_SEGMENT_MAX", "MAXIMUM"), "min": ("UNSORTED_SEGMENT_MIN", "MINIMUM"),
}  # fmt: skip


def _scatter(low: Lowering, data: tuple[Value, Value], places: Value, shape: tuple[int, int]) -> None:
    """Write rows of updates to rows of x; where they are added or compared, the new ones among themselves first."""
    output, reduction = low.output(), low.text("reduction", "none")
    places = cast(low, places, "int32")
    [count] = places.shape
    if not isinstance(count, int):
        low.refuse("the number of its indices is open")
    x, updates = low.reshape(data[0], shape), low.reshape(data[1], (count, shape[1]))
    if reduction == "none":
        made = _replaced(low, x, updates, places, output.dtype)
    elif reduction in _REDUCTIONS:
        made = _combined(low, x, updates, places, reduction)
    else:
        low.refuse(f"TFLite has no such reduction: {reduction!r}")
    low.reshape(cast(low, made, output.dtype), output.shape, output)


def _replaced(low: Lowering, x: Value, updates: Value, places: Value, dtype: DType) -> Value:
    """The number of the last update of each row, 0 where there is none; a row of x in front of the updates is kept."""
    rows, [count] = int(x.shape[0]), [int(size) for size in places.shape]
    order = low.constant(np.arange(1, count + 1, dtype=np.int32))
    last = low.temp((rows,), "int32")
    number = low.constant(np.array(rows, np.int32))
    low.emit("UNSORTED_SEGMENT_MAX", [order, places, number], [last])
    formula = Formula(low)
    is_new = formula.binary("GREATER", last, low.constant(np.int32(0)), dtype="bool")
    index = formula.sub(formula.maximum(last, low.constant(np.int32(1))), low.constant(np.int32(1)))
    held = held_type(low, updates)
    chosen = low.like(held, x.shape)
    low.emit("GATHER", [held, index], [chosen], {"axis": 0, "batch_dims": 0})
    return formula.select(low.reshape(is_new, (rows, 1)), cast(low, chosen, dtype), x, low.like(x))


def _combined(low: Lowering, x: Value, updates: Value, places: Value, reduction: str) -> Value:
    if x.dtype not in _SCATTERED:
        low.refuse(f"TFLite scatters with a reduction only {', '.join(sorted(_SCATTERED))}, not {x.dtype}")
    segment, code = _REDUCTIONS[reduction]
    gathered = low.like(x)
    low.emit(segment, [updates, places, low.constant(np.array(x.shape[0], np.int32))], [gathered])
    if reduction == "add":
        return Formula(low).add(x, gathered)
    return Formula(low).binary(code, x, gathered)
