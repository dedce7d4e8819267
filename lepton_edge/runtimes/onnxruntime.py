"""ONNX Runtime."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import SelfTestError

if TYPE_CHECKING:
    import onnxruntime

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")
_ERROR_ONLY = 3


class OnnxExecutor:
    """An ONNX Runtime session."""

    def __init__(self, session: "onnxruntime.InferenceSession", where: str) -> None:
        self._session = session
        self._where = where
        self._names = [output.name for output in session.get_outputs()]

    def execute(self, inputs: Mapping[str, Array]) -> Arrays:
        try:
            results = self._session.run(self._names, dict(inputs))
        except Exception as cause:  # its errors share no base class below Exception
            raise SelfTestError(f"{self._where}: ONNX Runtime failed: {_first_line(cause)}") from cause
        return {name: np.asarray(result) for name, result in zip(self._names, results, strict=True)}


class OnnxRuntime:
    """The adapter."""

    name = "onnxruntime"
    format = "onnx"

    def version(self) -> str | None:
        for distribution in _DISTRIBUTIONS:
            try:
                return importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
        return None

    def providers(self) -> list[str]:
        import onnxruntime  # noqa: PLC0415 - loaded when used

        return [provider.removesuffix("ExecutionProvider") for provider in onnxruntime.get_available_providers()]

    def load(self, file: Path, *, threads: int) -> OnnxExecutor:
        import onnxruntime  # noqa: PLC0415 - loaded when used

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERROR_ONLY
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as cause:  # its errors share no base class below Exception
            raise SelfTestError(f"{file.name}: ONNX Runtime cannot load it: {_first_line(cause)}") from cause
        return OnnxExecutor(session, file.name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


RUNTIME = OnnxRuntime()
