"""Resize: TFLite's own where it computes the same, else along each axis a gather (nearest) or a matrix."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.formula import Formula, product
from converters.write.tflite.program import Axis, Choice, Fixed, Size, Value, nhwc
from converters.write.tflite.table import lowers

Floats = npt.NDArray[np.float64]
_LARGEST_MATRIX = 1 << 22
_MOST_RANK = 5


class Ratio(NamedTuple):
    """How one axis is resized.

    Attributes:
        axis: of the input.
        size, out: entries before and after.
        scale: as the node says it, or out / size.
        start, end: of the region that tf_crop_and_resize cuts out, as shares of the axis.
    """

    axis: int
    size: int
    out: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@lowers("Resize", since=11, int8=True, moves=True, parameters=(1, 2))
def resize(low: Lowering) -> None:
    """Nearest, linear and cubic, for sizes that are known."""
    x, mode = low.input(0), low.text("mode", "nearest")
    ratios = _ratios(low)
    moved = [ratio for ratio in ratios if not _is_idle(low, ratio)]
    if not moved:
        Formula(low).same(x, low.output())
    elif mode == "nearest":
        _nearest(low, moved)
    elif x.dtype not in {"float32", "int8"}:
        low.refuse(f"{mode} interpolation of {x.dtype}")
    else:
        _by_matrices(low, moved, mode)


def _is_idle(low: Lowering, ratio: Ratio) -> bool:
    return ratio.size == ratio.out and ratio.scale == 1 and _transformation(low) != "tf_crop_and_resize"


def _transformation(low: Lowering) -> str:
    return low.text("coordinate_transformation_mode", "half_pixel")


def _ratios(low: Lowering) -> list[Ratio]:
    """Those of the axes that the node speaks of (ONNX operators, Resize: axes, scales, sizes, roi)."""
    x, out = low.input(0), low.output()
    axes = [axis % x.rank for axis in low.integers("axes", range(x.rank))]
    scales, given = _scales(low, axes)
    kept = low.text("keep_aspect_ratio_policy", "stretch") != "stretch"
    region = _region(low, axes)
    found = []
    for index, axis in enumerate(axes):
        size, made = x.shape[axis], out.shape[axis]
        if isinstance(size, str):
            stays = scales[index] == 1 if given else made == size
            if not stays or _transformation(low) == "tf_crop_and_resize":
                low.refuse(f"axis {axis} has no known size")
            continue
        length = _length(low, size, scales[index]) if given else made
        if not isinstance(length, int) or (isinstance(made, int) and made != length) or length < 1 or size < 1:
            low.refuse(f"axis {axis} has {made} entries where {length} are asked for")
        if given and _transformation(low) == "align_corners" and abs(size * scales[index] - length) > 1e-4:
            # ONNX's reference aligns to the size before it is rounded down, ONNX Runtime to the one behind.
            low.refuse(f"aligned corners of {size * scales[index]} entries")
        scale = scales[index] if given or kept else length / size
        found.append(Ratio(axis, size, length, scale, region[index], region[index + len(axes)]))
    return found


def _length(low: Lowering, size: int, scale: float) -> int:
    """The product, rounded down; ONNX Runtime multiplies in float32."""
    length = math.floor(np.float32(size) * np.float32(scale))
    return length if length == math.floor(size * scale) else low.refuse(f"{size} entries times {scale}")


def _scales(low: Lowering, axes: Sequence[int]) -> tuple[list[float], bool]:
    """One for each axis, and whether the node gives them; those of a kept aspect ratio follow from the sizes."""
    scales = low.optional(2)
    if scales is not None and 0 not in scales.shape:
        return [float(one) for one in low.array(2, "scales").astype(np.float32)], True
    wanted = [low.output().shape[axis] for axis in axes]
    policy = low.text("keep_aspect_ratio_policy", "stretch")
    lengths = [low.input(0).shape[axis] for axis in axes]
    follow = all(isinstance(size, int) or size == length for size, length in zip(wanted, lengths, strict=True))
    if policy == "stretch" and not low.input(3).constant and follow:
        # They are fed or computed, but the shape that the model declares says what they are.
        sizes = [float(size) if isinstance(size, int) else math.nan for size in wanted]
    else:
        sizes = [float(one) for one in low.array(3, "sizes")]
    known = [float(one) if isinstance(one, int) else math.nan for one in lengths]
    each = [size / one for size, one in zip(sizes, known, strict=True)]
    if policy == "stretch":
        return each, False
    shared = min(each) if policy == "not_larger" else max(each)
    return [shared] * len(axes), False


def _region(low: Lowering, axes: Sequence[int]) -> list[float]:
    if _transformation(low) != "tf_crop_and_resize":
        return [0.0] * len(axes) + [1.0] * len(axes)
    roi = [float(one) for one in low.array(1, "roi")]
    return roi if len(roi) == 2 * len(axes) else low.refuse("a region that does not name its axes")


def positions(ratio: Ratio, transformation: str) -> Floats:
    """Where each output entry lies among the input's (ONNX operators, Resize, coordinate_transformation_mode)."""
    at = np.arange(ratio.out, dtype=np.float64)
    return _POSITIONS[transformation](ratio, at)


