"""First aid: the layers that lose most per cost go back to float first, and no more of them than it takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.measure.blame import Blame
from converters.quantize.compiler import Compiler
from converters.quantize.constraints import Constraints
from converters.quantize.deviation import Deviation
from converters.quantize.first_aid import Cure, heal, worth
from converters.quantize.profiles import STATIC, X86_AVX2
from tests.converters.quantised import CHANNELS, Case, conv, net, square

LITERT_XNNPACK = next(one for one in STATIC if one.name == "litert-xnnpack")


def ranking(count: int) -> list[Cure]:
    blame = Blame(layer="", operator="Conv", error=0.1, added=0.1)
    return [Cure((f"layer{index}",), blame) for index in range(count)]


@given(st.integers(1, 60), st.integers(1, 60))
def test_returns_as_many_layers_as_it_takes_give_or_take_an_eighth(count: int, needed: int) -> None:
    tried: list[int] = []

    def fits(constraints: Constraints) -> bool:
        tried.append(len(constraints.keep_float))
        return len(constraints.keep_float) >= needed

    healed = heal(Constraints(), ranking(count), fits)
    if needed > count:
        assert healed is None
        return
    assert healed is not None
    assert list(healed.keep_float) == [one.layers[0] for one in ranking(count)[: len(healed.keep_float)]]
    assert needed <= len(healed.keep_float) <= needed + max(1, needed // 4)
    assert len(tried) <= 12


def test_nothing_to_return_is_no_cure() -> None:
    assert heal(Constraints(), [], lambda _: True) is None


def spread_channels() -> Case:
    """The second convolution reads channels sixty times apart, and its weights make the small ones count."""
    spread = np.ones((CHANNELS, 1, 1, 1), np.float32)
    spread[::2] = 60
    nodes = [conv("x", "a", "w1"), conv("a", "b", "w2"), conv("b", "y", "w3")]
    level = (square(2) / spread.reshape(1, CHANNELS, 1, 1)).astype(np.float32)
    return Case(net(nodes, {"w1": square(1) * spread, "w2": level, "w3": square(3)}), samples=12)


@pytest.fixture(scope="module")
def case() -> Case:
    return spread_channels()


def test_the_layer_that_loses_most_is_blamed_first(case: Case) -> None:
    compiler = Compiler(case.float, case.statistics, [X86_AVX2])
    made = compiler.plan(X86_AVX2, Constraints("minmax"))
    samples = [case.data.inputs(index) for index in range(8)]
    deviation = Deviation(case.float, samples)
    found = worth(compiler, made, deviation)
    assert found[0].layers == ("conv_a", "conv_b")
    assert found[0].blame.added > 0.02
    healed = compiler.plan(X86_AVX2, Constraints("minmax", {"conv_a": "lossy", "conv_b": "lossy"}))
    assert deviation.of(compiler.quantised(healed)) < 0.1 * deviation.of(compiler.quantised(made))


def test_two_runs_agree(case: Case) -> None:
    compiler = Compiler(case.float, case.statistics, [X86_AVX2])
    made = compiler.plan(X86_AVX2, Constraints())
    deviation = Deviation(case.float, [case.data.inputs(0)])
    assert worth(compiler, made, deviation) == worth(compiler, made, deviation)


def test_auto_never_takes_a_method_that_is_clearly_worse() -> None:

    case = Case(net([conv("x", "a", "w1"), conv("a", "y", "w2")], {"w1": square(1), "w2": square(2)}), samples=12)
    compiler = Compiler(case.float, case.statistics, [X86_AVX2])
    deviation = Deviation(case.float, [case.data.inputs(index) for index in range(8)])
    chosen = compiler.choose_method(deviation)
    found = {
        method: deviation.of(compiler.quantised(compiler.plan(X86_AVX2, Constraints(method))))
        for method in ("mse", "minmax", "percentile")
    }
    assert found[chosen] <= min(found.values()) / 0.9


def test_a_tflite_plan_deviates_by_its_own_operators_alone(case: Case) -> None:
    """ONNX Runtime's optimiser quantises a float convolution between int8 ones, which no TFLite file does."""
    compiler = Compiler(case.float, case.statistics, [LITERT_XNNPACK])
    mixed = compiler.plan(LITERT_XNNPACK, Constraints("minmax", {"conv_a": "lossy", "conv_b": "lossy"}))
    deviation = Deviation(case.float, [case.data.inputs(index) for index in range(8)])
    written = compiler.quantised(mixed)
    assert compiler.deviation(mixed, deviation) == deviation.of(written, optimise=False) != deviation.of(written)
