"""The seam to ONNX Runtime on the host: what the runtime adapter of the kernel does not offer.

Its errors share no base class below Exception, so they are listed here, once.
"""

import os
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from lepton_edge.errors import SelfTestError
from lepton_edge.runtimes.onnxruntime import OnnxExecutor

ERRORS = (
    state.EPFail,
    state.EngineError,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.ModelLoadCanceled,
    state.NoModel,
    state.NoSuchFile,
    state.NotFound,
    state.NotImplemented,
    state.RuntimeException,
)
PROVIDERS = ["CPUExecutionProvider"]
WORKERS = min(2, os.cpu_count() or 1)
"""Inputs that are run at a time where only outputs count; each on one thread of its own, so that none knows of another.
More would hold more activations."""
_ERROR_ONLY = 3


def first_line(error: BaseException) -> str:
    """The first line of a foreign error, short enough for one line of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def options(*, threads: int, optimise: bool = True) -> onnxruntime.SessionOptions:
    """Session options; without `optimise` every node runs as it is written (float kernels between Q and DQ)."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1
    made.log_severity_level = _ERROR_ONLY
    if not optimise:
        made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return made


def session(
    model: Path | bytes, *, threads: int = 1, optimise: bool = True, optimised: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a file, or the bytes of one, as ONNX Runtime itself has it: its errors are not translated.

    Args:
        model: as protobuf.
        threads: inside of an operator.
        optimise: see `options`.
        optimised: where to write the graph that ONNX Runtime made of it.
    """
    how = options(threads=threads, optimise=optimise)
    if optimised:
        how.optimized_model_filepath = str(optimised)
    read = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(read, how, providers=PROVIDERS)


def open_plain(file: Path, *, threads: int, optimise: bool) -> OnnxExecutor:
    """Load `file` with or without graph optimisation.

    Raises:
        SelfTestError: ONNX Runtime does not take it.
    """
    try:
        made = session(file, threads=threads, optimise=optimise)
    except ERRORS as cause:
        raise SelfTestError(f"{file.name}: ONNX Runtime cannot load it: {first_line(cause)}") from cause
    return OnnxExecutor(made, file.name)
