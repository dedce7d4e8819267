"""DATA in an .npz file: one array per model input by its name (or `x`), and optional labels `y`."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.data.dataset import ArrayDataset, Labels
from lepton_edge.bundle.binding import Array
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError


def open_npz(path: Path, signature: ModelSignature) -> ArrayDataset:
    """Read the file; its arrays stay in memory, in the types that they were stored in.

    Raises:
        DataError: unreadable, no .npz, pickled objects inside, or arrays that do not fit the model.
    """
    try:
        # Opened here: numpy leaves its own handle open when a zip turns out to be damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: one bare array; save it with numpy.savez({path.name!r}, x=..., y=...)")
            arrays = {name: archive[name] for name in archive.files}
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, zlib.error) as cause:
        raise DataError(f"{path}: no .npz file of plain arrays, or a truncated one ({cause})") from cause
    return from_arrays(arrays, signature, where=str(path))


def from_arrays(arrays: Mapping[str, Array], signature: ModelSignature, *, where: str) -> ArrayDataset:
    """Match arrays to inputs by name.

    Raises:
        DataError: a name is missing or means nothing, or an array does not fit.
    """
    names = [spec.name for spec in signature.inputs]
    given = dict(arrays)
    labels = given.pop("y", None) if "y" not in names else None
    if len(names) == 1 and "x" in given and names[0] not in given:
        given[names[0]] = given.pop("x")
    if sorted(given) != sorted(names):
        hint = " (or x)" if len(names) == 1 else ""
        raise DataError(f"{where}: holds the arrays {sorted(given)}, the model takes {names}{hint}; labels are named y")
    return ArrayDataset(given, as_labels(labels, where), signature=signature, where=where)


def as_labels(labels: npt.NDArray[Any] | None, where: str) -> Labels | None:
    """Class indices as int64, shape (N,).

    Raises:
        DataError: not whole numbers from 0 on, or more than one a sample.
    """
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{where}: y has shape {list(labels.shape)}; give one class index a sample, not one-hot rows")
    numeric = np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)
    if not numeric or not np.isfinite(labels).all() or (labels != np.floor(labels)).any():
        raise DataError(f"{where}: y must hold class indices (whole numbers), it holds {labels.dtype}")
    if (labels < 0).any():
        raise DataError(f"{where}: y holds {int(labels.min())}; class indices start at 0")
    return labels.astype(np.int64)
