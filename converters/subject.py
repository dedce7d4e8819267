"""What `evaluate` and `benchmark` look at: a model's file or a bundle, as files that can be loaded here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from converters.artifact import Artifact, kept_tflite, source_artifact
from converters.data.open import read_class_names
from converters.golden import golden_inputs
from converters.graph.signature import Shapes, check_batch
from converters.host import host_runtime
from converters.importers import import_model
from converters.pack import Card
from converters.quantize.profiles import FLOAT, FLOATS, STATIC, X86_VNNI, host_flags, saturates
from converters.request import Request
from converters.source import Source
from converters.workspace import Workspace, disk_full_named
from lepton_edge.bundle import MANIFEST, Bundle
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import ModelSignature, Variant
from lepton_edge.preprocess.recipe import load_preprocess
from lepton_edge.preprocess.spec import files_of
from lepton_edge.runtimes import Session, installed


@dataclass(frozen=True)
class Opening:
    """How a model is opened.

    Attributes:
        shapes: sizes for inputs whose axes other than the batch are symbolic.
        inputs: example inputs, for kinds of models that need them.
        trust: allow formats that can run code.
        preprocess: preprocess.toml, in place of what a bundle holds.
        labels: class names, likewise.
    """

    shapes: Shapes = field(default_factory=dict)
    inputs: object = None
    trust: bool = False
    preprocess: Path | None = None
    labels: Path | None = None


@dataclass(frozen=True)
class Entry:
    """One variant whose file lies in a workspace. size: of the file in bytes."""

    variant: Variant
    path: Path
    size: int

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def is_float(self) -> bool:
        """Whether it is the source model, in either format."""
        return self.variant.profile in {profile.name for profile in FLOATS}

    @property
    def format(self) -> str:
        return self.variant.format

    def open(self, signature: ModelSignature, *, threads: int = 1) -> Session:
        """Load the file with its runtime, or what stands in for it. Raises as `Artifact.open`."""
        runtime = host_runtime(self.variant.runtime)
        executor = runtime.load(self.path, threads=threads, provider=self.variant.provider or None)
        return Session(executor, signature, self.variant)


@dataclass(frozen=True)
class Subject:
    """A model with all of its variants.

    Attributes:
        where: the path of the bundle; "" for a model that is none.
        format, size: of the source; of a bundle the float variant's size, as it does not hold the source's.
        entries: the float one first.
        golden: inputs that fit the model.
    """

    where: str
    format: str
    size: int
    signature: ModelSignature
    entries: list[Entry]
    card: Card
    golden: Arrays

    @property
    def plain(self) -> Entry | None:
        """The float model."""
        first = self.entries[0]
        return first if first.is_float else None


@contextmanager
def opened(model: object, opening: Opening) -> Iterator[Subject]:
    """Make a model ready in a workspace that lasts as long as the block.

    Args:
        model: a path to a model or a bundle, a `Bundle`, a `Source`, or what `import_model` takes.
        opening: how to open it; a bundle brings its own preprocessing and labels where none are given.

    Raises:
        BundleError, ModelError, DataError, UsageError: something that cannot be used.
    """
    with Workspace() as workspace, disk_full_named(workspace.path):
        if isinstance(model, Bundle):
            subject = _of_bundle(model, model.label, workspace.path)
        elif isinstance(model, str | Path) and is_bundle(Path(model)):
            subject = _of_bundle(Bundle.open(model), str(model), workspace.path)
        else:
            subject = _of_model(model, opening, workspace.path)
        yield with_card(subject, opening)


def of_artifacts(source: Source, artifacts: Sequence[Artifact], card: Card) -> Subject:
    """A model that is in memory, with its files. Raises as `check_batch`."""
    check_batch(source.signature, where=source.where)
    entries = [Entry(one.variant(source.signature), one.path, one.size) for one in artifacts]
    return Subject(
        where="",
        format=source.format,
        size=source.size_bytes,
        signature=source.signature,
        entries=_float_first(entries),
        card=card,
        golden=golden_inputs(None, source.signature, seed=0),
    )


def is_bundle(path: Path) -> bool:
    """Whether a path names a .lep file or an unpacked bundle."""
    return path.suffix.lower() == ".lep" or (path / MANIFEST).is_file()


def _of_model(model: object, opening: Opening, folder: Path) -> Subject:
    source = import_model(model, shapes=opening.shapes, inputs=opening.inputs, trust=opening.trust)
    name = Request(model=model, out=folder).bundle_name()
    plain = source_artifact(source, folder)
    itself = [kept_tflite(source, plain.precision, folder)] if source.original else []
    return of_artifacts(source, [plain, *itself], Card(name, ""))


def _of_bundle(bundle: Bundle, where: str, folder: Path) -> Subject:
    manifest = bundle.manifest
    entries = []
    for variant in sorted(manifest.variants, key=lambda one: one.rank):
        path = bundle.extract(variant.file, folder / variant.file)
        entries.append(Entry(variant, path, manifest.files[variant.file].size))
    named = {path: bundle.read(path) for path in files_of(manifest.preprocess)}
    return Subject(
        where=where,
        format=manifest.source.get("format", ""),
        size=next((one.size for one in entries if one.is_float), 0),
        signature=manifest.signature,
        entries=_float_first(entries),
        card=Card(manifest.name, manifest.version, manifest.labels, manifest.preprocess, manifest.postprocess, named),
        golden=bundle.golden().inputs,
    )


def _float_first(entries: Sequence[Entry]) -> list[Entry]:
    """The ONNX one first among them: it is the source model wherever it is there."""
    return sorted(entries, key=lambda one: (not one.is_float, one.is_float and one.variant.format != FLOAT.format))


def with_card(subject: Subject, opening: Opening) -> Subject:
    """Put preprocessing and labels that the user gave before those that the model came with."""
    card = subject.card
    if opening.preprocess:
        recipe = load_preprocess(opening.preprocess)
        card = replace(card, steps=recipe.steps, postprocess=recipe.postprocess, files=recipe.files)
    if opening.labels:
        card = replace(card, labels=read_class_names(opening.labels))
    return replace(subject, card=card)


def why_skipped(entry: Entry, *, timing: bool) -> str:
    """Why a variant is not run on this machine; "" where it is.

    Args:
        entry: the variant.
        timing: whether its speed is asked for; what is made for another kind of machine may still compute right.
    """
    variant = entry.variant
    flags, machine = host_flags()
    if variant.format not in {runtime.format for runtime in installed().values()}:
        return f"its runtime {variant.runtime} is not installed here"
    if variant.machines and machine not in variant.machines:
        return _foreign(variant, timing=timing)
    missing = [choice for choice in variant.isa if not flags.intersection(choice)]
    if missing:
        return f"it needs {' or '.join(missing[0])}, which this CPU lacks: it would compute wrongly without saying so"
    if _unprotected(entry):
        return "its int8 weights are signed and this CPU has no VNNI: it would compute wrongly without saying so"
    return ""


def _foreign(variant: Variant, *, timing: bool) -> str:
    kinds = ", ".join(variant.machines)
    if timing:
        return f"it is made for {kinds}: its speed here would say nothing"
    flags, machine = host_flags()
    profile = next((one for one in STATIC if one.name == variant.profile), None)
    if profile is None or saturates(profile, flags=flags, machine=machine):
        return f"it is made for {kinds}, and nothing says that this CPU computes it right"
    return ""


def _unprotected(entry: Entry) -> bool:
    """Whether an int8 file that names no CPU (one that came quantised) would saturate on this one."""
    flags, machine = host_flags()
    variant = entry.variant
    signed = variant.format == "onnx" and variant.precision == "int8" and not variant.isa
    if not signed or not saturates(X86_VNNI, flags=flags, machine=machine):
        return False
    graph = onnx.load(entry.path).graph
    return any(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1 for tensor in graph.initializer)
