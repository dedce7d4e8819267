"""From what the user gave as DATA to a dataset, and from --labels to class names."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType

import numpy as np

from converters.data.call import call_samples, is_call, open_call
from converters.data.dataset import Dataset, as_array
from converters.data.folder import open_folder
from converters.data.npz import from_arrays, open_npz
from converters.data.table import open_table
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError
from lepton_edge.preprocess.spec import Step

_FORMS = "an .npz, a folder of images, .wav or .txt files, a .csv or .jsonl of text,label, or package.module:function"
MAX_LABELS_FILE = 16 * 1024 * 1024


def open_data(
    data: object,
    signature: ModelSignature,
    *,
    steps: Sequence[Step] = (),
    files: Mapping[str, bytes] | None = None,
    class_names: Sequence[str] = (),
) -> Dataset:
    """Open DATA.

    Args:
        data: a path to an .npz, a folder, a .csv or .jsonl, or package.module:function; in Python also an array, a
            pair (x, y), a mapping of arrays by input name (with labels under "y"), or a function that returns an
            iterable of (inputs, label).
        signature: what the samples must fit.
        steps: how a file becomes the model's input; an .npz and what functions give are taken as they are.
        files: what the steps name, by that name.
        class_names: by class index.

    Raises:
        DataError: it does not exist, is of an unknown kind, or does not fit the model.
        DiskFullError: no space for samples that must be unpacked first.
    """
    if isinstance(data, str | Path):
        return _open_path(data, signature, steps, files or {}, class_names)
    if isinstance(data, np.ndarray):
        return from_arrays({"x": data}, signature, where="data")
    if isinstance(data, tuple | list) and len(data) == 2:
        data = {"x": data[0], "y": data[1]}
    if isinstance(data, Mapping):
        arrays = {str(name): as_array(given, f"data: {name}") for name, given in data.items()}
        return from_arrays(arrays, signature, where="data", class_names=class_names)
    if isinstance(data, FunctionType | MethodType | partial):
        return call_samples(data, signature, where="data", class_names=class_names)
    raise DataError(
        f"data is a {type(data).__name__}: give a path, an array, (x, y), a mapping of arrays or a function"
    )


def _open_path(
    data: str | Path,
    signature: ModelSignature,
    steps: Sequence[Step],
    files: Mapping[str, bytes],
    class_names: Sequence[str],
) -> Dataset:
    path = Path(data)
    if path.is_dir():
        return open_folder(path, signature, steps=steps, files=files, class_names=class_names)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return open_npz(path, signature, class_names=class_names)
    if suffix in {".csv", ".jsonl"}:
        return open_table(path, signature, steps=steps, files=files, class_names=class_names)
    if not path.exists() and is_call(str(data)):
        return open_call(str(data), signature, class_names=class_names)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    raise DataError(f"{path}: unknown kind of data {suffix!r}: give {_FORMS}")


def read_class_names(path: Path) -> list[str]:
    """Read a labels file: one class name a line, by class index; blank lines at the end do not count.

    Raises:
        DataError: unreadable, empty, or a blank line between names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LABELS_FILE + 1)
        if len(data) > MAX_LABELS_FILE:
            raise DataError(f"{path}: more than {MAX_LABELS_FILE} bytes; no list of class names is that long")
        names = [line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines()]
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except UnicodeDecodeError as cause:
        raise DataError(f"{path}: not UTF-8 text") from cause
    if not names or not all(names):
        raise DataError(f"{path}: expected one class name a line, none of them blank")
    return names
