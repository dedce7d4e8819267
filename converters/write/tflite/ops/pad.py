"""Frames around tensors: constant, mirrored, repeated; negative widths cut."""

from collections.abc import Sequence

import numpy as np

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import known
from converters.write.tflite.ops.move import Cut, axis_places, cut, scattered
from converters.write.tflite.ops.widen import NUMBERS, cast, constant_ints, fill, narrowed, same
from converters.write.tflite.program import Axis, Choice, Fixed, Input, PerAxis, Together, Value, nhwc
from converters.write.tflite.table import lowers

_TAKES: frozenset[DType] = NUMBERS | {"int8", "uint8", "bool"}
_MAX_RANK = 5
_MODES = {"edge": "edge", "wrap": "wrap", "reflect": "reflect"}

Widths = Sequence[tuple[int, int]]
"""Before and after, of each axis."""


@lowers("Pad", since=2, int8=True, moves=True)
def pad(low: Lowering) -> None:
    x, output, mode = low.input(0), low.output(), low.text("mode", "constant")
    pads, axes = constant_ints(low.input(1)), low.optional(3)
    chosen = constant_ints(axes) if axes is not None else list(range(x.rank))
    if pads is None or chosen is None:
        _computed(low, x, output, mode)
        return
    widths = [(0, 0)] * x.rank
    for at, axis in enumerate(chosen):
        widths[axis % x.rank] = (pads[at], pads[at + len(chosen)])
    if mode == "constant":
        frame(low, x, widths, _number(low, x), output)
    elif mode in _MODES:
        _by_index(low, x, widths, mode, output)
    else:
        low.refuse(f"TFLite has no such mode: {mode!r}")


def _number(low: Lowering, x: Value) -> Value | None:
    """What the frame is filled with; None: zeros."""
    given = low.optional(2)
    if given is None:
        return None
    if not given.constant:
        return low.reshape(cast(low, given, x.dtype), ()) if given.quantization is None else _same_scale(low, given, x)
    number = given.array().reshape(()).astype(np.float64 if given.dtype != "int64" else np.int64)
    if given.quantization is not None:
        number = (number - given.quantization.zero_point[0]) * given.quantization.scale[0]
    return None if number == 0 else low.constant_like(number, x)


def _same_scale(low: Lowering, given: Value, x: Value) -> Value:
    if not given.quantization or not given.quantization.same(x.quantization):
        low.refuse("its number has another scale than its tensor")
    return low.reshape(given, ())


def frame(low: Lowering, x: Value, widths: Widths, number: Value | None, output: Value) -> None:
    """Put a frame of one number around x; negative widths cut first."""
    x = _trimmed(low, x, widths)
    wide = [(max(0, before), max(0, after)) for before, after in widths]
    axes = frozenset(axis for axis, width in enumerate(wide) if width != (0, 0))
    sizes = known(output.shape)
    if sizes is not None and 0 in sizes:
        fill(low, np.zeros(sizes), output)
        return
    if not axes:
        same(low, x, output)
        return
    if 0 in x.shape and number is not None and not number.constant:
        low.refuse("it frames nothing with a number that is computed")
    if 0 in x.shape:
        fill(low, np.full(sizes or (), 0 if number is None else number.array()), output)
        return
    if x.rank > _MAX_RANK:
        low.refuse(f"TFLite frames at most {_MAX_RANK} axes")
    dtype = x.dtype if x.dtype in _TAKES or x.quantization else "int32"
    made = output if dtype == output.dtype else low.like(output, dtype=dtype)
    inputs: list[Input] = [cast(low, x, dtype), PerAxis(np.array(wide, np.int32))]
    inputs += [] if number is None else [number if number.quantization else cast(low, number, dtype)]
    low.emit("PAD" if number is None else "PADV2", inputs, [made], rule=Together(straight=axes))
    if made is not output:
        cast(low, made, output.dtype, output)


def _trimmed(low: Lowering, x: Value, widths: Widths) -> Value:
    cuts = {
        axis: Cut(max(0, -before), None if after >= 0 else after)
        for axis, (before, after) in enumerate(widths)
        if before < 0 or after < 0
    }
    if not cuts:
        return x
    sizes = list(x.shape)
    for axis, one in cuts.items():
        size = sizes[axis]
        if isinstance(size, str):
            low.refuse("it cuts along an open axis")
        sizes[axis] = len(range(size)[one.start : one.end])
    made = low.like(x, sizes)
    cut(low, x, cuts, made)
    return made


def _by_index(low: Lowering, x: Value, widths: Widths, mode: str, output: Value) -> None:
    """Each axis by the entries that it then has; several are done one after another."""
    framed = [axis for axis, width in enumerate(widths) if width != (0, 0)]
    if not framed:
        same(low, x, output)
    for axis in framed:
        size = x.shape[axis]
        if isinstance(size, str):
            low.refuse(f"it frames an open axis in the mode {mode}")
        before, after = widths[axis]
        order = np.arange(size)[max(0, -before) : size - max(0, -after)]
        if not len(order):
            low.refuse("there is nothing to repeat")
        index = np.pad(order, (max(0, before), max(0, after)), mode=mode)  # type: ignore[call-overload]
        shape = (*x.shape[:axis], len(index), *x.shape[axis + 1 :])
        made = output if axis == framed[-1] else low.like(x, shape)
        take(low, x, low.constant(index.astype(np.int32)), axis, made)
        x = made


def take(low: Lowering, x: Value, index: Value, axis: int, output: Value) -> None:
    """Entries along one axis; index of shape (n,)."""
    ways = [Fixed()] + ([Fixed(inputs={0: nhwc(x.rank)}, outputs={0: nhwc(x.rank)})] if x.rank > 2 else [])
    low.emit("GATHER", [x, index], [output], {"axis": Axis(axis), "batch_dims": 0}, rule=Choice(tuple(ways)))


def _computed(low: Lowering, x: Value, output: Value, mode: str) -> None:
    """Widths that are fed; the kernel fails where one is negative."""
    if mode not in {"constant", "reflect"}:
        low.refuse(f"its widths must be constant in the mode {mode}")
    pads = narrowed(low, low.input(1))
    [count] = pads.shape
    if isinstance(count, str):
        low.refuse("the number of axes that it frames is open")
    if x.rank > _MAX_RANK or x.dtype not in _TAKES:
        low.refuse(f"TFLite frames at most {_MAX_RANK} axes, of {', '.join(sorted(_TAKES))}")
    rows = low.transpose(low.reshape(pads, (2, count // 2)), (1, 0))
    rows = scattered(low, axis_places(low, low.optional(3), count // 2, x.rank), rows, x.rank)
    if mode == "reflect":
        low.emit("MIRROR_PAD", [x, rows], [output], {"mode": "REFLECT"})
        return
    number = _number(low, x)
    low.emit("PAD" if number is None else "PADV2", [x, rows, *([] if number is None else [number])], [output])


@lowers("CenterCropPad", since=18)
def center_crop_pad(low: Lowering) -> None:
    """The shape of the result says how much is cut or framed, the smaller half first."""
    x, output = low.input(0), low.output()
    old, new = known(x.shape), known(output.shape)
    if old is None or new is None:
        low.refuse("its sizes are open")
    widths = []
    for before, after in zip(old, new, strict=True):
        first = abs(after - before) // 2
        rest = abs(after - before) - first
        widths.append((first, rest) if after >= before else (-first, -rest))
    frame(low, x, widths, None, output)
