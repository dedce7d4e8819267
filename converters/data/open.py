"""From what the user gave as DATA to a dataset, and from --labels to class names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.data.dataset import Dataset
from converters.data.folder import open_folder
from converters.data.npz import from_arrays, open_npz
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError, NotYetSupportedError
from lepton_edge.preprocess.spec import Step

_LATER = {".csv", ".jsonl"}


def open_data(
    data: object, signature: ModelSignature, *, steps: Sequence[Step] = (), class_names: Sequence[str] = ()
) -> Dataset:
    """Open DATA.

    Args:
        data: a path to an .npz or a folder; in Python also an array, a pair (x, y), or a mapping of arrays by
            input name (with labels under "y").
        signature: what the samples must fit.
        steps: how a file becomes the model's input; an .npz is taken as it is.
        class_names: by class index.

    Raises:
        DataError: it does not exist, is of an unknown kind, or does not fit the model.
        NotYetSupportedError: a form of DATA that comes later.
    """
    if isinstance(data, str | Path):
        return _open_path(Path(data), signature, steps, class_names)
    if isinstance(data, np.ndarray):
        return from_arrays({"x": data}, signature, where="data")
    if isinstance(data, tuple | list) and len(data) == 2:
        return from_arrays({"x": np.asarray(data[0]), "y": np.asarray(data[1])}, signature, where="data")
    if isinstance(data, dict):
        return from_arrays({str(name): np.asarray(array) for name, array in data.items()}, signature, where="data")
    raise DataError(f"data is a {type(data).__name__}: give a path, an array, (x, y) or a mapping of arrays")


def _open_path(path: Path, signature: ModelSignature, steps: Sequence[Step], class_names: Sequence[str]) -> Dataset:
    if path.is_dir():
        return open_folder(path, signature, steps=steps, class_names=class_names)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return open_npz(path, signature)
    if suffix in _LATER or (not path.exists() and ":" in path.name):
        raise NotYetSupportedError(f"not yet: {path}: today DATA is an .npz file or a folder of images")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    raise DataError(f"{path}: unknown kind of data {suffix!r}: give an .npz file or a folder of images")


def read_class_names(path: Path) -> list[str]:
    """Read a labels file: one class name a line, by class index; blank lines at the end do not count.

    Raises:
        DataError: unreadable, empty, or a blank line between names.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines()]
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except UnicodeDecodeError as cause:
        raise DataError(f"{path}: not UTF-8 text") from cause
    if not names or not all(names):
        raise DataError(f"{path}: expected one class name a line, none of them blank")
    return names
