"""Other shapes of the same values, and shapes as values."""

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, known
from converters.write.tflite.ops.widen import aligned, cast, constant_ints, elementwise, fill, narrowed, same
from converters.write.tflite.program import Size, Value
from converters.write.tflite.table import lowers

_MAX_RANK = 8
"""The kernels that spread values take no more axes."""


@lowers("Reshape", since=14, int8=True, moves=True)
def reshape(low: Lowering) -> None:
    """Where more than one size is open, the kernel is given the shape as a tensor."""
    x, output = low.input(0), low.output()
    target = constant_ints(low.input(1))
    if 0 in output.shape and not x.constant:
        _reshape_to(low, x, low.constant(np.array(_static(low, output), np.int32)), output)
    elif target is not None and _open(output.shape) <= 1:
        low.reshape(x, output.shape, output)
    else:
        _reshape_to(low, x, _target(low, x, narrowed(low, low.input(1))), output)


def _static(low: Lowering, value: Value) -> tuple[int, ...]:
    sizes = known(value.shape)
    if sizes is None:
        low.refuse(f"the shape {list(value.shape)} of {value.name!r} has open sizes")
    return sizes


def _open(shape: tuple[Size, ...]) -> int:
    return sum(isinstance(size, str) for size in shape)


def _reshape_to(low: Lowering, x: Value, shape: Value, output: Value) -> None:
    low.emit("RESHAPE", [x, shape], [output])


def _target(low: Lowering, x: Value, shape: Value) -> Value:
    """Entries of 0 stand for the sizes of x."""
    if low.integer("allowzero", 0):
        return shape
    [length] = shape.shape
    if isinstance(length, str):
        low.refuse("the number of entries in its shape is open")
    sizes = sizes_of(low, x)
    kept = [sizes[axis] if axis < x.rank else low.constant(np.zeros(1, np.int32)) for axis in range(length)]
    zero = elementwise(low, "EQUAL", [shape, low.constant(np.int32(0))], takes=_INT32, gives="bool")
    return Formula(low).select(zero, joined(low, kept), shape) if length else shape


_INT32: frozenset[DType] = frozenset({"int32"})


def sizes_of(low: Lowering, x: Value) -> list[Value]:
    """The sizes of a value as tensors of one int32; constants where they are known."""
    found = [low.constant(np.array([size], np.int32)) if isinstance(size, int) else None for size in x.shape]
    if all(one is not None for one in found):
        return [one for one in found if one is not None]
    shape = low.temp((x.rank,), "int32")
    low.emit("SHAPE", [x], [shape], {"out_type": "int32"})
    return [_entry(low, shape, axis) if one is None else one for axis, one in enumerate(found)]


def _entry(low: Lowering, row: Value, index: int) -> Value:
    made = low.temp((1,), row.dtype)
    begin, size = (low.constant(np.array([number], np.int32)) for number in (index, 1))
    low.emit("SLICE", [row, begin, size], [made])
    return made


def joined(low: Lowering, parts: list[Value]) -> Value:
    """Rows one after another."""
    if all(part.constant for part in parts):
        return low.constant(np.concatenate([part.array() for part in parts]))
    made = low.temp((sum(int(part.shape[0]) for part in parts),), parts[0].dtype)
    low.emit("CONCATENATION", parts, [made], {"axis": 0})
    return made


@lowers("Flatten", "Squeeze", "Unsqueeze", since=9, int8=True, moves=True)
def view(low: Lowering) -> None:
    """The shape of the result says it all, even where the axes are fed."""
    x, output = low.input(0), low.output()
    if _open(output.shape) > 1:
        _view_open(low, x, output)
    else:
        low.reshape(x, output.shape, output)


def _view_open(low: Lowering, x: Value, output: Value) -> None:
    """Several open sizes: those that x has, and one that the kernel finds out."""
    sizes = sizes_of(low, x)
    own = dict(zip(x.shape, sizes, strict=True))
    own |= {output.shape[after]: sizes[before] for before, after in _axes_kept(low, x, output)}
    parts = []
    for size in output.shape:
        known_part = low.constant(np.array([size], np.int32)) if isinstance(size, int) else own.get(size)
        parts.append(low.constant(np.array([-1], np.int32)) if known_part is None else known_part)
    if sum(isinstance(size, str) and size not in own for size in output.shape) > 1:
        low.refuse(f"the sizes {list(output.shape)} do not follow from {list(x.shape)}")
    _reshape_to(low, x, joined(low, parts), output)


def _axes_kept(low: Lowering, x: Value, output: Value) -> list[tuple[int, int]]:
    """Axes of x with those of the output that have their sizes, whatever names these go by, as far as that is known."""
    axes = low.optional(1)
    if low.node.op_type == "Flatten" or axes is None or not axes.constant:
        return []
    drops = low.node.op_type == "Squeeze"
    wide = max(x.rank, output.rank)
    ones = {int(axis) % wide for axis in axes.array().reshape(-1)}
    pairs = enumerate(axis for axis in range(wide) if axis not in ones)
    return [(axis, at) if drops else (at, axis) for at, axis in pairs]


