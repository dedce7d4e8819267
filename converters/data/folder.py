"""DATA in a folder of images, sounds or texts: LABEL/... subfolders, or names that start with the class index."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from converters.data.classes import class_index
from converters.data.dataset import fitting
from converters.data.targets import Labels, Target, TargetKind, class_targets
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.spec import Step

KINDS: Mapping[str, frozenset[str]] = {
    "image": frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}),
    "audio": frozenset({".wav"}),
    "text": frozenset({".txt"}),
}
_NOT_READ = {".flac", ".mp3", ".ogg", ".m4a", ".aac", ".wma", ".opus"}
_INDEX = re.compile(r"(\d{1,9})(?![^_.\- ])", re.ASCII)


class FolderDataset:
    """Files that are decoded when they are asked for."""

    def __init__(
        self, files: Sequence[Path], labels: Labels | None, *, signature: ModelSignature, pipeline: Pipeline
    ) -> None:
        self._files = list(files)
        self._signature = signature
        self._pipeline = pipeline
        self._targets = class_targets(labels)

    @property
    def labels(self) -> Labels | None:
        return self._targets.classes

    @property
    def targets(self) -> TargetKind:
        return self._targets.kind

    def __len__(self) -> int:
        return len(self._files)

    def inputs(self, index: int) -> Arrays:
        path = self._files[index]
        sample = {name: array[np.newaxis] for name, array in self._pipeline.load(path).items()}
        return fitting(sample, self._signature, where=str(path))

    def target(self, index: int) -> Target:
        return self._targets.at(index)

    def describe(self, index: int) -> str:
        return self._files[index].name


def open_folder(
    folder: Path,
    signature: ModelSignature,
    *,
    steps: Sequence[Step],
    files: Mapping[str, bytes],
    class_names: Sequence[str],
) -> FolderDataset:
    """List the folder's files and their classes; decode the first, so that a misfit shows at once.

    Args:
        folder: read only; links are followed.
        signature: of the model.
        steps: from a file to the model's input; they also say which kind of file counts, where several lie there.
        files: what the steps name.
        class_names: by class index; what the names of subfolders mean.

    Raises:
        DataError: no files of that kind, classes that do not fit, no preprocessing, or files that do not fit the model.
    """
    if not steps:
        raise DataError(f"{folder}: how a file becomes the model's input is not known: give --preprocess P.toml")
    names = [spec.name for spec in signature.inputs]
    pipeline = Pipeline(steps, files=files, inputs=names)
    if pipeline.family != "text" and len(names) != 1:
        raise DataError(f"{folder}: the model takes {names}; such a folder can only feed one input: give an .npz")
    found = _samples(folder, pipeline.family)
    labels = _by_subfolder(folder, found, signature, class_names)
    if labels is None:
        labels = _by_name(folder, found)
    dataset = FolderDataset(found, labels, signature=signature, pipeline=pipeline)
    dataset.inputs(0)
    return dataset


def _samples(folder: Path, family: str | None) -> list[Path]:
    """Sorted by path, so that a seed means the same on every machine."""
    everything = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    kinds = [family] if family else list(KINDS)
    for kind in kinds:
        found = [path for path in everything if path.suffix.lower() in KINDS[kind]]
        if found:
            return found
    if any(path.suffix.lower() in _NOT_READ for path in everything):
        raise DataError(f"{folder}: of sounds only .wav is read: convert them first (ffmpeg -i a.mp3 a.wav)")
    wanted = " or ".join({"image": "images", "audio": ".wav files", "text": ".txt files"}[kind] for kind in kinds)
    raise DataError(f"{folder}: no {wanted} in it")


def _by_subfolder(
    folder: Path, files: Sequence[Path], signature: ModelSignature, class_names: Sequence[str]
) -> Labels | None:
    """Labels from the first folder below `folder`; None where the files lie in `folder` itself."""
    tops = [path.relative_to(folder).parts for path in files]
    nested = [len(parts) > 1 for parts in tops]
    if not any(nested):
        return None
    if not all(nested):
        stray = files[nested.index(False)]
        raise DataError(f"{folder}: {stray.name} lies beside LABEL/ folders: move it into one of them")
    names = {parts[0] for parts in tops}
    index = class_index(names, signature, class_names, where=str(folder), what="folder")
    return np.array([index[parts[0]] for parts in tops], dtype=np.int64)


def _by_name(folder: Path, files: Sequence[Path]) -> Labels | None:
    """Labels from the digits that each name starts with; None where no name has any."""
    matches = [_INDEX.match(path.name) for path in files]
    missing = [path.name for path, match in zip(files, matches, strict=True) if match is None]
    if len(missing) == len(files):
        return None
    if missing:
        raise DataError(f"{folder}: {missing[0]} does not start with its class index, as others do (0123_name.jpg)")
    return np.array([int(match[1]) for match in matches if match], dtype=np.int64)
