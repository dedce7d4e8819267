"""TFLite files in a workspace: written, copied, and written again in another layout.

The format's schema comes with LiteRT, so what reads or writes it is imported when it is first wanted.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from lepton_edge.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from converters.tflite.model import TfliteModel
    from converters.write.tflite import Written

_INSTALL = "TFLite files need LiteRT: pip install 'lepton-edge[convert]', or leave the format out (--formats onnx)"
_SMALL_BYTES = 1024
"""Constants up to this size are kept in the graph's own file, larger ones beside it."""


def write(model: ir.Model, path: Path, *, native: bool, runtime: str = "litert") -> "Written":
    """Write a graph as TFLite; see `write_tflite`.

    Raises:
        RuntimeUnavailableError: LiteRT, which brings the schema, is not installed.
        UnsupportedOperatorError: operators that TFLite has no form of; all are named.
    """
    try:
        from converters.write.tflite import write_tflite  # noqa: PLC0415 - loaded when used
    except ModuleNotFoundError as cause:
        raise _missing(cause) from cause
    return write_tflite(model, path, native=native, runtime=runtime)


def copy(source: Path, path: Path) -> "TfliteModel":
    """Write a TFLite file again as it was: what a hostile one hid between its tables does not come along.

    Raises:
        ModelError: it is no TFLite file, or a damaged one.
        RuntimeUnavailableError: LiteRT, which brings the schema, is not installed.
    """
    try:
        from converters.tflite.pack import write_file  # noqa: PLC0415 - loaded when used
        from converters.tflite.parse import read_file  # noqa: PLC0415
    except ModuleNotFoundError as cause:
        raise _missing(cause) from cause
    model = read_file(source)
    write_file(model, path)
    return model


def runs_on(path: Path) -> tuple[str, list[str]]:
    """What loads a TFLite file: the oldest TensorFlow Lite release, and of the runtimes that were tried, which.

    Raises:
        ModelError: it is no TFLite file, or a damaged one.
        RuntimeUnavailableError: LiteRT, which brings the schema, is not installed.
    """
    try:
        from converters.tflite.parse import read_file  # noqa: PLC0415 - loaded when used
        from converters.tflite.versions import MAXIMA, runtime_version  # noqa: PLC0415
    except ModuleNotFoundError as cause:
        raise _missing(cause) from cause
    operators = [one for subgraph in read_file(path).subgraphs for one in subgraph.operators]
    able = [name for name, maxima in MAXIMA.items() if all(one.version <= maxima.get(one.code, 0) for one in operators)]
    return runtime_version(operators), able


def _missing(cause: ModuleNotFoundError) -> Exception:
    return RuntimeUnavailableError(_INSTALL) if (cause.name or "").startswith("ai_edge_litert") else cause


def save_graph(model: ir.Model, path: Path) -> Path:
    """Keep a graph, its large constants streamed into a file of their own beside it.

    Returns:
        What `load_graph` takes.
    """
    ir.save(model, path, format="protobuf", external_data=f"{path.name}.data", size_threshold_bytes=_SMALL_BYTES)
    return path


def load_graph(path: Path) -> ir.Model:
    """The graph that `save_graph` kept; its large constants are mapped from the disk."""
    return ir.load(path, format="protobuf")
