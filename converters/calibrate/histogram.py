"""What calibration remembers of a tensor: how often its values fell into each bucket of a fixed, logarithmic grid.

A bucket is a float32's sign, exponent and six mantissa bits, rounded to nearest: 64 buckets an octave, each under
1.6 % wide, centred at a number that six mantissa bits can hold (0, 0.5, 1, 3, 6, ...). The grid is the same for all
tensors, so nothing is rescaled while values stream in, adding is counting, and merging is adding counts: the order
and partition of the samples do not change the result. The extremes are exact.

Storage holds only the octaves in which values fell: a tensor of normally distributed values takes about 15 kB.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError
from lepton_edge.typed import Record

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

WIDTH = 64
"""Buckets in a row: one sign and exponent."""
ROWS = 512
_KEYS = ROWS * WIDTH
_NEGATIVE = _KEYS // 2
_BLOCK = 1 << 20
"""Values tallied at a time: counting needs 8 bytes for each."""
_SMALL = 8192
"""Below so many values, tallying into a few rows is faster than sweeping the whole grid."""
_NARROW = 1 << 32
MIN_ATOM = 8
"""Values that an atom holds at least: a few samples of a few values make heavy buckets by chance."""
PEAK = 4
"""How many times more than its neighbours an atom holds."""


class Buckets(NamedTuple):
    """Occupied buckets, ascending; arrays of one length, float64 and int64.

    Attributes:
        value: the centre, within the extremes that were seen.
        low, high: the edges, within the extremes; equal where all values of the bucket are known to be one.
        counts: how many values fell there.
    """

    value: F64
    low: F64
    high: F64
    counts: I64


class HistogramRecord(Record, frozen=True, kw_only=True):
    """A histogram as it is stored; `rows` and `counts` are little-endian uint16 and uint64."""

    seen: int
    not_finite: int
    first_not_finite: int
    minimum: float
    maximum: float
    rows: bytes
    counts: bytes


class Histogram:
    """Counts of a tensor's values; grows with `add`.

    Attributes:
        seen: values given to `add`, finite or not.
        count: values in the buckets: fewer than `seen` where some were not finite, or only some were looked at.
        minimum, maximum: of all finite ones (infinite, and the wrong way round, while there are none).
        not_finite: how many were NaN or Inf; they are in no bucket.
        first_not_finite: the lowest sample number that held one, -1 where none did.
    """

    __slots__ = ("_counts", "_rows", "count", "first_not_finite", "maximum", "minimum", "not_finite", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.count = 0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.not_finite = 0
        self.first_not_finite = -1
        self._rows: I64 = np.zeros(0, np.int64)
        self._counts: npt.NDArray[np.uint32 | np.uint64] = np.zeros((0, WIDTH), np.uint32)

    @classmethod
    def empty(cls) -> "Histogram":
        """One that has seen nothing."""
        return cls()

    @property
    def zeros(self) -> int:
        """Values in the bucket of zero: -0 too, and what is below 2**-132."""
        rows = np.flatnonzero((self._rows == 0) | (self._rows == _NEGATIVE // WIDTH))
        return int(self._counts[rows, 0].sum(dtype=np.uint64))

    @property
    def nbytes(self) -> int:
        """Memory of the counts."""
        return int(self._counts.nbytes + self._rows.nbytes)

    def add(self, array: Array, *, most: int | None = None, sample: int = 0, turn: int = 0) -> None:
        """Count the values of an array.

        Args:
            array: of floats or integers, any shape; taken as float32.
            most: about how many values to look at. The extremes are taken of all; the buckets see every s-th value
                in memory order, s sharing no factor with the array's size, so that each index of each axis is looked
                at equally often.
            sample: the sample's number among all; it shifts which values are looked at, so that over s samples each
                position is, and names the sample in `first_not_finite`.
            turn: the number of the sample's step, where it has several; it shifts what is looked at, too.
        """
        flat = _as_float32(array)
        if not flat.size:
            return
        self.seen += flat.size
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            flat = self._set_aside(flat, sample)
            if not flat.size:
                return
            low, high = float(flat.min()), float(flat.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        looked = _thinned(flat, most, sample + turn)
        for start in range(0, looked.size, _BLOCK):
            self._include(*_tally(looked[start : start + _BLOCK]))

    def _set_aside(self, flat: F32, sample: int) -> F32:
        """Count what is not finite; return the rest."""
        finite = np.isfinite(flat)
        self.not_finite += flat.size - int(np.count_nonzero(finite))
        self.first_not_finite = sample if self.first_not_finite < 0 else min(self.first_not_finite, sample)
        return flat[finite]

    def _include(self, rows: I64, counts: I64) -> None:
        """Add counts of shape (rows, WIDTH)."""
        self.count += int(counts.sum())
        if self.count >= _NARROW and self._counts.dtype == np.uint32:
            self._counts = self._counts.astype(np.uint64)
        slots = self._rows.searchsorted(rows)
        if slots.size and (slots[-1] == len(self._rows) or (self._rows[slots] != rows).any()):
            self._widen(np.union1d(self._rows, rows))
            slots = self._rows.searchsorted(rows)
        self._counts[slots] += counts.astype(self._counts.dtype)

    def _widen(self, rows: I64) -> None:
        wider = np.zeros((len(rows), WIDTH), self._counts.dtype)
        wider[rows.searchsorted(self._rows)] = self._counts
        self._rows, self._counts = rows, wider

    def tally(self) -> tuple[I64, I64]:
        """The grid's occupied rows (sign and exponent), ascending, and their counts, shape (rows, WIDTH)."""
        return self._rows.copy(), self._counts.astype(np.int64)

    def merge(self, other: "Histogram") -> "Histogram":
        """What one histogram of both's values would be."""
        both = Histogram()
        for part in (self, other):
            both.seen += part.seen
            both.not_finite += part.not_finite
            both.minimum, both.maximum = min(both.minimum, part.minimum), max(both.maximum, part.maximum)
            both._include(*part.tally())
        firsts = [part.first_not_finite for part in (self, other) if part.first_not_finite >= 0]
        both.first_not_finite = min(firsts, default=-1)
        return both

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_record() == other.to_record()

    def values(self) -> Buckets:
        """The occupied buckets, ascending."""
        slots, columns = np.nonzero(self._counts)
        keys, counts = self._rows[slots] * WIDTH + columns, self._counts[slots, columns].astype(np.int64)
        below, above = keys >= _NEGATIVE, keys < _NEGATIVE
        zero = (keys == 0) | (keys == _NEGATIVE)
        down, up = np.flatnonzero(below & ~zero)[::-1], np.flatnonzero(above & ~zero)
        middle, edge_low, edge_high = _spans(keys[down] - _NEGATIVE)
        parts = [(-middle, -edge_high, -edge_low, counts[down])]
        if zero.any():
            point = np.zeros(1)
            parts.append((point, point, point, counts[zero].sum(keepdims=True)))
        parts.append((*_spans(keys[up]), counts[up]))
        value, low, high, ordered = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not value.size:
            return Buckets(value, low, high, ordered)
        low, high = (np.clip(edge, self.minimum, self.maximum) for edge in (low, high))
        return Buckets(np.clip(value, low, high), low, high, ordered)

    def quantile(self, q: float) -> float:
        """The value that a share `q` (0 to 1) of all values does not exceed, within a bucket linear; 0 for none."""
        buckets = self.values()
        if not buckets.counts.size:
            return 0.0
        if q <= 0 or q >= 1:
            return self.minimum if q <= 0 else self.maximum
        upto = np.cumsum(buckets.counts)
        wanted = q * float(upto[-1])
        at = min(int(np.searchsorted(upto, wanted)), len(upto) - 1)
        inside = (wanted - float(upto[at] - buckets.counts[at])) / float(buckets.counts[at])
        low, high = float(buckets.low[at]), float(buckets.high[at])
        return low + (high - low) * inside

    def std(self) -> float:
        """Standard deviation, from the buckets' centres: within 1 % of the true one; 0 for no values."""
        value, _, _, counts = self.values()
        if not counts.size:
            return 0.0
        # Scaled, because the square of a large float32 times a count can leave float64's comfortable range.
        scale = float(np.abs(value).max()) or 1.0
        mean = np.average(value / scale, weights=counts)
        return scale * math.sqrt(float(np.average((value / scale - mean) ** 2, weights=counts)))

    def is_atom(self, share: float) -> Bools:
        """Which buckets of `values` hold a single repeated value, as zeros after ReLU, a mask or a one-hot code do.

        An atom holds more than `share` of all values, at least MIN_ATOM, and PEAK times as many as either neighbour
        on the grid: a narrow but smooth distribution also has heavy buckets.
        """
        _, low, high, counts = self.values()
        if not counts.size:
            return np.zeros(0, np.bool_)
        joined = low[1:] <= high[:-1]
        before = np.concatenate([[0], np.where(joined, counts[:-1], 0)])
        after = np.concatenate([np.where(joined, counts[1:], 0), [0]])
        heavy = (counts > share * counts.sum()) & (counts >= MIN_ATOM)
        return np.asarray(heavy & (counts > PEAK * before) & (counts > PEAK * after))

    def atoms(self, share: float) -> list[float]:
        """The atoms' values, ascending: an extreme is exact, another one is its bucket's centre."""
        buckets = self.values()
        found = []
        for at in np.flatnonzero(self.is_atom(share)):
            first, last = at == 0, at == len(buckets.counts) - 1
            centre = float(buckets.value[at])
            found.append(self.maximum if last and centre > 0 else self.minimum if first and centre < 0 else centre)
        return found

    def to_record(self) -> HistogramRecord:
        """For storage; equal histograms give equal records."""
        return HistogramRecord(
            seen=self.seen,
            not_finite=self.not_finite,
            first_not_finite=self.first_not_finite,
            minimum=self.minimum,
            maximum=self.maximum,
            rows=self._rows.astype("<u2").tobytes(),
            counts=self._counts.astype("<u8").tobytes(),
        )

    @classmethod
    def from_record(cls, record: HistogramRecord, *, what: str) -> "Histogram":
        """From bytes that nobody trusts.

        Raises:
            DataError: naming `what`, when the parts contradict each other.
        """
        made = cls()
        made.seen, made.not_finite, made.first_not_finite = record.seen, record.not_finite, record.first_not_finite
        made.minimum, made.maximum = record.minimum, record.maximum
        if len(record.rows) % 2 or len(record.counts) != len(record.rows) // 2 * WIDTH * 8:
            raise DataError(f"{what}: rows and counts do not fit each other")
        rows = np.frombuffer(record.rows, "<u2").astype(np.int64)
        counts = np.frombuffer(record.counts, "<u8").reshape(-1, WIDTH)
        if (np.diff(rows) <= 0).any() or (rows >= ROWS).any() or (counts >= 1 << 48).any():
            raise DataError(f"{what}: rows out of order, or counts that no calibration reaches")
        made._include(rows, counts.astype(np.int64))
        made._check(what)
        return made

    def _check(self, what: str) -> None:
        held = self.count
        extremes = math.isfinite(self.minimum) and math.isfinite(self.maximum) and self.minimum <= self.maximum
        empty = math.isinf(self.minimum) and math.isinf(self.maximum) and self.minimum > self.maximum
        if not (extremes if held else empty):
            raise DataError(f"{what}: extremes {self.minimum} and {self.maximum} do not fit {held} values")
        if (
            self.not_finite < 0
            or held + self.not_finite > self.seen
            or (self.first_not_finite >= 0) != (self.not_finite > 0)
        ):
            raise DataError(f"{what}: {held} values and {self.not_finite} not finite, but {self.seen} seen")


