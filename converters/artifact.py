"""A file that was made from the source model, before anything about it is known."""

from dataclasses import dataclass
from pathlib import Path

from converters.graph.operators import is_half, is_quantised
from converters.quantize.profiles import FLOAT, Profile
from converters.source import Source
from lepton_edge.bundle.manifest import Binding, ModelSignature, Precision, Variant
from lepton_edge.runtimes import Session, open_session


@dataclass(frozen=True)
class Artifact:
    """One ONNX file for one profile.

    Attributes:
        profile: what it was made for; its `variant` is the artifact's name.
        precision: as the manifest names it.
        data: the file.
        int8_macs: share of multiply-accumulates done in int8, 0 to 1; None for float.
    """

    profile: Profile
    precision: Precision
    data: bytes
    int8_macs: float | None = None

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
        )

    def open(self, folder: Path, signature: ModelSignature, *, threads: int = 1) -> Session:
        """Load the artifact with its runtime.

        Args:
            folder: a scratch folder; the file is written there once, and may go when the session is open.
            signature: of the source model.
            threads: of the runtime.

        Raises:
            SelfTestError: the runtime does not take the file.
        """
        return open_session(self.write(folder), signature, self.variant(signature), threads=threads)

    def write(self, folder: Path) -> Path:
        """Put the file into a scratch folder."""
        path = folder / self.file
        if not path.exists():
            path.write_bytes(self.data)
        return path


def source_artifact(source: Source) -> Artifact:
    """The source model as it is."""
    return Artifact(profile=FLOAT, precision=_precision(source), data=source.to_bytes())


def _precision(source: Source) -> Precision:
    if is_quantised(source.model):
        return "int8"
    return "float16" if is_half(source.model) else "float32"