def _align_corners(ratio: Ratio, at: Floats) -> Floats:
    return at * (ratio.size - 1) / (ratio.out - 1) if ratio.out > 1 else at * 0


def _pytorch_half_pixel(ratio: Ratio, at: Floats) -> Floats:
    return _half_pixel(ratio, at) if ratio.out > 1 else at * 0 - (0 if ratio.out == 1 else 0.5)


def _half_pixel(ratio: Ratio, at: Floats) -> Floats:
    return (at + 0.5) / ratio.scale - 0.5


def _half_pixel_symmetric(ratio: Ratio, at: Floats) -> Floats:
    adjustment = ratio.out / (ratio.scale * ratio.size)
    return ratio.size / 2 * (1 - adjustment) + _half_pixel(ratio, at)


def _crop(ratio: Ratio, at: Floats) -> Floats:
    if ratio.out == 1:
        return at * 0 + 0.5 * (ratio.start + ratio.end) * (ratio.size - 1)
    step = (ratio.end - ratio.start) * (ratio.size - 1) / (ratio.out - 1)
    return ratio.start * (ratio.size - 1) + at * step


_POSITIONS: dict[str, Callable[[Ratio, Floats], Floats]] = {
    "align_corners": _align_corners,
    "asymmetric": lambda ratio, at: at / ratio.scale,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "tf_crop_and_resize": _crop,
}


# nearest


def _nearest(low: Lowering, ratios: Sequence[Ratio]) -> None:
    x, out = low.input(0), low.output()
    picks = {ratio.axis: _picked(low, ratio) for ratio in ratios}
    options = _as_tflite(low, ratios, tflite_nearest, picks)
    if options is not None and x.dtype in {"float32", "int8", "uint8"}:
        _emit(low, "RESIZE_NEAREST_NEIGHBOR", options)
        return
    value = x
    for number, (axis, pick) in enumerate(picks.items()):
        shape = [len(pick) if at == axis else size for at, size in enumerate(value.shape)]
        made = out if number == len(picks) - 1 else low.like(value, shape)
        places = low.constant(pick.astype(np.int32), what="places")
        ways = [Fixed({0: order}, {0: order}) for order in _orders(x.rank)]
        low.emit("GATHER", [value, places], [made], {"axis": Axis(axis), "batch_dims": 0}, rule=Choice(tuple(ways)))
        value = made


def _orders(rank: int) -> list[tuple[int, ...]]:
    plain = tuple(range(rank))
    return [plain, nhwc(rank)] if rank > 2 else [plain]


_ROUNDINGS: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _picked(low: Lowering, ratio: Ratio) -> npt.NDArray[np.int64]:
    """The input's entry for each of the output's; kept inside, as ONNX Runtime does."""
    if _transformation(low) == "tf_crop_and_resize":
        low.refuse("a region with nearest entries")
    round_to = _ROUNDINGS[low.text("nearest_mode", "round_prefer_floor")]
    at = positions(ratio, _transformation(low))
    near = np.abs(2 * at - np.rint(2 * at)) < 1e-4
    exact, early, late = (
        np.clip(round_to(one), 0, ratio.size - 1).astype(np.int64)
        for one in (np.where(near, np.rint(2 * at) / 2, at), at - 1e-5, at + 1e-5)
    )
    loose = _transformation(low) == "half_pixel_symmetric"
    if loose and not (np.array_equal(exact, early) and np.array_equal(exact, late)):
        low.refuse("entries that lie just between two, so that a rounding decides")
    return exact


