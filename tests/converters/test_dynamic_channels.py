"""Scales: never worse than the largest value's, and better where a channel has few far values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from converters.quantize.channels import nearest


def back(weight: np.ndarray, axes: list[int]) -> np.ndarray:
    made = nearest(weight, axes)
    return made.steps.astype(np.float64) * made.scale


def by_largest(weight: np.ndarray, axes: list[int]) -> np.ndarray:
    """What one scale a channel from the largest value gives."""
    others = tuple(axis for axis in range(weight.ndim) if axis not in axes)
    largest = np.abs(weight.astype(np.float64)).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, np.maximum(largest / 127, np.finfo(np.float32).tiny), 1)
    return np.rint(weight / scale) * scale


@given(
    weight=arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=st.floats(-100, 100, width=32)
    ),
    data=st.data(),
)
def test_no_channel_is_worse_than_with_the_largest_values_scale(weight: np.ndarray, data: st.DataObject) -> None:
    axes = data.draw(st.lists(st.integers(0, weight.ndim - 1), unique=True, max_size=2).map(sorted))
    made = nearest(weight, axes)
    assert made.steps.shape == weight.shape
    assert made.scale.shape == tuple(size if axis in axes else 1 for axis, size in enumerate(weight.shape))
    assert made.steps.min() >= -127
    assert (made.scale > 0).all()
    ours = np.square(back(weight, axes) - weight).sum()
    theirs = np.square(by_largest(weight, axes) - weight).sum()
    # Scales are float32, so every value that comes back carries float32's own error.
    own = 2e-7 * np.sqrt(np.square(weight, dtype=np.float64).sum())
    assert np.sqrt(ours) <= np.sqrt(theirs) + own + 1e-30


def test_far_values_are_clipped_where_that_is_nearer() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 20_000)).astype(np.float32)
    weight[:, 0] = 40
    ours, theirs = (np.square(made - weight).sum() for made in (back(weight, [0]), by_largest(weight, [0])))
    assert ours < 0.95 * theirs


@pytest.mark.parametrize("rows", [1, 3, 2000])
def test_blocks_make_no_difference(rows: int) -> None:
    weight = np.random.default_rng(1).standard_normal((rows, 1000)).astype(np.float32)
    whole = nearest(weight, [0])
    for row in {0, rows // 2, rows - 1}:
        one = nearest(weight[row : row + 1], [0])
        np.testing.assert_array_equal(one.steps[0], whole.steps[row])
        np.testing.assert_array_equal(one.scale[0], whole.scale[row])


def test_the_error_is_the_share_that_was_lost() -> None:
    weight = np.random.default_rng(2).standard_normal((3, 500)).astype(np.float32)
    made = nearest(weight, [0])
    lost = np.square(back(weight, [0]) - weight).sum() / np.square(weight).sum()
    assert made.error == pytest.approx(np.sqrt(lost), rel=1e-3)
    assert nearest(np.zeros((2, 2), np.float32), [0]).error == 0
