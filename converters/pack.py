"""Put what was kept into a bundle."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from converters.judged import Judged, ranked, to_variant
from converters.measure.accuracy import Evaluation
from converters.source import Source
from converters.twins import find_twins
from lepton_edge.bundle import GOLDEN, Bundle, Golden, Manifest
from lepton_edge.bundle.binding import Arrays
from lepton_edge.preprocess.spec import Step
from lepton_edge.version import VERSION

_DECIDING_PACKAGES = ("ai-edge-litert", "flatbuffers", "networkx", "numpy", "onnx", "onnx-ir", "onnxruntime")
"""Packages that decide the variants' bytes, beside lepton-edge itself."""
_IMPORTING_PACKAGES: Mapping[str, Sequence[str]] = {
    "torch": ("torch", "onnxscript"),
    "keras": ("keras", "torch", "onnxscript"),
    "sklearn": ("scikit-learn", "skl2onnx"),
}
"""What more decides them, by the source's format."""


@dataclass(frozen=True)
class Card:
    """What a bundle says of its model beside the variants.

    Attributes:
        name, version: of the bundle.
        labels: by class index.
        steps: from a user's sample to the model's input.
        postprocess: from the model's output to an answer.
        files: what the steps name, by path in the bundle.
    """

    name: str
    version: str
    labels: Sequence[str] = ()
    steps: Sequence[Step] = ()
    postprocess: Sequence[Step] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def versions(imported: str = "") -> dict[str, str]:
    """The packages that decide the variants' bytes, with their versions here; of those that are installed.

    Args:
        imported: the format of the source, where it was imported here.
    """
    found = {"lepton-edge": VERSION}
    for name in (*_DECIDING_PACKAGES, *_IMPORTING_PACKAGES.get(imported, ())):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def pack(
    source: Source, judged: Sequence[Judged], inputs: Arrays, evaluation: Evaluation | None, *, card: Card
) -> Bundle:
    """Make the bundle of the kept variants.

    Args:
        source: the imported model.
        judged: every variant, kept or not; the float one is always kept.
        inputs: the golden inputs.
        evaluation: None where nothing was evaluated.
        card: name, version, labels and preprocessing.

    Raises:
        BundleError: a file or the manifest is too large.
    """
    kept = ranked(judged)
    floats = next(one for one in judged if one.artifact.is_source)
    twins = find_twins(kept)
    outputs = {one.name: one.proof.outputs for one in kept} | {twin.name: twin.proof.outputs for twin in twins}
    golden = Golden(inputs, floats.proof.outputs, outputs)
    variants = [to_variant(one, source.signature, evaluation, rank=rank) for rank, one in enumerate(kept)]
    variants += [twin.variant(source.signature, evaluation, rank=kept.index(twin.of)) for twin in twins]
    files: dict[str, bytes | Path] = {one.artifact.file: one.artifact.path for one in kept}
    files |= card.files
    files[GOLDEN] = golden.to_bytes()
    manifest = Manifest(
        name=card.name,
        version=card.version,
        signature=source.signature,
        files={},
        variants=variants,
        task="classification" if card.labels or (evaluation and evaluation.metric.needs_labels) else "",
        preprocess=list(card.steps),
        postprocess=list(card.postprocess),
        labels=list(card.labels),
        source={"format": source.format, "sha256": source.sha256, **versions(source.format)},
    )
    return Bundle.create(manifest, files)
