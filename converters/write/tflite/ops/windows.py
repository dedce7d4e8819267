"""Windows that slide over spatial axes: what TFLite's SAME and VALID mean, and a pad before where neither is meant."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.program import Input, OptionOrAxis, PerAxis, Size, Together, Value


class Window(NamedTuple):
    """Of a convolution or pool along one axis.

    Attributes:
        size: of the input's axis.
        kernel, stride, dilation: as ONNX says them.
        begin, end: how much is padded; `end` only as far as some window reads it, where the size is known.
        tail: what the node says of the end.
        out: size of the output's axis.
        same: whether the padding is SAME whatever the size.
    """

    size: Size
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    out: Size
    tail: int = 0
    same: bool = False

    @property
    def reach(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME computes just this."""
        if self.same:
            return True
        if isinstance(self.size, str) or isinstance(self.out, str):
            around = (self.begin, self.begin + self.end)
            return self.stride == 1 and around == ((self.reach - 1) // 2, self.reach - 1)
        total = max((self.out - 1) * self.stride + self.reach - self.size, 0)
        return self.out == -(-self.size // self.stride) and self.begin == total // 2

    @property
    def is_valid(self) -> bool:
        return not (self.begin or self.end or self.same)


Windows = Sequence[Window]


def windows_of(low: Lowering, sizes: Sequence[Size], kernel: Sequence[int], outs: Sequence[Size]) -> list[Window]:
    """The windows of a Conv or a pool.

    Args:
        low: the node; strides, dilations, pads, auto_pad and ceil_mode are read from it.
        sizes, outs: of the spatial axes of input and output.
        kernel: sizes of the window.
    """
    count = len(kernel)
    strides = low.integers("strides", [1] * count)
    dilations = low.integers("dilations", [1] * count)
    pads = low.integers("pads", [0] * 2 * count)
    if not len(sizes) == len(outs) == count == len(strides) == len(dilations) == len(pads) // 2:
        low.refuse("its attributes do not fit the number of its input's axes")
    if min(pads, default=0) < 0:
        low.refuse("its pads are negative")
    kind = low.text("auto_pad", "NOTSET")
    found = []
    for axis in range(count):
        begin, end = (0, 0) if kind == "VALID" else (pads[axis], pads[axis + count])
        plain = Window(sizes[axis], kernel[axis], strides[axis], dilations[axis], begin, end, outs[axis], end)
        if kind in {"SAME_UPPER", "SAME_LOWER"}:
            found.append(_same(low, plain, upper=kind == "SAME_UPPER"))
        else:
            found.append(_explicit(low, plain))
    return found


def _same(low: Lowering, window: Window, *, upper: bool) -> Window:
    if not isinstance(window.size, int):
        if not upper and (window.stride != 1 or window.reach % 2 == 0):
            low.refuse("SAME_LOWER over an axis of open size")
        return window._replace(begin=0, end=0, tail=0, same=True)
    out = -(-window.size // window.stride)
    total = max((out - 1) * window.stride + window.reach - window.size, 0)
    begin = total // 2 if upper else total - total // 2
    return _checked(low, window._replace(begin=begin, end=total - begin, tail=total - begin), out)


def _explicit(low: Lowering, window: Window) -> Window:
    if not isinstance(window.size, int):
        if low.integer("ceil_mode", 0) and window.stride != 1:
            low.refuse("ceil_mode over an axis of open size")
        return window
    free = window.size + window.begin + window.end - window.reach
    out = free // window.stride + 1
    if low.integer("ceil_mode", 0):
        out = -(-free // window.stride) + 1
        # A window that would begin in the padding behind the input is left out (ONNX operators, MaxPool, opset 22).
        out -= (out - 1) * window.stride >= window.size + window.begin
    return _checked(low, window, out)


def _checked(low: Lowering, window: Window, out: int) -> Window:
    if out < 1 or (isinstance(window.out, int) and window.out != out):
        low.refuse(f"its output has {window.out} entries along an axis where {out} windows fit")
    assert isinstance(window.size, int)
    needed = (out - 1) * window.stride + window.reach - window.size - window.begin
    return window._replace(end=max(needed, 0), out=out)


def padding_of(windows: Windows) -> str | None:
    """VALID or SAME; None where a pad must come before."""
    if all(window.is_valid for window in windows):
        return "VALID"
    return "SAME" if all(window.is_same for window in windows) else None


def pads_of(low: Lowering, windows: Windows) -> dict[int, tuple[int, int]]:
    """Axis -> what is to be padded before and behind, for tensors whose spatial axes begin at 2."""
    if any(window.same for window in windows):
        low.refuse("padding that depends on an open size along one axis, and is explicit along another")
    return {axis: (window.begin, window.end) for axis, window in enumerate(windows, 2) if window.begin or window.end}


def pad(low: Lowering, value: Value, pads: Mapping[int, tuple[int, int]], fill: float | None = None) -> Value:
    """Padded with zeros, or with another number; `value` itself where nothing is to be padded."""
    if not any(one or other for one, other in pads.values()):
        return value
    table = np.array([pads.get(axis, (0, 0)) for axis in range(value.rank)], np.int32)
    made = low.like(value, [grown(size, *pads.get(axis, (0, 0))) for axis, size in enumerate(value.shape)])
    inputs: list[Input] = [value, PerAxis(table)]
    rule = Together(straight=frozenset(pads))
    if fill is None:
        low.emit("PAD", inputs, [made], rule=rule)
    else:
        limits = _limits(value)
        number = low.constant(np.clip(fill, *limits).astype(np.dtype(value.dtype)).reshape(1), what="fill")
        number.quantization = value.quantization
        low.emit("PADV2", [*inputs, number], [made], rule=rule)
    return made


def _limits(value: Value) -> tuple[np.generic, np.generic]:
    dtype = np.dtype(value.dtype)
    limits: np.finfo[np.floating] | np.iinfo[np.integer]
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return dtype.type(limits.min), dtype.type(limits.max)


def grown(size: Size, *more: int) -> Size:
    """A size with what is added before and behind."""
    total = sum(more)
    if total == 0:
        return size
    return size + total if isinstance(size, int) else f"{size}{total:+d}"


def strides_of(windows: Windows) -> dict[str, OptionOrAxis]:
    """The options that say the strides."""
    names = ("stride_d", "stride_h", "stride_w")[-len(windows) :]
    return {name: window.stride for name, window in zip(names, windows, strict=True)}


def dilations_of(windows: Windows) -> dict[str, OptionOrAxis]:
    """The options that say the dilations."""
    names = ("dilation_d_factor", "dilation_h_factor", "dilation_w_factor")[-len(windows) :]
    return {name: window.dilation for name, window in zip(names, windows, strict=True)}
