"""Layouts as orders of atoms, against NumPy's own idea of where an entry lies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.write.tflite import digits
from converters.write.tflite.digits import Digit, Layout, Symbols

SIZES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=0, max_size=4)


def lay(array: np.ndarray, layout: Layout) -> np.ndarray:
    """The entries of `array` as they follow each other in memory."""
    index = np.indices(array.shape).reshape(array.ndim, array.size)
    place = np.zeros(array.size, np.int64)
    for digit in layout:
        place = place * digit.size + index[digit.axis] // digit.stride % digit.size
    made = np.empty(array.size, array.dtype)
    made[place] = array.reshape(-1)
    return made


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[int], Layout]:
    """Sizes, and an order of their digits."""
    sizes = draw(SIZES)
    made = []
    for axis, size in enumerate(sizes):
        inner = draw(st.sampled_from([one for one in range(1, size + 1) if size % one == 0]))
        made += [Digit(axis, inner, size // inner), Digit(axis, 1, inner)]
    return sizes, digits.merged(digit for digit in draw(st.permutations(made)) if digit.size > 1)


def factored(draw: st.DrawFn, total: int) -> list[int]:
    sizes = []
    while total > 1 and draw(st.booleans()):
        sizes.append(draw(st.sampled_from([one for one in range(1, total + 1) if total % one == 0])))
        total //= sizes[-1]
    return [*sizes, total]


@given(st.data())
def test_a_reshape_gives_the_same_bytes_other_axes(data: st.DataObject) -> None:
    old, layout = data.draw(layouts())
    new = factored(data.draw, math.prod(old))
    array = np.arange(math.prod(old)).reshape(old)
    made = digits.reshaped(layout, old, new)
    if made is not None:
        np.testing.assert_array_equal(lay(array, layout), lay(array.reshape(new), made))
        assert digits.axes_of(made) is not None
        assert set(digits.axes_of(made) or ()) == set(range(len(new)))


@given(st.data())
def test_a_reshape_there_and_back_is_found_and_is_the_same(data: st.DataObject) -> None:
    old = data.draw(SIZES)
    layout = digits.ordered(old, data.draw(st.permutations(range(len(old)))))
    new = factored(data.draw, math.prod(old))
    made = digits.reshaped(layout, old, new)
    if made is not None:
        back = digits.reshaped(made, new, old)
        assert back is not None
        assert digits.same_bytes(back, layout)


@given(st.data())
def test_a_transpose_gives_the_same_bytes_other_axes(data: st.DataObject) -> None:
    sizes, layout = data.draw(layouts())
    order = tuple(data.draw(st.permutations(range(len(sizes)))))
    array = np.arange(math.prod(sizes)).reshape(sizes)
    made = digits.transposed(layout, order)
    np.testing.assert_array_equal(lay(array, layout), lay(array.transpose(order), made))


@given(st.data())
def test_entries_say_how_an_axis_of_a_constant_is_reordered(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([4, 6, 8, 12]))
    inner = data.draw(st.sampled_from([one for one in range(2, size) if size % one == 0]))
    order = data.draw(st.permutations([Digit(0, inner, size // inner), Digit(0, 1, inner)]))
    layout = digits.merged(order)
    array = np.arange(size)
    picked = digits.entries(layout, size)
    np.testing.assert_array_equal(lay(array, layout), array if picked is None else array[picked])


def test_a_flatten_behind_channels_last_leaves_the_entries_of_one_axis_in_another_order() -> None:
    nhwc = digits.ordered((1, 8, 2, 3), (0, 2, 3, 1))
    made = digits.reshaped(nhwc, (1, 8, 2, 3), (1, 48))
    assert made == (Digit(0, 1, 1), Digit(1, 1, 6), Digit(1, 6, 8))


def test_open_sizes_are_primes_of_their_own_that_no_reshape_takes_apart() -> None:
    symbols = Symbols()
    batch, length = symbols.sizes(["batch", "length"])
    assert batch != length
    old, new = (batch, 8, length), (batch * length, 8)
    assert digits.reshaped(digits.ordered(old, (0, 2, 1)), old, new) is None
    kept = (batch, 2, 4, length)
    assert digits.reshaped(digits.ordered(old, (0, 2, 1)), old, kept) == digits.merged(
        [Digit(0, 1, batch), Digit(3, 1, length), Digit(1, 1, 2), Digit(2, 1, 4)]
    )


@pytest.mark.parametrize("straight", [frozenset(), frozenset({1})])
def test_a_neighbour_takes_the_order_of_the_frame(straight: frozenset[int]) -> None:
    frame = digits.ordered((2, 8, 3), (0, 2, 1))
    assert digits.adapted(frame, (2, 5, 3), straight=straight) == digits.ordered((2, 5, 3), (0, 2, 1))
    cut = (Digit(0, 1, 2), Digit(1, 1, 2), Digit(1, 2, 4), Digit(2, 1, 3))
    assert digits.adapted(cut, (2, 5, 3), straight=straight) is None
    assert digits.adapted(cut, (2, 1, 3)) == digits.plain((2, 1, 3))