@lowers("Transpose", since=1, int8=True, moves=True)
def transpose(low: Lowering) -> None:
    x = low.input(0)
    low.transpose(x, tuple(low.integers("perm", range(x.rank)[::-1])), low.output())


@lowers("Expand", since=8, int8=True, moves=True)
def expand(low: Lowering) -> None:
    """Both shapes are broadcast to each other."""
    x, output = low.input(0), low.output()
    if not output.rank or (x.shape == output.shape and known(x.shape) is not None and low.input(1).constant):
        same(low, x, output)
        return
    if output.rank > _MAX_RANK:
        low.refuse(f"TFLite spreads at most {_MAX_RANK} axes")
    sizes = known(output.shape)
    if sizes is not None and 0 in sizes:
        fill(low, np.zeros(sizes), output)
    elif sizes is not None and low.input(1).constant:
        low.emit("BROADCAST_TO", [aligned(low, x, output.rank), low.constant(np.array(sizes, np.int32))], [output])
    else:
        wide = aligned(low, x, output.rank)
        sizes_now = sizes_of(low, wide) if wide.rank else [low.constant(np.ones(1, np.int32))]
        own, target = joined(low, sizes_now), narrowed(low, low.input(1))
        both = low.temp((output.rank,), "int32")
        low.emit("BROADCAST_ARGS", [own, target], [both])
        low.emit("BROADCAST_TO", [wide, both], [output])


@lowers("Shape", since=15)
def shape(low: Lowering) -> None:
    x, output = low.input(0), low.output()
    start, end, _ = slice(low.integer("start", 0), low.node.attributes.get_int("end", x.rank)).indices(x.rank)
    sizes = x.shape[start:end]
    if known(sizes) is not None:
        fill(low, np.array(sizes, np.int64), output)
        return
    row = low.temp((x.rank,), "int64")
    low.emit("SHAPE", [x], [row], {"out_type": "int64"})
    begin, length = (low.constant(np.array([number], np.int32)) for number in (start, len(sizes)))
    low.emit("SLICE", [row, begin, length], [output])


@lowers("Size", since=13)
def size(low: Lowering) -> None:
    x, output = low.input(0), low.output()
    sizes = known(x.shape)
    if sizes is not None:
        fill(low, np.prod(sizes, dtype=np.int64), output)
        return
    row = low.temp((x.rank,), "int64")
    low.emit("SHAPE", [x], [row], {"out_type": "int64"})
    low.emit("REDUCE_PROD", [row, low.constant(np.array([0], np.int32))], [output], {"keep_dims": False})


@lowers("ConstantOfShape", since=9)
def constant_of_shape(low: Lowering) -> None:
    given, output = low.node.attributes.get("value"), low.output()
    number = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
    sizes = constant_ints(low.input(0))
    value = low.constant(number.reshape(()).astype(np.dtype(output.dtype)))
    wanted = narrowed(low, low.input(0)) if sizes is None else low.constant(np.array(sizes, np.int32))
    if 0 in output.shape:
        fill(low, np.zeros(_static(low, output)), output)
    elif sizes == []:
        low.reshape(value, output.shape, output)
    else:
        low.emit("FILL", [wanted, value], [output])


@lowers("EyeLike", since=9)
def eye(low: Lowering) -> None:
    rows, columns = _static(low, low.input(0))
    fill(low, np.eye(rows, columns, low.integer("k", 0)), low.output())


@lowers("Range", since=11)
def arange(low: Lowering) -> None:
    output = low.output()
    if 0 in output.shape:
        fill(low, np.zeros(0), output)
        return
    ends = [low.reshape(value, ()) if value.rank else value for value in (low.input(0), low.input(1), low.input(2))]
    dtype = output.dtype if output.dtype in {"float32", "int32", "int64"} else "int32"
    if dtype == "float32":
        _float_range(low, ends, output)
        return
    made = output if dtype == output.dtype else low.like(output, dtype=dtype)
    low.emit("RANGE", [cast(low, one, dtype) for one in ends], [made])
    if made is not output:
        cast(low, made, output.dtype, output)


def _float_range(low: Lowering, ends: list[Value], output: Value) -> None:
    """Start + i step: the kernel itself adds up steps, and rounding errors with them."""
    formula, (start, limit, step) = Formula(low), ends
    count = formula.unary("CEIL", formula.div(formula.sub(limit, start), step))
    whole = low.temp((), "int32")
    low.emit("CAST", [count], [whole], {"in_data_type": "float32", "out_data_type": "int32"})
    index = low.temp(output.shape, "int32")
    zero, one = low.constant(np.int32(0)), low.constant(np.int32(1))
    low.emit("RANGE", [zero, formula.maximum(whole, zero), one], [index])
    formula.add(formula.mul(cast(low, index, "float32"), step), start, output)


@lowers("Constant", since=1)
def constant(low: Lowering) -> None:
    """Those that are left in the bodies of control flow."""
    [(name, item)] = low.node.attributes.items()
    if name not in {"value", "value_float", "value_floats", "value_int", "value_ints"}:
        low.refuse(f"TFLite has no constants like its {name}")
    fill(low, item.as_tensor().numpy() if name == "value" else np.array(item.value), low.output())
