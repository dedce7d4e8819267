"""Ranges and what int8 can carry, against the values themselves and on distributions whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.calibrate import Histogram, Method, Range, choose_range, expected_error, resolution

COUNT = 200_000
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")


def of(values: np.ndarray) -> Histogram:
    made = Histogram.empty()
    made.add(np.asarray(values, np.float32))
    return made


def gauss(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(COUNT)


def uniform(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(1).uniform(low, high, COUNT)


def softmax(spread: float) -> np.ndarray:
    scores = np.exp(spread * gauss().reshape(-1, 50))
    return scores / scores.sum(axis=1, keepdims=True)


def with_rare(values: np.ndarray, share: float, rare: np.ndarray | float) -> np.ndarray:
    return np.where(np.random.default_rng(2).random(values.shape) < share, rare, values)


def quantisation_error(values: np.ndarray, chosen: Range) -> float:
    values = np.asarray(values, np.float32).astype(np.float64)
    step = chosen.step()
    zero = round(-chosen.low / step)
    steps = np.clip(np.round(values / step) + zero, 0, 255)
    return float(np.mean(((steps - zero) * step - values) ** 2))


SMOOTH = {
    "gauss": gauss(),
    "shifted": gauss() + 2,
    "relu": np.maximum(gauss(), 0),
    "sparse relu": np.maximum(gauss() - 2, 0),
    "relu6": np.clip(4 * gauss() + 2, 0, 6),
    "uniform": uniform(-1, 3),
    "laplace": np.random.default_rng(0).laplace(size=COUNT),
    "heavy tails": np.random.default_rng(0).standard_t(3, COUNT),
    "softmax": softmax(1.2),
    "gelu": gauss() / (1 + np.exp(-1.702 * gauss())),
}
COARSE = {
    "outliers": with_rare(gauss(), 1e-3, 1000 * gauss(1)),
    "log-uniform": 10 ** uniform(-6, 6),
    "mask": with_rare(3 * gauss(), 0.3, -1e9),
}


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_minmax_is_that_of_the_values_and_zero(values: np.ndarray) -> None:
    chosen = choose_range(of(values), "minmax")
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    assert chosen == ((low, high) if max(-low, high) >= 2.0**-100 else (0.0, 0.0))


@given(
    hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.sampled_from(METHODS),
)
def test_every_range_holds_zero_and_lies_within_the_values(values: np.ndarray, method: Method) -> None:
    made = of(values)
    chosen = choose_range(made, method)
    full = choose_range(made, "minmax")
    slack = 1e-6 * (full.high - full.low)
    assert full.low - slack <= chosen.low <= 0 <= chosen.high <= full.high + slack
    assert (chosen.low == chosen.high) == (full.low == full.high)
    assert math.isfinite(expected_error(made, chosen))
    assert isinstance(resolution(made, chosen).reason, str)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [*SMOOTH.values(), *COARSE.values()], ids=[*SMOOTH, *COARSE])
def test_the_expected_error_is_the_measured_one(values: np.ndarray, method: Method) -> None:
    made = of(values)
    chosen = choose_range(made, method)
    assert expected_error(made, chosen) == pytest.approx(quantisation_error(values, chosen), rel=0.1)


@pytest.mark.parametrize("values", [*SMOOTH.values(), *COARSE.values()], ids=[*SMOOTH, *COARSE])
def test_no_range_of_a_search_by_hand_beats_mse(values: np.ndarray) -> None:
    few = values.reshape(-1)[::8]
    made = of(few)
    full = choose_range(made, "minmax")
    error = quantisation_error(few, choose_range(made, "mse"))
    by_hand = min(
        quantisation_error(few, Range(full.low * a, full.high * b))
        for a in np.geomspace(1, 0.02, 14)
        for b in np.geomspace(1, 0.02, 14)
    )
    assert error <= 1.1 * by_hand


def test_mse_clips_what_is_rare_and_keeps_what_costs() -> None:
    outlier = gauss()
    outlier[0] = 12.0
    assert 3 < choose_range(of(outlier), "mse").high < 10
    assert choose_range(of(uniform(0, 1)), "mse").high == pytest.approx(1, abs=0.01)
    assert choose_range(of(COARSE["outliers"]), "mse").high > 1000


def test_zeros_do_not_pull_the_ends_in() -> None:
    """A tensor of which 99 % is zero gets the range of the other 1 %."""
    dense = choose_range(of(uniform(0, 1)), "mse")
    sparse = choose_range(of(with_rare(uniform(0, 1), 0.99, 0.0)), "mse")
    assert sparse.high == pytest.approx(dense.high, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_one_hot_and_pure_masks_keep_their_values(method: Method) -> None:
    hot = with_rare(np.zeros(COUNT), 1 / 30_000, 1.0)
    assert choose_range(of(hot), method) == pytest.approx((0, 1), abs=0.01)
    masks = choose_range(of(with_rare(np.zeros(COUNT), 0.4, -1e9)), method)
    assert masks == pytest.approx((-1e9, 0), rel=0.01)


def test_percentile_leaves_out_a_share_at_each_end() -> None:
    values = gauss()
    chosen = choose_range(of(values), "percentile")
    assert chosen.low == pytest.approx(float(np.quantile(values, 1e-4)), rel=0.02)
    assert chosen.high == pytest.approx(float(np.quantile(values, 1 - 1e-4)), rel=0.02)


def test_entropy_keeps_a_compact_distribution_and_cuts_far_outliers() -> None:
    for name in ("gauss", "uniform", "relu6"):
        full = choose_range(of(SMOOTH[name]), "minmax")
        assert choose_range(of(SMOOTH[name]), "entropy") == pytest.approx(full, rel=0.25)
    few = with_rare(gauss(), 1e-5, 300.0)
    assert 3 < choose_range(of(few), "entropy").high < 30
    both = choose_range(of(with_rare(gauss(), 1e-4, 1000 * gauss(1))), "entropy")
    assert -400 < both.low < -3
    assert 3 < both.high < 400


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_tensors_have_a_range(method: Method) -> None:
    assert choose_range(Histogram.empty(), method) == (0, 0)
    assert choose_range(of(np.zeros(10)), method) == (0, 0)
    assert choose_range(of(np.array([1e-40, -1e-42])), method) == (0, 0)
    assert choose_range(of(np.full(100, 3.7)), method) == pytest.approx((0, 3.7))
    assert choose_range(of(np.full(100, -3.7)), method) == pytest.approx((-3.7, 0))
    assert choose_range(of(np.array([2.5])), method) == pytest.approx((0, 2.5))
    largest = float(np.finfo(np.float32).max)
    assert choose_range(of(np.array([largest, -largest])), method) == pytest.approx((-largest, largest))


def test_fewer_bits_clip_more() -> None:
    made = of(gauss())
    assert choose_range(made, "mse", bits=4).high < 0.9 * choose_range(made, "mse", bits=8).high


@pytest.mark.parametrize("values", SMOOTH.values(), ids=SMOOTH)
def test_ordinary_tensors_are_carried(values: np.ndarray) -> None:
    verdict = resolution(of(values), choose_range(of(values), "mse"))
    assert verdict.carried, verdict.reason


CODES = {
    "one-hot": with_rare(np.zeros(COUNT), 0.01, 1.0),
    "rare one-hot": with_rare(np.zeros(COUNT), 1 / 30_000, 1.0),
    "pure mask": with_rare(np.zeros(COUNT), 0.3, -1e9),
    "zeros": np.zeros(100),
    "constant": np.full(100, -7.3),
    "single value": np.array([5.0]),
    "few values": np.random.default_rng(0).standard_normal(10),
    "few after relu": np.maximum(np.random.default_rng(0).standard_normal(12) - 1, 0),
}


@pytest.mark.parametrize("values", CODES.values(), ids=CODES)
def test_codes_constants_and_few_values_are_carried(values: np.ndarray) -> None:
    verdict = resolution(of(values), choose_range(of(values), "minmax"))
    assert verdict.carried, verdict.reason


NOT_CARRIED = {
    **COARSE,
    "variances": np.exp(3 * gauss()),
    "large sums": 10_000 + gauss(),
    "tiny beside a constant": with_rare(1e-3 * uniform(-1, 1), 0.5, 50.0),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", NOT_CARRIED.values(), ids=NOT_CARRIED)
def test_what_a_step_would_swallow_is_not_carried(values: np.ndarray, method: Method) -> None:
    assert not resolution(of(values), choose_range(of(values), method)).carried


def test_the_reason_has_the_figures() -> None:
    values = with_rare(3 * gauss(), 0.3, 1e9 * np.sign(gauss(1)))
    chosen = choose_range(of(values), "minmax")
    assert resolution(of(values), chosen).reason == (
        "its range is ±1e+09 while half of its values lie below 2: one int8 step is 7.8e+06"
    )


def test_values_that_are_not_finite_are_not_carried() -> None:
    made = of(np.array([1.0, 2.0, -np.inf]))
    assert resolution(made, choose_range(made, "minmax")).reason == "1 of its values are NaN or infinite"


def test_clipping_most_of_a_signal_is_not_carried() -> None:
    made = of(gauss())
    assert "power" in resolution(made, Range(-0.3, 0.3)).reason
