"""A model as its importer gives it: one ONNX graph, its signature, and where it came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import ModelSignature

Reference = Callable[[Arrays], Arrays]
"""Inputs by the signature's names, as many samples as one likes, to outputs: what the source framework gives."""


@dataclass(frozen=True)
class Source:
    """An imported model.

    Attributes:
        model: the graph, with all of its weights inside; treat it as read-only.
        signature: inputs and outputs, batch first; open axes are named.
        format: what it was imported from ("onnx", "torch", "keras", "tflite", ...).
        where: how messages name it (a path, mostly).
        size_bytes: of the source file and the external data beside it.
        sha256: of the source file and the external data after it, in hexadecimal; of the serialised graph for a
            model in memory.
        reference: the model in its own framework; None where the graph is the source itself.
        notes: what a user should know of the import.
        original: a .tflite file that it was read from, to be written again as it was; None for other formats.
    """

    model: onnx.ModelProto
    signature: ModelSignature
    format: str
    where: str
    size_bytes: int
    sha256: str = ""
    reference: Reference | None = field(default=None, compare=False)
    notes: Sequence[str] = ()
    original: Path | None = None

    def light(self) -> "Source":
        """The same without the graph and what it came from: all that is needed once artifacts are written."""
        return replace(self, model=onnx.ModelProto(), reference=None)

    def to_bytes(self) -> bytes:
        """The float ONNX file; equal models give equal bytes."""
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data
