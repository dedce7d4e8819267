"""What changed in an operator from one version to the next, for versions 8 to 20: a table from (operator, version).

A version that is not in the table changed nothing that an older node could notice: it added types, optional inputs,
or attributes whose default is the old behaviour. An adapter gets a node as it was before that version and returns
nodes as they are at it; they are raised further by the caller. Each is tested by running ONNX Runtime on both sides.
Source: ONNX operator changelog (onnx/docs/Changelog.md).
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper

from converters.importers.rewriting import Context, attribute, changed, integer, integers, text

Adapter = Callable[[onnx.NodeProto, Context], list[onnx.NodeProto]]


def _attribute_to_input(name: str, position: int) -> Adapter:
    """An attribute of integers (`axes`, `split`, `k`) became an input; absent or empty, the input is absent."""

    def adapt(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
        value = attribute(node, name)
        values = [value] if isinstance(value, int) else integers(node, name)
        if not values:
            return [changed(node, drop=[name])]
        constant = context.ints(values, f"{node.output[0]}_{name}")
        inputs = [*node.input[:position], *[""] * (position - len(node.input)), constant.output[0]]
        return [constant, changed(node, inputs=inputs, drop=[name])]

    return adapt


def _flattening(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """Softmax and its like before 13 saw a matrix: all axes from `axis` on were one. Source: Changelog, Softmax-1."""
    axis, rank = integer(node, "axis", 1), context.rank(node.input[0])
    if axis == -1 or (rank is not None and axis % max(rank, 1) == rank - 1):
        return [changed(node, axis=-1)]
    x, y = node.input[0], node.output[0]
    shape, flat, soft = (context.names.fresh(f"{y}_{part}") for part in ("shape", "flat", "soft"))
    return [
        helper.make_node("Shape", [x], [shape]),
        helper.make_node("Flatten", [x], [flat], axis=axis),
        changed(node, inputs=[flat], outputs=[soft], axis=-1),
        helper.make_node("Reshape", [soft, shape], [y]),
    ]


def _clip_11(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    made, inputs = [], [node.input[0]]
    for name in ("min", "max"):
        value = attribute(node, name)
        if isinstance(value, float | int):
            made += context.scalar_like(float(value), node.input[0], f"{node.output[0]}_{name}")
        inputs.append("" if value is None else made[-1].output[0])
    return [*made, changed(node, inputs=inputs, drop=["min", "max"])]


def _pad_11(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    pads = context.ints(integers(node, "pads") or [], f"{node.output[0]}_pads")
    made, inputs = [pads], [node.input[0], pads.output[0]]
    value = attribute(node, "value")
    if isinstance(value, float) and value:
        made += context.scalar_like(value, node.input[0], f"{node.output[0]}_value")
        inputs.append(made[-1].output[0])
    return [*made, changed(node, inputs=inputs, drop=["pads", "value"])]


def _slice_10(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    made = []
    for name in ("starts", "ends", "axes"):
        values = integers(node, name)
        if values is not None:
            made.append(context.ints(values, f"{node.output[0]}_{name}"))
    inputs = [node.input[0], *(constant.output[0] for constant in made)]
    return [*made, changed(node, inputs=inputs, drop=["starts", "ends", "axes"])]


def _split_18(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto]:
    given = len(node.input) > 1 and node.input[1]
    return [node if given else changed(node, num_outputs=len(node.output))]


def _batch_norm_9(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    if not integer(node, "spatial", 1):
        raise context.not_yet(node, "spatial = 0 (statistics per pixel): export the model with a newer opset")
    return [changed(node, drop=["spatial"])]


def _batch_norm_14(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    if any(name and name in context.used for name in node.output[1:]):
        raise context.refuse(node, "it is in training mode (its statistics are read): export the model for inference")
    return [changed(node, outputs=node.output[:1])]


def _dropout_10(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """The mask became boolean."""
    if len(node.output) < 2 or node.output[1] not in context.used:
        return [changed(node, outputs=node.output[:1])]
    mask = context.names.fresh(f"{node.output[1]}_bool")
    return [
        changed(node, outputs=[node.output[0], mask]),
        helper.make_node("CastLike", [mask, node.input[0]], [node.output[1]]),
    ]


def _dropout_12(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto]:
    """Without the input training_mode nothing is dropped, whatever the ratio."""
    return [changed(node, drop=["ratio"])]


def _upsample_9(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    scales = context.constant(np.asarray(attribute(node, "scales"), np.float32), f"{node.output[0]}_scales")
    return [scales, changed(node, inputs=[node.input[0], scales.output[0]], drop=["scales"])]


def _upsample_10(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto]:
    mode = "linear" if text(node, "mode", "nearest") in {"linear", "bilinear"} else "nearest"
    return [changed(node, op_type="Resize", mode=mode)]


def _resize_11(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """Version 10 is asymmetric; its nearest neighbour is the floor where it enlarges, the ceiling where it shrinks.

    So an enlarging resize is followed by a shrinking one; known scales leave one of them, mostly.
    Source: ONNX Runtime, upsample.h, GetNearestPixelFromOriginal (SIMPLE), and ONNX's test resize_downsample_nearest.
    """
    how = {"coordinate_transformation_mode": "asymmetric"}
    x, scales = node.input
    if text(node, "mode", "nearest") != "nearest":
        return [changed(node, inputs=[x, "", scales], **how)]
    known = context.constants.get(scales)
    if known is not None and bool(np.all(known.astype(np.float64) >= 1)):
        return [changed(node, inputs=[x, "", scales], nearest_mode="floor", **how)]
    if known is not None and bool(np.all(known.astype(np.float64) <= 1)):
        return [changed(node, inputs=[x, "", scales], nearest_mode="ceil", **how)]
    one = context.constant(np.ones(1, np.float32), f"{node.output[0]}_one")
    up, down, larger = (context.names.fresh(f"{node.output[0]}_{part}") for part in ("up", "down", "larger"))
    return [
        one,
        helper.make_node("Max", [scales, one.output[0]], [up]),
        helper.make_node("Min", [scales, one.output[0]], [down]),
        changed(node, inputs=[x, "", up], outputs=[larger], nearest_mode="floor", **how),
        changed(node, name=context.names.fresh(down), inputs=[larger, "", down], nearest_mode="ceil", **how),
    ]


def _resize_13(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """Unused inputs are left out instead of empty; tf_half_pixel_for_nn is gone.

    That one was (x + 0.5) / scale without the half taken off again: its floor is half_pixel's round_prefer_ceil.
    """
    x, roi, scales, sizes = [*node.input, "", "", ""][:4]
    mode = text(node, "coordinate_transformation_mode", "half_pixel")
    inputs = [x, roi if mode == "tf_crop_and_resize" else "", "" if sizes else scales, sizes]
    if mode != "tf_half_pixel_for_nn":
        return [changed(node, inputs=inputs)]
    if text(node, "mode", "nearest") != "nearest" or text(node, "nearest_mode", "round_prefer_floor") != "floor":
        raise context.refuse(
            node, "tf_half_pixel_for_nn goes with mode nearest and nearest_mode floor only: export it with opset 13"
        )
    how = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
    return [changed(node, inputs=inputs, **how)]


def _scatter_11(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto]:
    return [changed(node, op_type="ScatterElements")]


def _scan_9(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    raise context.not_yet(node, "Scan of opset 8 (over a batch): export the model with opset 9 or later")


def _roi_align_16(node: onnx.NodeProto, _: Context) -> list[onnx.NodeProto]:
    return [changed(node, coordinate_transformation_mode="output_half_pixel")]


_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}


def _grid_sample_20(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    mode = text(node, "mode", "bilinear")
    if mode not in _GRID_MODES:
        raise context.refuse(node, f"mode {mode!r} is unknown: export the model again")
    return [changed(node, mode=_GRID_MODES[mode])]


def _dft_20(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    axis = context.constant(np.asarray(integer(node, "axis", 1), np.int64), f"{node.output[0]}_axis")
    x, length = [*node.input, ""][:2]
    return [axis, changed(node, inputs=[x, length, axis.output[0]], drop=["axis"])]


_axes = _attribute_to_input("axes", 1)
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

ADAPTERS: Mapping[tuple[str, int], Adapter] = {
    ("BatchNormalization", 9): _batch_norm_9,
    ("BatchNormalization", 14): _batch_norm_14,
    ("Clip", 11): _clip_11,
    ("DFT", 20): _dft_20,
    ("Dropout", 10): _dropout_10,
    ("Dropout", 12): _dropout_12,
    ("GridSample", 20): _grid_sample_20,
    ("Hardmax", 13): _flattening,
    ("LogSoftmax", 13): _flattening,
    ("Pad", 11): _pad_11,
    ("ReduceSum", 13): _axes,
    **{(f"Reduce{name}", 18): _axes for name in _REDUCTIONS},
    ("Resize", 11): _resize_11,
    ("Resize", 13): _resize_13,
    ("RoiAlign", 16): _roi_align_16,
    ("Scan", 9): _scan_9,
    ("Scatter", 11): _scatter_11,
    ("Slice", 10): _slice_10,
    ("Softmax", 13): _flattening,
    ("Split", 13): _attribute_to_input("split", 1),
    ("Split", 18): _split_18,
    ("Squeeze", 13): _axes,
    ("TopK", 10): _attribute_to_input("k", 1),
    ("Unsqueeze", 13): _axes,
    ("Upsample", 9): _upsample_9,
    ("Upsample", 10): _upsample_10,
}
