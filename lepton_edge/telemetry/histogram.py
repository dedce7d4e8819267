"""OpenTelemetry's exponential histogram, sparse, for latencies from 1 us to 1000 s.

Bucket i at scale s covers (base^i, base^(i+1)] seconds with base = 2^(2^-s). At scale 6 that is 1.09 % wide, so the
value that a quantile reports is off by at most (base - 1) / (base + 1) = 0.54 %. Values outside the range are
counted, not stored. Merging with a coarser histogram lowers the scale, and `relative_error` says what that cost.

Source: OpenTelemetry metrics data model, section "ExponentialHistogram" (mapping, downscaling and merging).
"""

import math
from typing import Annotated

import msgspec

from lepton_edge.typed import Record

SCALE = 6
MIN_SCALE = -9
"""One lower, and the base 2^(2^10) is more than a double holds."""
LOWEST_S = 1e-6
HIGHEST_S = 1e3
MAX_BUCKETS = 1914

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


def bucket_index(value_s: float, scale: int = SCALE) -> int:
    """The bucket of `value_s` > 0: ceil(log2(value) * 2^scale) - 1."""
    return math.ceil(math.log2(value_s) * 2.0**scale) - 1


def bucket_middle(index: int, scale: int) -> float:
    """The value, in seconds, with the least worst-case relative error for bucket `index`."""
    lower = math.exp2(index / 2.0**scale)
    upper = math.exp2((index + 1) / 2.0**scale)
    return 2 * lower * upper / (lower + upper)


class Histogram(Record, frozen=True, kw_only=True):
    """A snapshot: buckets as sorted (index, count) pairs; underflow and overflow count what lies outside."""

    scale: Annotated[int, msgspec.Meta(ge=MIN_SCALE, le=20)] = SCALE
    underflow: Count = 0
    overflow: Count = 0
    sum_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    buckets: Annotated[list[tuple[int, Count]], msgspec.Meta(max_length=MAX_BUCKETS)] = []

    def __post_init__(self) -> None:
        """Refuse buckets that no latency can fall into: their values would overflow whoever merges them."""
        lowest, highest = bucket_index(LOWEST_S, self.scale), bucket_index(HIGHEST_S, self.scale)
        previous = lowest - 1
        for index, _ in self.buckets:
            if not previous < index <= highest:
                raise ValueError(f"bucket {index} is out of order or not within {lowest}..{highest}")
            previous = index

    @property
    def count(self) -> int:
        return self.underflow + self.overflow + sum(count for _, count in self.buckets)

    @property
    def relative_error(self) -> float:
        """The most by which a quantile is off, as a fraction."""
        base = math.exp2(2.0**-self.scale)
        return (base - 1) / (base + 1)

    def quantile(self, q: float) -> float:
        """The value, in seconds, at rank ceil(q * count); NaN when empty.

        Values below the range report its lowest value, values above it infinity: a lie would be worse.
        """
        if self.count == 0:
            return math.nan
        left = max(1, math.ceil(q * self.count)) - self.underflow
        if left <= 0:
            return LOWEST_S
        for index, count in self.buckets:
            left -= count
            if left <= 0:
                return bucket_middle(index, self.scale)
        return math.inf

    def downscale(self, scale: int) -> "Histogram":
        """The same counts in coarser buckets: index i becomes i >> (self.scale - scale)."""
        shift = self.scale - scale
        if shift <= 0:
            return self
        counts: dict[int, int] = {}
        for index, count in self.buckets:
            counts[index >> shift] = counts.get(index >> shift, 0) + count
        return msgspec.structs.replace(self, scale=scale, buckets=sorted(counts.items()))

    def merge(self, other: "Histogram") -> "Histogram":
        """Both together, at the coarser of the two scales. Associative and commutative in its counts."""
        scale = min(self.scale, other.scale)
        counts = dict(self.downscale(scale).buckets)
        for index, count in other.downscale(scale).buckets:
            counts[index] = counts.get(index, 0) + count
        return Histogram(
            scale=scale,
            underflow=self.underflow + other.underflow,
            overflow=self.overflow + other.overflow,
            sum_s=self.sum_s + other.sum_s,
            buckets=sorted(counts.items()),
        )


class Recorder:
    """Counts latencies as they come; not safe across threads without the caller's lock."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._underflow = self._overflow = 0
        self._sum_s = 0.0

    def record(self, value_s: float) -> None:
        """Count one latency in seconds; what is not a positive finite number counts as underflow or overflow."""
        if not value_s > LOWEST_S:  # also NaN
            self._underflow += 1
        elif value_s > HIGHEST_S:
            self._overflow += 1
        else:
            index = bucket_index(value_s)
            self._counts[index] = self._counts.get(index, 0) + 1
            self._sum_s += value_s

    def snapshot(self) -> Histogram:
        return Histogram(
            underflow=self._underflow,
            overflow=self._overflow,
            sum_s=self._sum_s,
            buckets=sorted(self._counts.items()),
        )
