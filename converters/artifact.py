"""A file that was made from the source model, before anything about it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import onnx
import onnx_ir as ir

from converters import tflite_files
from converters.graph.canonical import canonicalise
from converters.graph.operators import is_half, is_quantised
from converters.graph.stored import with_float_weights
from converters.host import host_runtime
from converters.outcome import KeptFloat
from converters.proto import write_model
from converters.quantize.profiles import FLOAT, FLOAT_TFLITE, FLOATS, Format, Profile
from converters.source import Source
from converters.write.onnx import write_onnx
from lepton_edge.bundle.manifest import Binding, ModelSignature, Precision, TensorSpec, Variant
from lepton_edge.runtimes import Session

if TYPE_CHECKING:
    from converters.tflite.model import Tensor

TOGETHER_BYTES = 600_000_000
"""Most bytes of files that are loaded at one time; one more than the float file is loaded all the same."""


@dataclass(frozen=True)
class Artifact:
    """One file for one profile. It lies in the conversion's workspace and lives as long as that.

    Attributes:
        profile: what it was made for; its `variant` is the artifact's name.
        precision: as the manifest names it.
        path: where the file lies.
        size: of the file in bytes.
        int8_macs: share of multiply-accumulates done in int8, 0 to 1; None for float.
        min_runtime: the oldest version of the runtime that takes the file; "" where it is not known.
        notes: operators that were left float, with the reasons.
        inputs, outputs: how its tensors stand for the signature's; None where they are those of the signature.
        graph: what a TFLite file was written from, where it may be wanted in another layout; None elsewhere.
        shipped: whether it goes into the bundle; False where it is only what others are compared with.
    """

    profile: Profile
    precision: Precision
    path: Path
    size: int
    int8_macs: float | None = None
    min_runtime: str = ""
    notes: Sequence[KeptFloat] = ()
    inputs: Sequence[Binding] | None = None
    outputs: Sequence[Binding] | None = None
    graph: Path | None = None
    shipped: bool = True

    @property
    def name(self) -> str:
        """The profile's; a source that is no float32 is called by what it is."""
        plain = self.is_float and self.precision != "float32"
        return f"{self.precision}-{self.format}" if plain else self.profile.variant

    @property
    def is_source(self) -> bool:
        """Whether this is the source model itself, which all others are compared with."""
        return self.profile == FLOAT

    @property
    def is_float(self) -> bool:
        """Whether this is the model as it came, in either format."""
        return self.profile in FLOATS

    @property
    def format(self) -> Format:
        return self.profile.format

    @property
    def file(self) -> str:
        return f"{self.name}.{self.format}"

    def variant(self, signature: ModelSignature, *, rank: int = 0, tolerance: float = 1.0) -> Variant:
        """The manifest's entry, with nothing measured in it yet."""
        return Variant(
            name=self.name,
            file=self.file,
            format=self.format,
            precision=self.precision,
            runtime=self.profile.runtime,
            profile=self.profile.name,
            inputs=_bindings(signature.inputs, self.inputs),
            outputs=_bindings(signature.outputs, self.outputs),
            rank=rank,
            tolerance=tolerance,
            isa=self.profile.isa,
            machines=self.profile.machines,
            int8_macs=self.int8_macs,
            min_runtime=self.min_runtime,
            provider=self.profile.provider,
        )

    def open(self, signature: ModelSignature, *, threads: int = 1) -> Session:
        """Load the artifact with its runtime, or what stands in for that here.

        Args:
            signature: of the source model.
            threads: of the runtime.

        Raises:
            SelfTestError: the runtime does not take the file.
            RuntimeUnavailableError: nothing here reads the format.
        """
        runtime = host_runtime(self.profile.runtime)
        executor = runtime.load(self.path, threads=threads, provider=self.profile.provider or None)
        return Session(executor, signature, self.variant(signature))

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


class Timed(Loadable, Protocol):
    """A file whose speed is compared with that of the float file of its format."""

    @property
    def is_float(self) -> bool: ...
    @property
    def format(self) -> str: ...


L = TypeVar("L", bound=Loadable)
T = TypeVar("T", bound=Timed)


