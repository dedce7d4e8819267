"""Samples by index. Nothing is decoded before it is asked for, so iterating needs the memory of one sample."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from converters.data.stored import Rows
from converters.data.targets import Labels, Target, TargetKind, Targets
from lepton_edge.bundle.binding import Array, Arrays, check_inputs
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError

__all__ = ["ArrayDataset", "Dataset", "Labels", "Subset", "as_array", "fitting"]

_SCAN_BYTES = 4 * 1024 * 1024


class Dataset(Protocol):
    """A finite list of samples."""

    @property
    def labels(self) -> Labels | None:
        """Class indices, shape (N,); None where the data carry none."""
        ...

    @property
    def targets(self) -> TargetKind:
        """What `target` gives."""
        ...

    def __len__(self) -> int: ...

    def inputs(self, index: int) -> Arrays:
        """One sample by input name, each array with a batch axis of 1, in the model's types."""
        ...

    def target(self, index: int) -> Target:
        """What the model should give for it."""
        ...

    def describe(self, index: int) -> str:
        """How reports and messages name a sample."""
        ...


class Subset:
    """Some samples of another dataset, in a given order."""

    def __init__(self, whole: Dataset, indices: Sequence[int]) -> None:
        self._whole = whole
        self._indices = list(indices)

    @property
    def labels(self) -> Labels | None:
        labels = self._whole.labels
        return None if labels is None else labels[self._indices]

    @property
    def targets(self) -> TargetKind:
        return self._whole.targets

    def __len__(self) -> int:
        return len(self._indices)

    def inputs(self, index: int) -> Arrays:
        return self._whole.inputs(self._indices[index])

    def target(self, index: int) -> Target:
        return self._whole.target(self._indices[index])

    def describe(self, index: int) -> str:
        return self._whole.describe(self._indices[index])


class ArrayDataset:
    """Samples that lie in arrays, one per input, the first axis the samples."""

    def __init__(self, arrays: Mapping[str, Rows], targets: Targets, *, signature: ModelSignature, where: str) -> None:
        """Check the arrays against the signature.

        Raises:
            DataError: names, shapes or types that do not fit, unequal counts, no samples, NaN or Inf.
        """
        self._signature = signature
        self._where = where
        self._arrays = {spec.name: arrays[spec.name] for spec in signature.inputs}
        self._targets = targets
        counts = {name: len(rows) if rows.ndim else 0 for name, rows in self._arrays.items()} | targets.counts()
        self._count = next(iter(counts.values()))
        if len(set(counts.values())) != 1:
            raise DataError(f"{where}: the arrays hold different numbers of samples: {counts}")
        if not self._count:
            raise DataError(f"{where}: no samples")
        self.inputs(0)
        for name, rows in (self._arrays | dict(targets.values)).items():
            _check_finite(rows, f"{where}: {name}")

    @property
    def labels(self) -> Labels | None:
        return self._targets.classes

    @property
    def targets(self) -> TargetKind:
        return self._targets.kind

    def __len__(self) -> int:
        return self._count

    def inputs(self, index: int) -> Arrays:
        sample = {name: rows[index : index + 1] for name, rows in self._arrays.items()}
        return fitting(sample, self._signature, where=self._where)

    def target(self, index: int) -> Target:
        return self._targets.at(index)

    def describe(self, index: int) -> str:
        return f"sample {index}"


def fitting(sample: Mapping[str, Array], signature: ModelSignature, *, where: str) -> Arrays:
    """One sample in the signature's types. Raises DataError naming `where` when it does not fit."""
    try:
        return check_inputs(signature, sample)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def as_array(given: object, where: str) -> Array:
    """What a user gave as an array; raises DataError where it is none, ragged, or of Python objects."""
    try:
        array = np.asarray(given)
    except Exception as cause:
        raise DataError(f"{where}: is no array ({cause})") from cause
    if array.dtype.hasobject:
        raise DataError(f"{where}: is a {type(given).__name__}, which is no array of numbers")
    return array


def _check_finite(rows: Rows, where: str) -> None:
    """Raises DataError naming the first sample with NaN or Inf. Scans in blocks: isfinite makes a copy."""
    if not np.issubdtype(rows.dtype, np.inexact):
        return
    block = max(1, _SCAN_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        finite = np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if not finite.all():
            raise DataError(f"{where}: sample {start + int(np.argmin(finite))} holds NaN or Inf; remove or repair it")
