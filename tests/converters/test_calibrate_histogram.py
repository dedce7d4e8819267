"""Histograms of tensors: what they remember, that order and partition do not matter, and that bad bytes are refused."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.calibrate import Histogram, Statistics, load_statistics, save_statistics
from lepton_edge.errors import DataError

FLOATS = hnp.arrays(np.float32, st.integers(0, 200), elements=st.floats(width=32, allow_nan=True, allow_infinity=True))


def of(*arrays: np.ndarray) -> Histogram:
    made = Histogram.empty()
    for array in arrays:
        made.add(array)
    return made


@given(FLOATS)
def test_counts_and_extremes_are_those_of_the_finite_values(values: np.ndarray) -> None:
    made = of(values)
    finite = values[np.isfinite(values)]
    assert made.seen == values.size
    assert made.count == finite.size == made.values().counts.sum()
    assert made.not_finite == values.size - finite.size
    assert made.minimum == (finite.min() if finite.size else math.inf)
    assert made.maximum == (finite.max() if finite.size else -math.inf)


@given(FLOATS)
def test_buckets_are_ascending_hold_their_values_and_are_narrow(values: np.ndarray) -> None:
    made = of(values)
    buckets = made.values()
    assert (np.diff(buckets.value) > 0).all()
    assert (buckets.low <= buckets.value).all()
    assert (buckets.value <= buckets.high).all()
    assert (buckets.low[1:] >= buckets.high[:-1]).all()
    normal = np.abs(buckets.value) > 2.0**-120
    assert (buckets.high - buckets.low <= 0.016 * np.abs(buckets.value))[normal].all()
    for value in values[np.isfinite(values)].astype(np.float64):
        inside = (buckets.low <= value) & (value <= buckets.high)
        assert inside.any() or abs(value) < 2.0**-132


@given(FLOATS, st.lists(st.integers(0, 200), max_size=4), st.randoms(use_true_random=False))
def test_any_order_and_partition_gives_the_same_histogram(values: np.ndarray, cuts: list[int], random: object) -> None:
    whole = of(values)
    parts = np.split(values, sorted(cuts))
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert of(*parts) == whole
    merged = Histogram.empty()
    for part in parts:
        merged = of(part).merge(merged)
    assert merged == whole


def test_few_and_many_values_are_counted_alike() -> None:
    values = np.random.default_rng(0).standard_t(2, 50_000).astype(np.float32)
    assert of(values) == of(*np.array_split(values, 100))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_types_are_taken_as_float32(dtype: type) -> None:
    values = (100 * np.random.default_rng(0).standard_normal((7, 30))).astype(dtype)
    assert of(values) == of(values.astype(np.float32))


def test_a_float64_beyond_float32_counts_as_infinite() -> None:
    made = of(np.array([1e300, 1.0]))
    assert (made.not_finite, made.maximum) == (1, 1.0)


def test_quantiles_and_moments_are_those_of_the_values() -> None:
    values = np.random.default_rng(0).gamma(2, 3, 100_000).astype(np.float32) - 4
    made = of(values)
    for q in (0, 0.001, 0.1, 0.5, 0.9, 0.999, 1):
        assert made.quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=0.005, abs=0.005)
    assert made.std() == pytest.approx(float(values.std(dtype=np.float64)), rel=0.005)


def test_an_empty_histogram_answers() -> None:
    made = Histogram.empty()
    assert (made.count, made.zeros, made.quantile(0.5), made.std()) == (0, 0, 0, 0)
    assert made.atoms(0.01) == []


def test_zeros_of_both_signs_are_one_bucket() -> None:
    made = of(np.array([0.0, -0.0, 1.0, -1.0], np.float32))
    assert made.zeros == 2
    np.testing.assert_array_equal(made.values().value, [-1, 0, 1])
    np.testing.assert_array_equal(made.values().counts, [1, 2, 1])


def test_atoms_are_repeated_values_and_not_narrow_distributions() -> None:
    rng = np.random.default_rng(0)
    bulk = rng.standard_normal(100_000)
    assert of(np.clip(3 * bulk, 0, 6)).atoms(0.01) == [0.0, 6.0]
    assert of(np.where(rng.random(100_000) < 0.1, -1e9, bulk)).atoms(0.01) == [-1e9]
    assert of(rng.integers(0, 2, 1000)).atoms(0.01) == [0.0, 1.0]
    assert of(rng.uniform(0.9, 1.1, 100_000)).atoms(0.01) == []
    assert of(bulk).atoms(0.001) == []
    assert of(rng.standard_normal(20)).atoms(0.01) == []


def test_the_first_sample_that_is_not_finite_is_known_in_any_order() -> None:
    made = Histogram.empty()
    for sample in (5, 3, 9):
        made.add(np.array([np.nan, np.inf, 1.0]), sample=sample)
    assert (made.not_finite, made.first_not_finite) == (6, 3)
    assert made.merge(Histogram.empty()).first_not_finite == 3


def test_looking_at_some_values_keeps_the_extremes_and_starves_no_channel() -> None:
    shape = (1, 64, 32, 32)
    channels = np.arange(1, 65, dtype=np.float32).reshape(1, 64, 1, 1)
    for layout in (channels, channels.transpose(0, 2, 3, 1)):
        shaped = np.broadcast_to(layout, shape if layout is channels else (1, 32, 32, 64)).copy()
        shaped.reshape(-1)[12_345] = 1000.0
        made = Histogram.empty()
        made.add(shaped, most=4096)
        assert made.maximum == 1000.0
        assert made.seen == shaped.size
        assert 3000 < made.count <= 4096
        _, low, high, counts = made.values()
        for channel in range(1, 65):
            held = counts[(low <= channel) & (channel <= high)].sum()
            assert held == pytest.approx(made.count / 64, rel=0.1, abs=2)


def test_each_position_is_looked_at_in_turn() -> None:
    values = np.zeros(10_000, np.float32)
    values[777] = 1.0
    made = Histogram.empty()
    for sample in range(11):  # a stride of 11: 10,000 / 1000, and no factor of it
        made.add(values, most=1000, sample=sample)
    np.testing.assert_array_equal(made.values().counts, [9_999, 1])


def test_storage_is_small() -> None:
    made = of(np.random.default_rng(0).standard_normal(1_000_000))
    assert made.nbytes < 20_000
    assert of(10.0 ** np.random.default_rng(0).uniform(-37, 37, 100_000)).nbytes < 80_000


def test_counts_beyond_32_bits_are_kept() -> None:
    made = of(np.ones(1000))
    for _ in range(23):
        made = made.merge(made)
    assert made.count == made.values().counts.sum() == 1000 * 2**23
    assert Histogram.from_record(made.to_record(), what="made") == made


@pytest.fixture
def statistics() -> Statistics:
    rng = np.random.default_rng(0)
    return Statistics({"a": of(rng.standard_normal(999)), "b": of(np.array([np.nan])), "c": of()}, 3, ("look",))


def test_statistics_survive_the_disk(statistics: Statistics, tmp_path: Path) -> None:
    path = tmp_path / "statistics"
    save_statistics(path, statistics)
    assert load_statistics(path) == statistics
    first = path.read_bytes()
    save_statistics(path, load_statistics(path))
    assert path.read_bytes() == first


def test_statistics_of_two_processes_merge(statistics: Statistics) -> None:
    both = statistics.merge(statistics)
    assert both.samples == 6
    assert both.warnings == ("look",)
    assert both["a"] == statistics["a"].merge(statistics["a"])
    with pytest.raises(DataError, match="'c'"):
        statistics.merge(Statistics({name: statistics[name] for name in "ab"}, 1))


def test_truncated_and_foreign_files_are_refused(statistics: Statistics, tmp_path: Path) -> None:
    path = tmp_path / "statistics"
    save_statistics(path, statistics)
    data = path.read_bytes()
    for bad in (b"", data[:-1], data[: len(data) // 2], b"{}", b"\xff" * 100, b"\x91" * 100_000, data + b"x"):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="statistics"):
            load_statistics(path)
    with pytest.raises(DataError, match="absent"):
        load_statistics(tmp_path / "absent")


BROKEN = {
    "rows and counts differ": {"rows": b"\0\0"},
    "odd rows": {"rows": b"\0"},
    "extremes swapped": {"minimum": 2.0, "maximum": 1.0},
    "nan extreme": {"minimum": math.nan},
    "more than seen": {"seen": 3},
    "negative": {"not_finite": -1},
    "first without any": {"first_not_finite": 0},
    "absurd counts": {"counts": b"\xff" * 64 * 8, "rows": b"\0\0"},
    "rows past the grid": {"counts": b"\0" * 64 * 8, "rows": b"\xff\xff"},
    "rows twice": {"counts": b"\0" * 2 * 64 * 8, "rows": b"\0\0\0\0"},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_histograms_that_contradict_themselves_are_refused(change: dict[str, object], statistics: Statistics) -> None:
    record = msgspec.structs.replace(statistics["a"].to_record(), **change)
    with pytest.raises(DataError, match="the file"):
        Histogram.from_record(record, what="the file")


@given(st.binary(max_size=300), st.integers(0, 3000))
def test_bytes_changed_at_random_never_crash(noise: bytes, at: int) -> None:
    record = of(np.random.default_rng(0).standard_normal(99)).to_record()
    data = bytearray(msgspec.msgpack.encode(record))
    data[at : at + len(noise)] = noise
    try:
        changed = msgspec.msgpack.decode(bytes(data), type=type(record))
        Histogram.from_record(changed, what="noise").quantile(0.5)
    except (msgspec.MsgspecError, UnicodeDecodeError, DataError):
        return
