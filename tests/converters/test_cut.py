"""The labelling is the cheapest there is: held against trying them all."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from converters.quantize.cut import Choice, Crossing, cheapest, labelled

COST = st.integers(0, 20).map(float)


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[int, Choice], list[Crossing]]:
    count = draw(st.integers(1, 7))
    units = st.integers(0, count - 1)
    choices = {unit: Choice(draw(COST), draw(st.none() | COST)) for unit in range(count)}
    crossings = [
        Crossing(draw(st.none() | units), draw(st.lists(units, max_size=3, unique=True)), draw(st.booleans()), *costs)
        for costs in draw(st.lists(st.tuples(COST, COST), max_size=8))
    ]
    return choices, crossings


def labellings(choices: dict[int, Choice]) -> list[set[int]]:
    free = [unit for unit, choice in choices.items() if choice.in_int8 is not None]
    return [
        {unit for unit, taken in zip(free, picks, strict=True) if taken} for picks in product((0, 1), repeat=len(free))
    ]


@given(problems())
def test_no_labelling_is_cheaper(problem: tuple[dict[int, Choice], list[Crossing]]) -> None:
    choices, crossings = problem
    found = cheapest(choices, crossings)
    assert labelled(choices, crossings, found) == min(
        labelled(choices, crossings, labelling) for labelling in labellings(choices)
    )


def test_a_tie_stays_float() -> None:
    assert cheapest({0: Choice(5.0, 5.0)}, []) == set()


def test_a_tensor_with_many_readers_is_quantised_once() -> None:
    """Two readers that gain 3 each are worth one crossing of 5, not two."""
    choices = {0: Choice(0.0, None), 1: Choice(10.0, 7.0), 2: Choice(10.0, 7.0)}
    crossing = Crossing(0, (1, 2), read_in_float=False, quantize=5.0, dequantize=0.0)
    assert cheapest(choices, [crossing]) == {1, 2}
    assert cheapest(choices, [crossing._replace(readers=(1,))]) == {2}


def test_what_a_labelling_costs() -> None:
    choices = {0: Choice(10.0, 2.0), 1: Choice(7.0, None), 2: Choice(5.0, 1.0)}
    crossings = [
        Crossing(None, (0,), read_in_float=False, quantize=0.5, dequantize=100.0),
        Crossing(0, (1, 2), read_in_float=False, quantize=100.0, dequantize=0.25),
        Crossing(2, (), read_in_float=True, quantize=100.0, dequantize=0.125),
    ]
    assert labelled(choices, crossings, set()) == 22.0
    assert labelled(choices, crossings, {0, 2}) == 2 + 7 + 1 + 0.5 + 0.25 + 0.125
    assert labelled(choices, crossings, {1}) == float("inf")
