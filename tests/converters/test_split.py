"""Calibration and evaluation never share a sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.data.dataset import ArrayDataset, Subset
from converters.data.split import choose_spread, split_samples
from converters.data.targets import class_targets
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec
from lepton_edge.errors import DataError

SIGNATURE = ModelSignature(
    inputs=[TensorSpec(name="x", dtype="float32", shape=["batch", 1])],
    outputs=[TensorSpec(name="y", dtype="float32", shape=["batch", 2])],
)
labels_and_count = st.lists(st.integers(0, 5), min_size=2, max_size=120).flatmap(
    lambda labels: st.tuples(st.just(labels), st.integers(1, len(labels) - 1))
)


def dataset(count: int, labels: list[int] | None = None) -> ArrayDataset:
    x = np.arange(count, dtype=np.float32)[:, np.newaxis]
    y = None if labels is None else np.array(labels, np.int64)
    return ArrayDataset({"x": x}, class_targets(y), signature=SIGNATURE, where="data")


def identities(data: Subset) -> set[float]:
    return {float(data.inputs(index)["x"][0, 0]) for index in range(len(data))}


@given(labels_and_count, st.integers(0, 2**32 - 1))
def test_the_sides_are_disjoint_and_nothing_is_lost(given_: tuple[list[int], int], seed: int) -> None:
    labels, count = given_
    split = split_samples(dataset(len(labels), labels), calibration=count, seed=seed)
    calibration, evaluation = identities(split.calibration), identities(split.evaluation)
    assert len(calibration) == count
    assert not calibration & evaluation
    assert len(calibration | evaluation) == len(labels)


@given(labels_and_count, st.integers(0, 2**32 - 1))
def test_calibration_is_spread_over_the_classes(given_: tuple[list[int], int], seed: int) -> None:
    labels, count = given_
    array = np.array(labels)
    chosen = array[choose_spread(array, len(labels), count, seed=seed)]
    taken, there = np.bincount(chosen, minlength=6), np.bincount(array, minlength=6)
    unexhausted = taken[taken < there]
    assert unexhausted.size == 0 or taken.max() - unexhausted.min() <= 1


def test_equal_seeds_choose_equal_samples_and_others_do_not() -> None:
    labels = np.arange(500) % 10
    one, again, other = (choose_spread(labels, 500, 100, seed=seed) for seed in (4, 4, 5))
    assert one == again
    assert one != other


@pytest.mark.parametrize("count", [0, 10, 11])
def test_a_split_that_leaves_a_side_empty_is_refused(count: int) -> None:
    with pytest.raises(DataError, match="leaves nothing on one side"):
        split_samples(dataset(10), calibration=count, seed=0)


def test_by_default_half_of_few_samples_calibrate() -> None:
    assert len(split_samples(dataset(30), calibration=None, seed=0).calibration) == 15
    assert len(split_samples(dataset(1000), calibration=None, seed=0).calibration) == 100
