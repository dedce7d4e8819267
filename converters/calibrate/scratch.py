"""The float graph in ONNX Runtime with inner tensors as outputs, from files and one session at a time.

The weights are written once; each session's graph lies beside them, so that no copy of them passes through a
protobuf in memory and ONNX Runtime maps them from the file.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx
import onnx_ir as ir
import onnxruntime

from converters.ort import ERRORS, PROVIDERS, first_line, options
from lepton_edge import durable
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import ModelError

_WEIGHTS = "weights.bin"
_SIZE = "lepton_edge_size_of/"
FLOAT_TYPES = {"tensor(float)", "tensor(float16)", "tensor(double)"}


class Observed:
    """A session that gives the outputs that it was opened for."""

    def __init__(self, session: onnxruntime.InferenceSession, where: str) -> None:
        self._session = session
        self._where = where
        self.types = {output.name: str(output.type) for output in session.get_outputs()}

    def run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> Arrays:
        """Run once. Raises ModelError where ONNX Runtime fails."""
        try:
            return dict(zip(names, self._session.run(list(names), dict(inputs)), strict=True))
        except ERRORS as cause:
            raise ModelError(f"{self._where}: ONNX Runtime failed: {first_line(cause)}") from cause


class Scratch:
    """A folder with the model's weights, for as long as the `with` block runs."""

    def __init__(self, model: ir.Model, *, where: str) -> None:
        self._model = model
        self._where = where
        self._folder = tempfile.TemporaryDirectory(prefix="lepton-edge-")

    def __enter__(self) -> Self:
        """Write the weights. Raises DiskFullError or StorageError where the disk refuses."""
        path = Path(self._folder.name) / "whole.onnx"
        try:
            with durable.translated(path):
                ir.save(self._model, path, external_data=_WEIGHTS)
            self._proto = onnx.load(path, load_external_data=False)
        except BaseException:
            self._folder.cleanup()
            raise
        del self._proto.graph.value_info[:]  # ONNX Runtime infers anew, and a stale one would stop it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def open(self, names: Sequence[str]) -> Observed:
        """A session with just these outputs; nodes that none of them needs do not run.

        Raises:
            ModelError: ONNX Runtime does not take the model.
        """
        declared = {value.name: value for value in self._proto.graph.output}
        # A name without a type will do: ONNX Runtime fills it in.
        return self._session([declared.get(name, onnx.ValueInfoProto(name=name)) for name in names], [])

    def sizes(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, int]:
        """How many values each tensor has on these inputs; only sizes leave the session, not the tensors."""
        nodes = [onnx.helper.make_node("Size", [name], [_SIZE + name]) for name in names]
        outputs = [onnx.ValueInfoProto(name=_SIZE + name) for name in names]
        results = self._session(outputs, nodes).run(inputs, [_SIZE + name for name in names])
        return {name: int(results[_SIZE + name]) for name in names}

    def _session(self, outputs: Sequence[onnx.ValueInfoProto], nodes: Sequence[onnx.NodeProto]) -> Observed:
        graph = onnx.ModelProto()
        graph.CopyFrom(self._proto)
        del graph.graph.output[:]
        graph.graph.output.extend(outputs)
        graph.graph.node.extend(nodes)
        path = Path(self._folder.name) / "observed.onnx"
        with durable.translated(path):
            path.write_bytes(graph.SerializeToString())
        # One thread: the sums of several can differ from run to run, and the statistics with them.
        how = options(threads=1)
        # A pattern is one block for all tensors at once, beside the outputs': measured, half of the peak memory.
        how.enable_mem_pattern = False
        try:
            session = onnxruntime.InferenceSession(str(path), how, providers=PROVIDERS)
        except ERRORS as cause:
            raise ModelError(f"{self._where}: ONNX Runtime cannot load it: {first_line(cause)}") from cause
        return Observed(session, self._where)
