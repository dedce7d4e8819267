"""int8 without data: weights int8, nothing known of the activations before run time.

Two forms, chosen by what was measured (ONNX Runtime 1.32, EfficientNet-Lite0, 200 images, one thread):
ConvInteger with activations quantised at run time took 25 ms where float takes 9.5 and lost 18 of 183 right answers,
because its weights have one scale a tensor. So a convolution keeps float arithmetic and reads int8 weights, one scale
a channel, through DequantizeLinear (9.4 ms, the accuracy of the weights alone); a matrix product becomes
MatMulInteger with U8 weights, whose activations are quantised at run time (an LSTM likewise). The file shrinks to about
a quarter; no promise is made on accuracy or speed.
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from converters.ort import ERRORS, first_line
from lepton_edge.errors import ModelError

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
"""Where a convolution's weights keep their output channels."""
_MIN_ELEMENTS = 256
"""Below this the scales and nodes cost as much as the bytes saved."""


def quantize_dynamic(prepared: onnx.ModelProto, *, where: str) -> onnx.ModelProto:
    """Quantise the weights of a prepared float graph.

    Raises:
        ModelError: the quantiser cannot take the model.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(prepared)
    add_pre_process_metadata(copy)
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        target = Path(folder) / "dynamic.onnx"
        try:
            # U8 weights: S8 ones saturate on x86 without VNNI.
            quantization.quantize_dynamic(
                copy,
                str(target),
                op_types_to_quantize=["MatMul", "Gemm", "Gather", "LSTM"],
                per_channel=True,
                weight_type=quantization.QuantType.QUInt8,
            )
        except (*ERRORS, ValueError, RuntimeError, KeyError, AttributeError, TypeError, AssertionError) as cause:
            raise ModelError(f"{where}: the quantiser does not take this model: {first_line(cause)}") from cause
        model = onnx.load(target)
    model.ClearField("metadata_props")
    _shrink_convolutions(model.graph)
    return model


def _shrink_convolutions(graph: onnx.GraphProto) -> None:
    """Replace the float weights of each convolution by int8 ones and a DequantizeLinear, in place."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    plan: dict[str, int] = {}
    for node in graph.node:
        axis = _CHANNEL_AXIS.get(node.op_type)
        weight = constants.get(node.input[1]) if axis is not None else None
        if axis is None or weight is None or weight.data_type != TensorProto.FLOAT:
            continue
        if np.prod(weight.dims) >= _MIN_ELEMENTS and not _grouped_transpose(node):
            plan[weight.name] = axis
    others = {name for node in graph.node if node.op_type not in _CHANNEL_AXIS for name in node.input}
    added = [_shrink(graph, constants[name], axis) for name, axis in plan.items() if name not in others]
    renamed = {node.input[0].removesuffix("_int8"): node.output[0] for node in added}
    for node in graph.node:
        if node.op_type in _CHANNEL_AXIS and node.input[1] in renamed:
            node.input[1] = renamed[node.input[1]]
    for position, node in enumerate(added):
        graph.node.insert(position, node)


def _grouped_transpose(node: onnx.NodeProto) -> bool:
    """A grouped ConvTranspose has several output channels at one index of axis 1: no scale a channel there."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "ConvTranspose" and groups != 1


def _shrink(graph: onnx.GraphProto, weight: onnx.TensorProto, axis: int) -> onnx.NodeProto:
    """Swap an initialiser for its int8 form; returns the node that gives the float values back."""
    name = weight.name
    steps, scale = symmetric(numpy_helper.to_array(weight), axis=axis)
    graph.initializer.remove(weight)
    graph.initializer.extend(
        numpy_helper.from_array(array, f"{name}{suffix}")
        for array, suffix in ((steps, "_int8"), (scale, "_scale"), (np.zeros(len(scale), np.int8), "_zero_point"))
    )
    return helper.make_node(
        "DequantizeLinear",
        [f"{name}_int8", f"{name}_scale", f"{name}_zero_point"],
        [f"{name}_float"],
        f"{name}_dequantize",
        axis=axis,
    )


def symmetric(weight: npt.NDArray[np.float32], *, axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantise to S8 with one scale a channel and zero point 0.

    Args:
        weight: any shape.
        axis: the channels.

    Returns:
        steps of `weight`'s shape in -127..127, and scales of shape (channels,): weight is about scale * steps.

    Source: ONNX QuantizeLinear; -128 is left out so that the range is symmetric (LiteRT 8-bit specification).
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    largest = np.abs(weight).max(axis=others)
    # A scale below the smallest normal number would round to 0, or to a denormal that runtimes flush to 0.
    scale = np.where(largest > 0, np.maximum(largest / 127, np.finfo(np.float32).tiny), 1).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    steps = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127)
    return steps.astype(np.int8), scale