def _as_float32(array: Array) -> F32:
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == np.float32:
        return np.asarray(flat, np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf, and is counted as such
        return flat.astype(np.float32)


def _thinned(flat: F32, most: int | None, turn: int) -> F32:
    """Every s-th value; s is the least that leaves at most `most` and shares no factor with the size."""
    if most is None or flat.size <= most:
        return flat
    stride = -(-flat.size // max(1, most))
    while math.gcd(stride, flat.size) != 1:
        stride += 1
    # Steps near the golden section of the stride spread the offsets of few samples out, too.
    step = max(1, round(0.618 * stride))
    while math.gcd(step, stride) != 1:
        step += 1
    return flat[(turn * step) % stride :: stride]


def _tally(values: F32) -> tuple[I64, I64]:
    """Occupied rows, ascending, and their counts, shape (rows, WIDTH)."""
    # The upper half of a little-endian float32 has seven mantissa bits; adding one and halving rounds to six.
    halves = np.ascontiguousarray(values).view(np.uint16)[1::2]
    if values.size < _SMALL:
        return _tally_few(halves.astype(np.int64))
    fine = np.bincount(halves, minlength=2 * _KEYS)
    grid = np.empty(_KEYS, np.int64)
    grid[0] = fine[0]
    np.add(fine[1:-1:2], fine[2::2], out=grid[1:])
    table = grid.reshape(ROWS, WIDTH)
    rows = np.flatnonzero(table.any(axis=1))
    return rows, table[rows]


def _tally_few(halves: I64) -> tuple[I64, I64]:
    keys = (halves + 1) >> 1
    row_of = keys >> 6
    present = np.bincount(row_of, minlength=ROWS) > 0
    rows = np.flatnonzero(present)
    slots = (np.cumsum(present) - 1)[row_of]
    counts = np.bincount(slots * WIDTH + (keys & 63), minlength=len(rows) * WIDTH)
    return rows, counts.reshape(-1, WIDTH)


def _spans(keys: I64) -> tuple[F64, F64, F64]:
    """Centre and edges of buckets of positive numbers."""
    bits = keys << 17
    half = 1 << 16
    return _number(bits), _number(bits - half), _number(bits + half)


def _number(bits: I64) -> F64:
    largest = int(np.array(np.finfo(np.float32).max, np.float32).view(np.uint32))
    return np.clip(bits, 0, largest).astype(np.uint32).view(np.float32).astype(np.float64)
