"""Resizing pictures."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from converters.importers.tflite.op import Op, Rule

_NCHW = (0, 3, 1, 2)


def _mode(op: Op) -> str:
    if op.flag("align_corners"):
        return "align_corners"
    return "half_pixel" if op.flag("half_pixel_centers") else "asymmetric"


def resize_bilinear(op: Op) -> None:
    op.rank(0, 4)
    _resize(op, mode="linear", coordinate_transformation_mode=_mode(op))


def resize_nearest(op: Op) -> None:
    """Where sizes are no multiples of each other runtimes round to other neighbours: then they are gathered."""
    op.rank(0, 4)
    mode = _mode(op)
    given = [size for size in op.sizes(0)[1:3] if size is not None]
    if op.constant(1) is None or len(given) < 2 or _even(given, op.numbers(1, "size"), mode):
        nearest = "floor" if mode == "asymmetric" else "round_prefer_ceil"
        _resize(op, mode="nearest", nearest_mode=nearest, coordinate_transformation_mode=mode)
        return
    made = op.real(0, _NCHW)
    for axis, size, wanted in zip((2, 3), given, op.numbers(1, "size"), strict=True):
        made = op.add("Gather", made, op.ints_of(_nearest(size, wanted, mode).tolist()), axis=axis)
    op.out(made, _NCHW)


def _resize(op: Op, **how: str) -> None:
    """All four sizes are said: ONNX Runtime 1.32 moves a Transpose past a Resize with `axes`, and then refuses it."""
    x, batch, channels = op.real(0, _NCHW), op.sizes(0)[0], op.shape(0)[3]
    if op.constant(1) is not None and batch is not None:
        sizes = op.ints_of([batch, channels, *op.numbers(1, "size")])
    else:
        head = op.add("Slice", op.add("Shape", x), op.ints_of([0]), op.ints_of([2]))
        sizes = op.add("Concat", head, op.ints(1), axis=0)
    op.out(op.add("Resize", x, "", "", sizes, **how), _NCHW)


def _even(given: list[int], wanted: list[int], mode: str) -> bool:
    return mode != "align_corners" and all(b % a == 0 or a % b == 0 for a, b in zip(given, wanted, strict=True))


def _nearest(size: int, wanted: int, mode: str) -> npt.NDArray[np.int64]:
    """The element that each one of the result is. Source: LiteRT, reference/resize_nearest_neighbor.h."""
    corners = mode == "align_corners" and wanted > 1
    scale = np.float32(size - 1) / np.float32(wanted - 1) if corners else np.float32(size) / np.float32(wanted)
    offset = np.float32(0.5 if mode == "half_pixel" else 0.0)
    at = (np.arange(wanted, dtype=np.float32) + offset) * scale
    places = np.floor(at + np.float32(0.5)) if mode == "align_corners" else np.floor(at)
    found: npt.NDArray[np.int64] = np.clip(places.astype(np.int64), 0, size - 1)
    return found


RESIZE: Mapping[str, Rule] = {
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
}
