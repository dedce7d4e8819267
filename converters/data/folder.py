"""DATA in a folder of images: LABEL/... subfolders, or files whose name starts with the class index."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.data.dataset import Labels, fitting
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError, NotYetSupportedError
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.spec import Step

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_LATER = {".wav": "sound", ".flac": "sound", ".mp3": "sound", ".txt": "text"}
_INDEX = re.compile(r"(\d+)(?![^_.\- ])")


class FolderDataset:
    """Images that are decoded when they are asked for."""

    def __init__(
        self, files: Sequence[Path], labels: Labels | None, *, signature: ModelSignature, steps: Sequence[Step]
    ) -> None:
        self._files = list(files)
        self._signature = signature
        self._pipeline = Pipeline(steps, inputs=[spec.name for spec in signature.inputs])
        self.labels = labels

    def __len__(self) -> int:
        return len(self._files)

    def inputs(self, index: int) -> Arrays:
        path = self._files[index]
        sample = {name: array[np.newaxis] for name, array in self._pipeline.load(path).items()}
        return fitting(sample, self._signature, where=str(path))

    def describe(self, index: int) -> str:
        return self._files[index].name


def open_folder(
    folder: Path, signature: ModelSignature, *, steps: Sequence[Step], class_names: Sequence[str]
) -> FolderDataset:
    """List the folder's images and their classes; decode the first, so that a misfit shows at once.

    Args:
        folder: read only; links are followed.
        signature: of a model with one input.
        steps: from an image to the model's input.
        class_names: by class index; what the names of subfolders mean.

    Raises:
        DataError: no images, classes that do not fit, no preprocessing, or images that do not fit the model.
        NotYetSupportedError: a folder of sound or text.
    """
    if len(signature.inputs) != 1:
        names = [spec.name for spec in signature.inputs]
        raise DataError(f"{folder}: the model takes {names}; a folder can only feed one input: give an .npz")
    if not steps:
        raise DataError(f"{folder}: how an image becomes the model's input is not known: give --preprocess P.toml")
    files = _images(folder)
    labels = _by_subfolder(folder, files, signature, class_names)
    if labels is None:
        labels = _by_name(folder, files)
    dataset = FolderDataset(files, labels, signature=signature, steps=steps)
    dataset.inputs(0)
    return dataset


def _images(folder: Path) -> list[Path]:
    """Sorted by path, so that a seed means the same on every machine."""
    everything = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    found = [path for path in everything if path.suffix.lower() in _IMAGES]
    if found:
        return found
    for path in everything:
        kind = _LATER.get(path.suffix.lower())
        if kind:
            raise NotYetSupportedError(f"not yet: {folder}: {kind} comes later; give an .npz of the model's inputs")
    raise DataError(f"{folder}: no images in it")


def _by_subfolder(
    folder: Path, files: Sequence[Path], signature: ModelSignature, class_names: Sequence[str]
) -> Labels | None:
    """Labels from the first folder below `folder`; None where the images lie in `folder` itself."""
    tops = [path.relative_to(folder).parts for path in files]
    nested = [len(parts) > 1 for parts in tops]
    if not any(nested):
        return None
    if not all(nested):
        stray = files[nested.index(False)]
        raise DataError(f"{folder}: {stray.name} lies beside LABEL/ folders: move it into one of them")
    names = sorted({parts[0] for parts in tops})
    index = _class_index(folder, names, signature, class_names)
    return np.array([index[parts[0]] for parts in tops], dtype=np.int64)


def _class_index(
    folder: Path, names: Sequence[str], signature: ModelSignature, class_names: Sequence[str]
) -> dict[str, int]:
    """What the subfolders' names mean: a label, a class index, or, where they are complete, their order."""
    if class_names:
        index = {name: number for number, name in enumerate(class_names)}
        unknown = [name for name in names if name not in index and not name.isdecimal()]
        if unknown:
            raise DataError(f"{folder}: folder {unknown[0]!r} is none of the {len(class_names)} labels")
        return {name: index[name] if name in index else int(name) for name in names}
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    last = signature.outputs[0].shape[-1] if signature.outputs[0].shape else None
    if len(names) == last:
        return {name: number for number, name in enumerate(names)}
    raise DataError(
        f"{folder}: {len(names)} folders, but the model has {last} classes, so their order says nothing: "
        "name the folders by class index, or give --labels with one name a line"
    )


def _by_name(folder: Path, files: Sequence[Path]) -> Labels | None:
    """Labels from the digits that each name starts with; None where no name has any."""
    matches = [_INDEX.match(path.name) for path in files]
    missing = [path.name for path, match in zip(files, matches, strict=True) if match is None]
    if len(missing) == len(files):
        return None
    if missing:
        raise DataError(f"{folder}: {missing[0]} does not start with its class index, as others do (0123_name.jpg)")
    return np.array([int(match[1]) for match in matches if match], dtype=np.int64)
