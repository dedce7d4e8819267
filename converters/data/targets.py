"""What the model should give for each sample: class indices, numbers, or texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from converters.data.stored import Rows
from lepton_edge.bundle.binding import Arrays
from lepton_edge.errors import DataError

Labels = npt.NDArray[np.int64]
TargetKind = Literal["none", "classes", "values", "texts"]
Target = int | str | Arrays | None
"""Of one sample: a class index, a text, numbers by output name, or nothing."""

MAX_SAMPLES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Targets:
    """Targets of all samples, of one kind.

    Attributes:
        classes: class indices, shape (N,).
        values: by output name, shape (N, ...).
        texts: N of them.
    """

    classes: Labels | None = None
    values: Mapping[str, Rows] = field(default_factory=dict)
    texts: Sequence[str] | None = None

    @property
    def kind(self) -> TargetKind:
        if self.classes is not None:
            return "classes"
        if self.texts is not None:
            return "texts"
        return "values" if self.values else "none"

    def counts(self) -> dict[str, int]:
        """How many there are, by the name that the user gave them."""
        found = {name: len(rows) for name, rows in self.values.items()}
        if self.classes is not None:
            found["y"] = len(self.classes)
        if self.texts is not None:
            found["y"] = len(self.texts)
        return found

    def at(self, index: int) -> Target:
        """One sample's; numbers have a batch axis of 1."""
        if self.classes is not None:
            return int(self.classes[index])
        if self.texts is not None:
            return self.texts[index]
        return {name: rows[index : index + 1] for name, rows in self.values.items()} or None


NO_TARGETS = Targets()


def class_targets(labels: Labels | None) -> Targets:
    """Targets that are class indices, or none."""
    return NO_TARGETS if labels is None else Targets(classes=labels)


def as_targets(y: Rows, *, output: str, class_names: Sequence[str], where: str) -> Targets:
    """Tell what `y` holds.

    Whole numbers from 0 on, one a sample, are class indices; texts are class names where such are known, else texts;
    all other numbers are values of the output.

    Raises:
        DataError: one-hot rows, NaN or Inf, a name that is no class, or a type that is none of these.
    """
    if not y.ndim or len(y) > MAX_SAMPLES:
        raise DataError(f"{where}: y has shape {list(y.shape)}; give one label a sample, at most {MAX_SAMPLES}")
    column = y[:] if y.ndim < 2 or (y.ndim == 2 and y.shape[1] == 1) else None
    if column is None:
        return _value_rows(y, output, where)
    labels = column.reshape(-1)
    if labels.dtype.kind in "US":
        return _texts([str(text) for text in labels.astype(str)], class_names, where)
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{where}: y must hold class indices, numbers or texts, it holds {labels.dtype}")
    if not np.isfinite(labels.astype(np.float64)).all():
        raise DataError(f"{where}: y holds NaN or Inf")
    whole = labels.dtype.kind != "f" or bool((labels == np.floor(labels)).all())
    if whole and (not labels.size or 0 <= float(labels.min()) <= float(labels.max()) < 2**31):
        return Targets(classes=labels.astype(np.int64))
    return Targets(values={output: column})


def _value_rows(y: Rows, output: str, where: str) -> Targets:
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: y must hold class indices, numbers or texts, it holds {y.dtype}")
    if y.ndim == 2 and _is_one_hot(y):
        raise DataError(f"{where}: y has shape {list(y.shape)}; give one class index a sample, not one-hot rows")
    return Targets(values={output: y})


def _is_one_hot(y: Rows) -> bool:
    for start in range(0, len(y), 4096):
        rows = y[start : start + 4096]
        if not (((rows == 0) | (rows == 1)).all() and (rows.astype(np.int64).sum(axis=1) == 1).all()):
            return False
    return len(y) > 0


def _texts(texts: list[str], class_names: Sequence[str], where: str) -> Targets:
    if not class_names:
        return Targets(texts=texts)
    index = {name: number for number, name in enumerate(class_names)}
    unknown = next((text for text in texts if text not in index), None)
    if unknown is not None:
        raise DataError(f"{where}: y holds {unknown!r}, which is none of the {len(class_names)} labels")
    return Targets(classes=np.array([index[text] for text in texts], dtype=np.int64))
