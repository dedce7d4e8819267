"""A file that was made from the source model, before anything about it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import onnx

from converters.graph.operators import is_half, is_quantised
from converters.outcome import KeptFloat
from converters.proto import write_model
from converters.quantize.profiles import FLOAT, Profile
from converters.source import Source
from lepton_edge.bundle.manifest import Binding, ModelSignature, Precision, Variant
from lepton_edge.runtimes import Session, open_session

TOGETHER_BYTES = 600_000_000
"""Most bytes of files that are loaded at one time; one more than the float file is loaded all the same."""


@dataclass(frozen=True)
class Artifact:
    """One ONNX file for one profile. The file lies in the conversion's workspace and lives as long as that.

    Attributes:
        profile: what it was made for; its `variant` is the artifact's name.
        precision: as the manifest names it.
        path: where the file lies.
        size: of the file in bytes.
        int8_macs: share of multiply-accumulates done in int8, 0 to 1; None for float.
        min_runtime: the oldest version of the runtime that takes the file; "" where it is not known.
        notes: operators that were left float, with the reasons.
    """

    profile: Profile
    precision: Precision
    path: Path
    size: int
    int8_macs: float | None = None
    min_runtime: str = ""
    notes: Sequence[KeptFloat] = ()

    @property
    def name(self) -> str:
        """The profile's; a source that is no float32 is called by what it is."""
        plain = self.is_source and self.precision != "float32"
        return f"{self.precision}-onnx" if plain else self.profile.variant

    @property
    def is_source(self) -> bool:
        """Whether this is the source model itself."""
        return self.profile is FLOAT

    @property
    def file(self) -> str:
        return f"{self.name}.onnx"

    def variant(self, signature: ModelSignature, *, rank: int = 0, tolerance: float = 1.0) -> Variant:
        """The manifest's entry, with nothing measured in it yet."""
        return Variant(
            name=self.name,
            file=self.file,
            format="onnx",
            precision=self.precision,
            runtime=self.profile.runtime,
            profile=self.profile.name,
            inputs=[Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in signature.inputs],
            outputs=[Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in signature.outputs],
            rank=rank,
            tolerance=tolerance,
            isa=self.profile.isa,
            machines=self.profile.machines,
            int8_macs=self.int8_macs,
            min_runtime=self.min_runtime,
        )

    def open(self, signature: ModelSignature, *, threads: int = 1) -> Session:
        """Load the artifact with its runtime.

        Args:
            signature: of the source model.
            threads: of the runtime.

        Raises:
            SelfTestError: the runtime does not take the file.
        """
        return open_session(self.path, signature, self.variant(signature), threads=threads)

    def read(self) -> bytes:
        """The whole file, for those who need it in memory."""
        return self.path.read_bytes()


class Loadable(Protocol):
    """A file that can be loaded here: an artifact, or a variant of a bundle."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    def open(self, signature: ModelSignature, *, threads: int = 1) -> Session: ...


L = TypeVar("L", bound=Loadable)


def in_groups(artifacts: Sequence[L]) -> list[list[L]]:
    """Which files are loaded at one time: all where they are small together, else the float one with each other one.

    Args:
        artifacts: the float one first; it stands first in every group.
    """
    plain, *others = artifacts
    if sum(artifact.size for artifact in artifacts) <= TOGETHER_BYTES or not others:
        return [[plain, *others]]
    return [[plain, other] for other in others]


def source_artifact(source: Source, folder: Path) -> Artifact:
    """Write the source model as it is into a workspace."""
    return onnx_artifact(source.model, FLOAT, _precision(source), folder)


def onnx_artifact(
    model: onnx.ModelProto, profile: Profile, precision: Precision, folder: Path, *, int8_macs: float | None = None
) -> Artifact:
    """Write a graph into a workspace, under the name of its profile's variant.

    Raises:
        DiskFullError, StorageError: it cannot be written.
    """
    path = folder / f"{profile.variant}.onnx"
    size = write_model(model, path)
    return Artifact(profile=profile, precision=precision, path=path, size=size, int8_macs=int8_macs)


def _precision(source: Source) -> Precision:
    if is_quantised(source.model):
        return "int8"
    return "float16" if is_half(source.model) else "float32"