def in_groups(artifacts: Sequence[L]) -> list[list[L]]:
    """Which files are loaded at one time: all where they are small together, else the float one with each other one.

    Args:
        artifacts: the float one first; it stands first in every group.
    """
    plain, *others = artifacts
    if sum(artifact.size for artifact in artifacts) <= TOGETHER_BYTES or not others:
        return [[plain, *others]]
    return [[plain, other] for other in others]


def in_timing_groups(files: Sequence[T]) -> list[list[T]]:
    """Which files are timed beside each other: all where they are small together, else as `in_groups` by format."""
    groups = in_groups(files)
    if len(groups) == 1:
        return groups
    by_format: dict[str, list[T]] = {}
    for file in sorted(files, key=lambda one: not one.is_float):
        by_format.setdefault(file.format, []).append(file)
    return [group for alike in by_format.values() for group in in_groups(alike)]


def _bindings(specs: Sequence[TensorSpec], given: Sequence[Binding] | None) -> list[Binding]:
    if given is not None:
        return list(given)
    return [Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in specs]


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


def write_artifact(
    model: ir.Model, profile: Profile, precision: Precision, folder: Path, *, keep_graph: bool = False
) -> Artifact:
    """Write a graph at the canonical opset into a workspace, in the format that its profile names.

    Args:
        model: canonical, perhaps with QuantizeLinear and DequantizeLinear; it is not changed.
        profile: what it is for.
        precision: as the manifest names it.
        folder: the workspace.
        keep_graph: keep the graph of a TFLite file beside it.

    Raises:
        UnsupportedOperatorError: TFLite has no form of some operators; it names them all.
        NotYetSupportedError: an ONNX file of more than 2 GiB.
        DiskFullError, StorageError: it cannot be written.
    """
    path = folder / f"{profile.variant}.{profile.format}"
    if profile.format == "onnx":
        made = write_onnx(model, path)
        return Artifact(profile, precision, path, path.stat().st_size, min_runtime=made.min_runtime)
    written = tflite_files.write(model, path, native=True, runtime=profile.runtime)
    return Artifact(
        profile,
        precision,
        path,
        path.stat().st_size,
        min_runtime=written.min_runtime,
        inputs=written.inputs,
        outputs=written.outputs,
        graph=tflite_files.save_graph(model, folder / f"{profile.variant}.graph") if keep_graph else None,
    )


def lite_graph(source: Source) -> ir.Model:
    """What a source is written from as TFLite: canonical, its stored weights float unless it computes in int8.

    Raises:
        ModelError: it cannot be brought into canonical form.
    """
    model = source.model
    return canonicalise(model if is_quantised(model) else with_float_weights(model), where=source.where)


def kept_tflite(source: Source, precision: Precision, folder: Path, *, keep_graph: bool = False) -> Artifact:
    """Write a source as it is as TFLite: the file that it came from again, else its graph.

    Raises:
        ModelError: TFLite has no form of it.
        RuntimeUnavailableError: LiteRT, which brings the format's schema, is not installed.
    """
    if source.original is None:
        return write_artifact(lite_graph(source), FLOAT_TFLITE, precision, folder, keep_graph=keep_graph)
    path = folder / f"{FLOAT_TFLITE.variant}.tflite"
    main = tflite_files.copy(source.original, path).main
    ends = [
        [_bound(spec, main.tensors[index]) for spec, index in zip(specs, indices, strict=True)]
        for specs, indices in ((source.signature.inputs, main.inputs), (source.signature.outputs, main.outputs))
    ]
    return Artifact(FLOAT_TFLITE, precision, path, path.stat().st_size, inputs=ends[0], outputs=ends[1])


def _bound(spec: TensorSpec, tensor: "Tensor") -> Binding:
    """A tensor of a TFLite file that stands for one of the signature: as it is, or in steps where that is float."""
    scales = tensor.quantization if tensor.dtype != spec.dtype else None
    return Binding(
        name=spec.name,
        tensor=tensor.name,
        dtype=tensor.dtype,  # type: ignore[arg-type]  # the signature has no type beyond the manifest's
        scale=None if scales is None else float(scales.scale[0]),
        zero_point=0 if scales is None else int(scales.zero_point[0]),
    )


def _precision(source: Source) -> Precision:
    if is_quantised(source.model):
        return "int8"
    return "float16" if is_half(source.model) else "float32"
