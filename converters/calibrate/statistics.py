"""Calibration's result: a histogram for each tensor, in memory and on disk."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from converters.calibrate.histogram import Histogram, HistogramRecord
from lepton_edge import durable
from lepton_edge.errors import DataError
from lepton_edge.typed import Record

MAX_FILE = 1 << 30
"""Most bytes of a file that are read: some 40,000 tensors' worth."""
VERSION = 1


@dataclass(frozen=True)
class Statistics(Mapping[str, Histogram]):
    """Histograms by canonical tensor name.

    Attributes:
        histograms: the mapping itself.
        samples: how many samples they were taken from.
        warnings: what a user should know of the data or of single tensors, one sentence each.
    """

    histograms: Mapping[str, Histogram]
    samples: int
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Histogram:
        return self.histograms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.histograms)

    def __len__(self) -> int:
        return len(self.histograms)

    def merge(self, other: "Statistics") -> "Statistics":
        """Those of both sets of samples. Raises DataError where they are not of the same tensors."""
        if set(self) != set(other):
            odd = min(set(self) ^ set(other))
            raise DataError(f"statistics of different models cannot be merged: only one of them knows {odd!r}")
        merged = {name: histogram.merge(other[name]) for name, histogram in self.items()}
        warnings = tuple(dict.fromkeys(self.warnings + other.warnings))
        return Statistics(merged, self.samples + other.samples, warnings)


class _File(Record, frozen=True, kw_only=True):
    v: int
    samples: int
    warnings: list[str]
    tensors: dict[str, HistogramRecord]


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write a file of MessagePack; equal statistics give equal bytes. Raises StorageError where the disk refuses."""
    file = _File(
        v=VERSION,
        samples=statistics.samples,
        warnings=list(statistics.warnings),
        tensors={name: histogram.to_record() for name, histogram in statistics.items()},
    )
    durable.write(path, msgspec.msgpack.encode(file))


def load_statistics(path: Path) -> Statistics:
    """Read what `save_statistics` wrote, by whomever.

    Raises:
        DataError: unreadable, too large, of another version, or not a consistent set of histograms.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise DataError(f"{path}: {size} bytes, at most {MAX_FILE} are accepted")
        file = msgspec.msgpack.decode(path.read_bytes(), type=_File)
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as cause:
        raise DataError(f"{path}: no statistics of lepton-edge ({cause}): calibrate again") from cause
    if file.v != VERSION or file.samples < 0:
        raise DataError(f"{path}: version {file.v}, this program knows {VERSION}: calibrate again")
    histograms = {
        name: Histogram.from_record(record, what=f"{path}: {name!r}") for name, record in file.tensors.items()
    }
    return Statistics(histograms, file.samples, tuple(file.warnings))
