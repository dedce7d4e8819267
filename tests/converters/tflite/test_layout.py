"""The choice of layouts is the cheapest one there is: held against trying everything."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.write.tflite.digits import Symbols
from converters.write.tflite.layout import CALL, Borders, Layouts, choose_layouts, layout_problem
from converters.write.tflite.program import Fixed, Program, Reshaped, Step, Together, Transposed, Value, nhwc
from converters.write.tflite.solve import Factor, minimise

MOST = 20_000


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Images through kernels that want channels last, kernels that want nothing, transposes and reshapes."""
    shape = (1, draw(st.sampled_from([2, 4])), 3, draw(st.sampled_from([1, 3])))
    values = [Value("x", shape, "float32")]
    program = Program("random", [values[0]])
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["conv", "add", "transpose", "flat", "softmax", "plain"]))
        one = draw(st.sampled_from(values))
        alike = [value for value in values if value.shape == one.shape]
        step = _step(draw, kind, one, draw(st.sampled_from(alike)), f"t{number}")
        program.steps.append(step)
        values += step.outputs
    read = {value for step in program.steps for value in step.inputs}
    program.outputs = [value for value in values[1:] if value not in read]
    return program


def _step(draw: st.DrawFn, kind: str, one: Value, other: Value, name: str) -> Step:
    if kind == "conv" and one.rank == 4:
        return Step("CONV_2D", [one], [Value(name, one.shape, "float32")], rule=Fixed({0: nhwc(4)}, {0: nhwc(4)}))
    if kind == "add":
        return Step("ADD", [one, other], [Value(name, one.shape, "float32")], rule=Together())
    if kind == "transpose":
        order = tuple(draw(st.permutations(range(one.rank))))
        made = Value(name, tuple(one.shape[axis] for axis in order), "float32")
        return Step("TRANSPOSE", [one], [made], rule=Transposed(order))
    if kind == "flat" and one.rank == 4:
        sizes = [int(size) for size in one.shape]
        made = Value(name, (sizes[0], sizes[1], sizes[2] * sizes[3]), "float32")
        return Step("RESHAPE", [one], [made], rule=Reshaped())
    if kind == "softmax":
        rule = Together(last=draw(st.integers(0, one.rank - 1)))
        return Step("SOFTMAX", [one], [Value(name, one.shape, "float32")], rule=rule)
    return Step("ABS", [one], [Value(name, one.shape, "float32")])


@settings(max_examples=150)
@given(programs(), st.booleans())
def test_no_other_choice_of_layouts_costs_less(program: Program, native: bool) -> None:
    symbols = Symbols()
    steps, cost = layout_problem(program, symbols, Borders(native=native))
    sizes = [len(ways) for ways in steps]
    if np.prod([float(size) for size in sizes]) > MOST:
        return
    least = min(cost(choice) for choice in product(*(range(size) for size in sizes)))
    assert choose_layouts(program, symbols, Borders(native=native)).cost == least


@settings(max_examples=60)
@given(st.data())
def test_elimination_finds_the_least_sum(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    factors = []
    for _ in range(data.draw(st.integers(0, 8))):
        count = data.draw(st.integers(1, min(3, len(sizes))))
        chosen = tuple(data.draw(st.permutations(range(len(sizes))))[:count])
        shape = tuple(sizes[one] for one in chosen)
        entries = data.draw(st.lists(st.integers(0, 9), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        factors.append(Factor(chosen, np.array(entries, float).reshape(shape)))

    def total(choice: tuple[int, ...]) -> float:
        return sum(float(table[tuple(choice[one] for one in variables)]) for variables, table in factors)

    values, least = minimise(sizes, factors)
    assert least == min(total(choice) for choice in product(*(range(size) for size in sizes)))
    assert total(tuple(values)) == least


def chain(*steps: Step, source: Value) -> Program:
    return Program("chain", [source], list(steps[-1].outputs), list(steps))


def conv(source: Value, name: str) -> Step:
    return Step("CONV_2D", [source], [Value(name, source.shape, "float32")], rule=Fixed({0: nhwc(4)}, {0: nhwc(4)}))


def costs(program: Program, *, native: bool) -> Layouts:
    return choose_layouts(program, Symbols(), Borders(native=native))


def test_an_image_net_moves_its_input_and_output_alone_and_natively_nothing() -> None:
    x = Value("x", (1, 8, 5, 5), "float32")
    first = conv(x, "a")
    second = Step("ADD", [first.outputs[0], first.outputs[0]], [Value("b", x.shape, "float32")], rule=Together())
    third = conv(second.outputs[0], "c")
    program = chain(first, second, third, source=x)
    assert costs(program, native=True).cost == 0
    assert costs(program, native=False).cost == 2 * (CALL + 4 * 8 * 25)


def test_a_channel_shuffle_between_convolutions_is_free() -> None:
    x = Value("x", (1, 8, 5, 5), "float32")
    first = Step(
        "CONV_2D",
        [x, Value("w", (8, 8, 1, 1), "float32", data=np.ones((8, 8, 1, 1), np.float32))],
        [Value("a", x.shape, "float32")],
        rule=Fixed({0: nhwc(4), 1: (0, 2, 3, 1)}, {0: nhwc(4)}, (((0, 1), (1, 1)), ((1, 0), (-1, 1)))),
    )
    parted = Step("RESHAPE", first.outputs[:1], [Value("p", (1, 2, 4, 5, 5), "float32")], rule=Reshaped())
    turned = Step(
        "TRANSPOSE", parted.outputs[:1], [Value("t", (1, 4, 2, 5, 5), "float32")], rule=Transposed((0, 2, 1, 3, 4))
    )
    joined = Step("RESHAPE", turned.outputs[:1], [Value("j", x.shape, "float32")], rule=Reshaped())
    last = Step("CONV_2D", [joined.outputs[0], first.inputs[1]], [Value("y", x.shape, "float32")], rule=first.rule)
    assert costs(chain(first, parted, turned, joined, last, source=x), native=True).cost == 0


@pytest.mark.parametrize("readers", [1, 5, 40])
def test_a_tensor_is_paid_for_once_however_many_read_it(readers: int) -> None:
    x = Value("x", (1, 8, 5, 5), "float32")
    first = conv(x, "a")
    more = [Step("ABS", first.outputs[:1], [Value(f"y{at}", x.shape, "float32")]) for at in range(readers)]
    program = Program("fan", [x], [step.outputs[0] for step in more], [first, *more])
    assert costs(program, native=True).cost == CALL + 4 * 8 * 25
