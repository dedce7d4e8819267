"""The latency histogram keeps its error bound and merges without losing a count."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_edge.telemetry.histogram import HIGHEST_S, LOWEST_S, MAX_BUCKETS, SCALE, Histogram, Recorder, bucket_index
from lepton_edge.typed import encode
from tests.kernel.strategies import histograms, latencies

in_range = st.lists(st.floats(LOWEST_S * 1.001, HIGHEST_S), min_size=1, max_size=200)
ranks = st.floats(0.01, 1.0)


def _of(values: list[float]) -> Histogram:
    recorder = Recorder()
    for value in values:
        recorder.record(value)
    return recorder.snapshot()


@given(in_range, ranks)
def test_quantiles_are_within_the_bound(values: list[float], q: float) -> None:
    histogram = _of(values)
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert histogram.relative_error < 0.006
    assert histogram.quantile(q) == pytest.approx(exact, rel=histogram.relative_error * 1.000_001)


@given(in_range, in_range, ranks)
def test_the_merge_of_two_is_the_histogram_of_both(left: list[float], right: list[float], q: float) -> None:
    merged, both = _of(left).merge(_of(right)), _of(left + right)
    assert merged.buckets == both.buckets
    assert merged.quantile(q) == both.quantile(q)
    assert merged.sum_s == pytest.approx(both.sum_s)


@given(histograms, histograms, histograms)
def test_merging_is_associative_commutative_and_loses_nothing(a: Histogram, b: Histogram, c: Histogram) -> None:
    one, other = a.merge(b).merge(c), c.merge(b.merge(a))
    assert (one.buckets, one.underflow, one.overflow) == (other.buckets, other.underflow, other.overflow)
    assert one.count == a.count + b.count + c.count


@given(in_range, in_range, st.integers(-4, SCALE), ranks)
def test_merging_with_a_coarser_one_states_its_error(
    left: list[float], right: list[float], scale: int, q: float
) -> None:
    merged = _of(left).merge(_of(right).downscale(scale))
    exact = sorted(left + right)[max(1, math.ceil(q * len(left + right))) - 1]
    assert merged.scale == scale
    assert merged.quantile(q) == pytest.approx(exact, rel=merged.relative_error * 1.000_001)


def test_the_whole_range_needs_no_more_buckets_than_the_limit() -> None:
    assert bucket_index(HIGHEST_S) - bucket_index(LOWEST_S * (1 + 1e-9)) + 1 <= MAX_BUCKETS
    steps = [LOWEST_S * 2 ** (i / 128) for i in range(128 * 30)]
    histogram = _of([step for step in steps if LOWEST_S < step <= HIGHEST_S])
    assert len(histogram.buckets) <= MAX_BUCKETS
    assert len(encode(histogram)) < 32_000


@given(latencies)
def test_what_is_out_of_range_is_counted(values: list[float]) -> None:
    histogram = _of([*values, 0.0, -1.0, math.nan, 1e9])
    assert histogram.count == len(values) + 4
    assert histogram.underflow >= 3
    assert histogram.overflow >= 1
    assert histogram.quantile(1.0) == math.inf


def test_an_empty_histogram_has_no_quantile() -> None:
    assert math.isnan(Histogram().quantile(0.5))
