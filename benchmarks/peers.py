"""ONNX Runtime's own static quantiser, as its documentation says to use it on x86: the peer of every table.

QDQ, U8 activations, S8 weights per channel, MinMax calibration, after its own pre-processing. What it cannot do is a
row in a table, so nothing here raises for a model that the peer fails on.
"""

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import version_converter
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

PER_CHANNEL_OPSET = 13
"""The first opset whose DequantizeLinear takes a scale per channel."""

Inputs = Mapping[str, np.ndarray]
"""Arrays by input name, the first axis the samples."""


class Peer(NamedTuple):
    """What came of it.

    Attributes:
        path: the file that was written and loads; None where there is none.
        reason: why there is none, or why it could not be made of the model as it is; else "".
        seconds: that it took.
    """

    path: Path | None
    reason: str
    seconds: float

    def noted(self, figure: str) -> str:
        """A table's cell: the figure, with what had to be done for it."""
        return f"{figure} ({self.reason})" if self.reason else figure


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: Inputs, batch: int) -> None:
        self._inputs, self._batch, self._next = inputs, batch, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        start, self._next = self._next, self._next + self._batch
        part = {name: array[start : self._next] for name, array in self._inputs.items()}
        return part if all(len(array) == self._batch for array in part.values()) else None


def quantize_peer(model: Path, inputs: Inputs, out: Path, *, batch: int = 1) -> Peer:
    """Quantise with the calibration samples that ours gets, and load the result once.

    A model below opset 13 on which it fails is lifted there by onnx's own converter and tried again.

    Args:
        batch: the size of the first axis of one inference; 1 unless the model fixes another.
    """
    first = _attempt(model, inputs, out, batch)
    opset = onnx.load(model, load_external_data=False).opset_import[0].version
    if first.path or opset >= PER_CHANNEL_OPSET:
        return first
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        lifted = Path(folder) / "lifted.onnx"
        try:
            onnx.save(version_converter.convert_version(onnx.load(model), PER_CHANNEL_OPSET), lifted)
        except Exception:  # noqa: BLE001 - the converter raises what it likes
            return first
        second = _attempt(lifted, inputs, out, batch)
    reason = f"fails at opset {opset}; lifted to {PER_CHANNEL_OPSET}"
    return Peer(second.path, reason if second.path else first.reason, first.seconds + second.seconds)


def _attempt(model: Path, inputs: Inputs, out: Path, batch: int) -> Peer:
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="peer-") as folder, _quiet():
            quantization.quantize_static(
                str(_prepared(model, Path(folder))),
                str(out),
                _Reader(inputs, batch),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        onnxruntime.InferenceSession(str(out), _silent(), providers=["CPUExecutionProvider"])
    except Exception as cause:  # noqa: BLE001 - it fails in many ways, and each is a finding, not ours to sort
        lines = str(cause).strip().splitlines() or [""]
        return Peer(None, f"{type(cause).__name__}: {lines[0][:120]}", time.perf_counter() - start)
    return Peer(out, "", time.perf_counter() - start)


def _prepared(model: Path, folder: Path) -> Path:
    """The model after the peer's pre-processing; where that fails, without its symbolic shapes, then the model."""
    target = folder / "prepared.onnx"
    for skip in (False, True):
        try:
            quant_pre_process(str(model), str(target), skip_symbolic_shape=skip)
        except Exception:  # noqa: BLE001 - as above; the next, weaker way is tried
            continue
        return target
    return model


def _silent() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
