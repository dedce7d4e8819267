"""Intervals against published examples, and as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.measure.intervals import Pairs, count_pairs, paired_difference, wilson

counts = st.integers(0, 400)
pairs = st.builds(Pairs, counts, counts, counts, counts).filter(lambda one: one.total > 0)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_newcombe_1998a_table_1(hits: int, total: int, low: float, high: float) -> None:
    got = wilson(hits, total)
    assert (got.low, got.high) == pytest.approx((low, high), abs=5e-5)


def test_paired_difference_matches_fagerland_2014_airway_example() -> None:
    got = paired_difference(Pairs(both=1, first_only=1, second_only=7, neither=12))
    assert got.value == pytest.approx(-6 / 21)
    assert (got.low, got.high) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(total=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_holds_its_value_inside_0_and_1(total: int, share: float) -> None:
    got = wilson(round(share * total), total)
    assert 0 <= got.low <= got.value <= got.high <= 1


@given(pairs)
def test_paired_difference_holds_its_value(one: Pairs) -> None:
    got = paired_difference(one)
    assert -1 <= got.low <= got.value <= got.high <= 1


@given(pairs)
def test_swapping_the_models_mirrors_the_interval(one: Pairs) -> None:
    got = paired_difference(one)
    swapped = paired_difference(Pairs(one.both, one.second_only, one.first_only, one.neither))
    assert swapped == pytest.approx((-got.value, -got.high, -got.low))


@given(pairs)
def test_more_samples_of_the_same_kind_narrow_the_interval(one: Pairs) -> None:
    got, more = paired_difference(one), paired_difference(Pairs(*(16 * count for count in one)))
    assert more.high - more.low < got.high - got.low


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_pairs_are_counted_once_each(hits: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(column, dtype=np.bool_) for column in zip(*hits, strict=True))
    got = count_pairs(first, second)
    assert got.total == len(hits)
    assert got.first_only - got.second_only == int(first.sum()) - int(second.sum())


def test_95_percent_interval_covers_the_truth_about_that_often() -> None:
    rng = np.random.default_rng(5)
    shares = (0.86, 0.04, 0.02, 0.08)
    draws = rng.multinomial(150, shares, size=1500)
    truth = shares[1] - shares[2]
    intervals = [paired_difference(Pairs(*map(int, draw))) for draw in draws]
    assert np.mean([one.low <= truth <= one.high for one in intervals]) >= 0.94