def tflite_nearest(ratio: Ratio, corners: bool, half: bool) -> npt.NDArray[np.int64]:
    """What RESIZE_NEAREST_NEIGHBOR picks: in float32, rounded only where corners are aligned."""
    scale = _tflite_scale(ratio, corners=corners)
    at = (np.arange(ratio.out, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
    rounded = np.floor(at + np.float32(0.5)) if corners else np.floor(at)
    return np.asarray(np.clip(rounded, 0, ratio.size - 1), np.int64)


def _tflite_scale(ratio: Ratio, *, corners: bool) -> np.float32:
    if corners and ratio.out > 1:
        return np.float32(ratio.size - 1) / np.float32(ratio.out - 1)
    return np.float32(ratio.size) / np.float32(ratio.out)


def _as_tflite(
    low: Lowering,
    ratios: Sequence[Ratio],
    theirs: Callable[[Ratio, bool, bool], npt.NDArray[np.generic]],
    ours: Mapping[int, npt.NDArray[np.generic]],
) -> dict[str, bool] | None:
    """The options with which TFLite resizes height and width just so; None where there are none such."""
    x = low.input(0)
    if x.rank != 4 or any(ratio.axis not in {2, 3} for ratio in ratios):
        return None
    for corners, half in ((False, True), (True, False), (False, False)):
        if all(
            np.allclose(theirs(ratio, corners, half), ours[ratio.axis], rtol=0, atol=1e-6 * ratio.size)
            for ratio in ratios
        ):
            return {"align_corners": corners, "half_pixel_centers": half}
    return None


def _emit(low: Lowering, code: str, options: dict[str, bool]) -> None:
    x, out = low.input(0), low.output()
    sizes = [size for size in out.shape[2:] if isinstance(size, int)]
    if len(sizes) != 2:
        low.refuse("height or width of open size")
    inputs = [x, low.constant(np.array(sizes, np.int32), what="size")]
    low.emit(code, inputs, [out], options, rule=Fixed({0: nhwc(4)}, {0: nhwc(4)}))


# linear and cubic


def _by_matrices(low: Lowering, ratios: Sequence[Ratio], mode: str) -> None:
    x, out = low.input(0), low.output()
    outside = _transformation(low) == "tf_crop_and_resize"
    matrices = {ratio.axis: _matrix(low, ratio, mode, outside=outside) for ratio in ratios}
    if mode == "linear":
        options = _as_tflite(low, ratios, tflite_linear, matrices)
        if options is not None:
            _emit(low, "RESIZE_BILINEAR", options)
            return
    if x.quantization is not None:
        low.refuse("interpolation by matrices in int8")
    fill = low.number("extrapolation_value", 0)
    value = x
    for ratio in ratios:
        value = _along(low, value, ratio, matrices[ratio.axis])
    if outside and fill:
        value = _filled(low, value, ratios, fill)
    Formula(low).same(value, out)


def _matrix(low: Lowering, ratio: Ratio, mode: str, *, outside: bool) -> Floats:
    """(out, size): each output entry as a sum of input entries; rows of zeros for what lies outside of the input."""
    if ratio.out * ratio.size > _LARGEST_MATRIX:
        low.refuse(f"{mode} interpolation from {ratio.size} to {ratio.out} entries")
    at = positions(ratio, _transformation(low))
    smooth = max(1.0, 1 / ratio.scale) if low.integer("antialias", 0) else 1.0
    if smooth > 1 and not low.integer("exclude_outside", 0):
        # ONNX's reference repeats the border there, ONNX Runtime leaves out what lies beyond.
        low.refuse("antialias without exclude_outside")
    kernel: Callable[[Floats], Floats] = _triangle if mode == "linear" else _cubic(low.number("cubic_coeff_a", -0.75))
    exclude = bool(low.integer("exclude_outside", 0)) or smooth > 1
    made = interpolation(at, ratio.size, kernel, smooth=smooth, exclude=(exclude and mode != "linear") or smooth > 1)
    if outside:
        made[(at < 0) | (at > ratio.size - 1)] = 0
    return made


def interpolation(at: Floats, size: int, kernel: Callable[[Floats], Floats], *, smooth: float, exclude: bool) -> Floats:
    """Weights by distance; entries beyond the borders are the border's own, or count for nothing (`exclude`).

    Args:
        at: positions among the input's entries.
        size: number of these.
        kernel: weight by distance, 0 from a distance of 2 on.
        smooth: by how much the kernel is widened (antialias).
    """
    reach = math.ceil(2 * smooth) + 1
    near = np.floor(at)[:, None] + np.arange(-reach, reach + 1)[None, :]
    weights = kernel((near - at[:, None]) / smooth)
    if exclude:
        weights = np.where((near >= 0) & (near <= size - 1), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    made = np.zeros((len(at), size))
    rows = np.broadcast_to(np.arange(len(at))[:, None], near.shape)
    np.add.at(made, (rows, np.clip(near, 0, size - 1).astype(np.int64)), weights)
    return made


def _triangle(distance: Floats) -> Floats:
    return np.asarray(np.maximum(1 - np.abs(distance), 0), np.float64)


def _cubic(a: float) -> Callable[[Floats], Floats]:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981."""

    def kernel(distance: Floats) -> Floats:
        one = np.abs(distance)
        inner = ((a + 2) * one - (a + 3)) * one**2 + 1
        outer = ((one - 5) * one + 8) * one * a - 4 * a
        return np.asarray(np.where(one <= 1, inner, np.where(one < 2, outer, 0)), np.float64)

    return kernel


def tflite_linear(ratio: Ratio, corners: bool, half: bool) -> Floats:
    """The matrix of RESIZE_BILINEAR along one axis, its positions in float32."""
    scale = _tflite_scale(ratio, corners=corners)
    at = np.arange(ratio.out, dtype=np.float32)
    at = (at + np.float32(0.5)) * scale - np.float32(0.5) if half else at * scale
    return interpolation(at.astype(np.float64), ratio.size, _triangle, smooth=1, exclude=False)


def _along(low: Lowering, value: Value, ratio: Ratio, matrix: Floats) -> Value:
    """The product of the matrix and the tensor's entries along one axis, what lies behind it read as columns.

    The channels come last, as those before and behind mostly have them.
    """
    rank = value.rank
    order = nhwc(rank) if rank > 2 and ratio.axis > 1 else tuple(range(rank))
    turned = low.transpose(value, order)
    place = order.index(ratio.axis)
    lead, tail = turned.shape[:place], turned.shape[place + 1 :]
    shape = (*_folded(low, lead), ratio.size, product(tail, low))
    flat = low.reshape(turned, shape)
    made = low.like(value, (*shape[:-2], ratio.out, shape[-1]))
    wide = matrix.astype(np.float32).reshape((1,) * (len(shape) - 2) + matrix.shape)
    options = {"adj_x": False, "adj_y": False}
    low.emit("BATCH_MATMUL", [low.constant(wide, what="matrix"), flat], [made], options)
    back = low.reshape(made, (*lead, ratio.out, *tail))
    return low.transpose(back, tuple(order.index(axis) for axis in range(rank)))


def _folded(low: Lowering, lead: Sequence[Size]) -> Sequence[Size]:
    """The batch axes, as few as the kernel takes."""
    return lead if len(lead) <= _MOST_RANK - 2 else (product(lead, low),)


def _filled(low: Lowering, value: Value, ratios: Sequence[Ratio], fill: float) -> Value:
    """`fill` added where an entry lies outside, which is 0 there."""
    shape = [next((ratio.out for ratio in ratios if ratio.axis == axis), 1) for axis in range(value.rank)]
    inside = np.ones(shape, bool)
    for ratio in ratios:
        at = positions(ratio, _transformation(low))
        along = [-1 if axis == ratio.axis else 1 for axis in range(value.rank)]
        inside &= ((at >= 0) & (at <= ratio.size - 1)).reshape(along)
    return Formula(low).add(value, low.constant(np.where(inside, 0, fill).astype(np.float32), what="fill"))
