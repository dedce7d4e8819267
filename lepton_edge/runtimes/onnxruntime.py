"""ONNX Runtime."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import RuntimeUnavailableError, SelfTestError
from lepton_edge.runtimes._foreign import first_line

if TYPE_CHECKING:
    import onnxruntime

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")
_ERROR_ONLY = 3
_SUFFIX = "ExecutionProvider"
_CPU = "CPU"
_REMOTE = {"Azure"}
"""Providers that would send the inputs to a service."""


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
            raise SelfTestError(f"{self._where}: ONNX Runtime failed: {first_line(cause)}") from cause
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

        found = [provider.removesuffix(_SUFFIX) for provider in onnxruntime.get_available_providers()]
        return [provider for provider in found if provider not in _REMOTE]

    def load(self, file: Path, *, threads: int, provider: str | None = None) -> OnnxExecutor:
        import onnxruntime  # noqa: PLC0415 - loaded when used

        chosen = provider or _CPU
        if chosen != _CPU and chosen not in self.providers():
            raise RuntimeUnavailableError(f"ONNX Runtime has no provider {chosen!r} here; it has {self.providers()}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERROR_ONLY
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=[chosen + _SUFFIX])
        except Exception as cause:  # its errors share no base class below Exception
            raise SelfTestError(f"{file.name}: ONNX Runtime cannot load it: {first_line(cause)}") from cause
        return OnnxExecutor(session, file.name)


RUNTIME = OnnxRuntime()
