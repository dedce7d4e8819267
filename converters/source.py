"""A model as its importer gives it: one ONNX graph, its signature, and where it came from."""

from dataclasses import dataclass

import onnx

from lepton_edge.bundle.manifest import ModelSignature


@dataclass(frozen=True)
class Source:
    """An imported model.

    Attributes:
        model: the graph, with all of its weights inside; treat it as read-only.
        signature: inputs and outputs, batch first; only the batch may be symbolic.
        format: what it was imported from ("onnx").
        where: how messages name it (a path, mostly).
        size_bytes: of the source file and the external data beside it.
        sha256: of the source file.
    """

    model: onnx.ModelProto
    signature: ModelSignature
    format: str
    where: str
    size_bytes: int
    sha256: str = ""

    def to_bytes(self) -> bytes:
        """The float ONNX file; equal models give equal bytes."""
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data
