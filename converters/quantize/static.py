"""Static int8: one calibration, activations U8, weights S8 per channel, written as a QDQ graph.

ONNX Runtime's quantiser stands behind `quantize_static` for now: a plan of our own per profile takes its place without
a change outside this file. Calibration is its MinMax: only two numbers a tensor and sample are kept.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from converters.data.dataset import Dataset
from converters.ort import ERRORS, first_line
from lepton_edge.bundle.binding import Arrays
from lepton_edge.errors import ModelError


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Feeds one sample at a time; nothing is kept."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._next = 0

    def get_next(self) -> Arrays | None:
        if self._next == len(self._data):
            return None
        self._next += 1
        return self._data.inputs(self._next - 1)


def quantize_static(prepared: onnx.ModelProto, calibration: Dataset, *, where: str) -> onnx.ModelProto:
    """Quantise a prepared float graph.

    Args:
        prepared: from `prepare`; unchanged.
        calibration: the samples whose ranges become the scales.
        where: how messages name the model.

    Raises:
        DataError: a calibration sample cannot be read or does not fit.
        ModelError: the model gives NaN or Inf on a sample, or the quantiser cannot take it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(prepared)
    add_pre_process_metadata(copy)
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        try:
            quantization.quantize_static(
                copy,
                str(target),
                _Reader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        except (*ERRORS, ValueError, RuntimeError, KeyError, AttributeError, TypeError, AssertionError) as cause:
            raise ModelError(f"{where}: the quantiser does not take this model: {first_line(cause)}") from cause
        model = onnx.load(target)
    model.ClearField("metadata_props")
    check_scales(model, where=where)
    return model


def check_scales(model: onnx.ModelProto, *, where: str) -> None:
    """Refuse scales that are no positive numbers: a NaN in calibration would silence a layer.

    Raises:
        ModelError: naming the tensor.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and node.input[1] in values:
            scale: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(values[node.input[1]])
            if not np.isfinite(scale).all() or not (scale > 0).all():
                raise ModelError(
                    f"{where}: calibration found no finite range for {node.input[0]!r}: "
                    "does the float model give NaN or Inf on these samples?"
                )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice (on the root logger, and about NaN, which `check_scales` finds) from the user."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(max(before, logging.ERROR))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        root.setLevel(before)
