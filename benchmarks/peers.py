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
import onnxruntime
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

Inputs = Mapping[str, np.ndarray]
"""Arrays by input name, the first axis the samples."""


class Peer(NamedTuple):
    """path: the file that was written and loads, None with the reason where there is none."""

    path: Path | None
    reason: str
    seconds: float


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: Inputs, batch: int) -> None:
        self._inputs, self._batch, self._next = inputs, batch, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        start, self._next = self._next, self._next + self._batch
        part = {name: array[start : self._next] for name, array in self._inputs.items()}
        return part if all(len(array) == self._batch for array in part.values()) else None


def quantize_peer(model: Path, inputs: Inputs, out: Path, *, batch: int = 1) -> Peer:
    """Quantise with the calibration samples that ours gets, and load the result once.

    Args:
        batch: the size of the first axis of one inference; 1 unless the model fixes another.
    """
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
