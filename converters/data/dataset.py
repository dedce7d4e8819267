"""Samples by index. Nothing is decoded before it is asked for, so iterating needs the memory of one sample."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle.binding import Array, Arrays, check_inputs
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError

Labels = npt.NDArray[np.int64]
_SCAN_BYTES = 16 * 1024 * 1024


class Dataset(Protocol):
    """A finite list of samples."""

    @property
    def labels(self) -> Labels | None:
        """Class indices, shape (N,); None where the data carry none."""
        ...

    def __len__(self) -> int: ...

    def inputs(self, index: int) -> Arrays:
        """One sample by input name, each array with a batch axis of 1, in the model's types."""
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

    def __len__(self) -> int:
        return len(self._indices)

    def inputs(self, index: int) -> Arrays:
        return self._whole.inputs(self._indices[index])

    def describe(self, index: int) -> str:
        return self._whole.describe(self._indices[index])


class ArrayDataset:
    """Samples that lie in memory, one array per input, the first axis the samples."""

    def __init__(
        self, arrays: Mapping[str, Array], labels: Labels | None, *, signature: ModelSignature, where: str
    ) -> None:
        """Check the arrays against the signature.

        Raises:
            DataError: names, shapes or types that do not fit, unequal counts, no samples, NaN or Inf.
        """
        self._signature = signature
        self._where = where
        self._arrays = {spec.name: arrays[spec.name] for spec in signature.inputs}
        self.labels = labels
        counts = {name: len(array) if array.ndim else 0 for name, array in self._arrays.items()}
        if labels is not None:
            counts["y"] = len(labels)
        self._count = next(iter(counts.values()))
        if len(set(counts.values())) != 1:
            raise DataError(f"{where}: the arrays hold different numbers of samples: {counts}")
        if not self._count:
            raise DataError(f"{where}: no samples")
        self.inputs(0)
        for name, array in self._arrays.items():
            _check_finite(array, f"{where}: {name}")

    def __len__(self) -> int:
        return self._count

    def inputs(self, index: int) -> Arrays:
        sample = {name: array[index : index + 1] for name, array in self._arrays.items()}
        return fitting(sample, self._signature, where=self._where)

    def describe(self, index: int) -> str:
        return f"sample {index}"


def fitting(sample: Mapping[str, Array], signature: ModelSignature, *, where: str) -> Arrays:
    """One sample in the signature's types. Raises DataError naming `where` when it does not fit."""
    try:
        return check_inputs(signature, sample)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _check_finite(array: Array, where: str) -> None:
    """Raises DataError naming the first sample with NaN or Inf. Scans in blocks: isfinite makes a copy."""
    if not np.issubdtype(array.dtype, np.inexact):
        return
    block = max(1, _SCAN_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), block):
        part = array[start : start + block]
        finite = np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if not finite.all():
            raise DataError(f"{where}: sample {start + int(np.argmin(finite))} holds NaN or Inf; remove or repair it")
