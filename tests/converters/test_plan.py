"""Plans: what they leave float and why, and that all of them speak of the same numbers."""

from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from converters.quantize.profiles import ARM64, STATIC, X86_AVX2, X86_VNNI, native_static, runs_right, saturates
from converters.quantize.qdq import write_qdq
from tests.converters import models
from tests.converters.quantised import CHANNELS, Case, conv, net, square, steps_in, weights_in


def block() -> Case:
    """Two convolutions with ReLU, a residual sum, a concatenation, a pool, a hard swish and a head."""
    rng = np.random.default_rng(3)
    nodes = [
        conv("x", "a", "w1"),
        helper.make_node("Relu", ["a"], ["ra"], "relu_a"),
        conv("ra", "b", "w2"),
        helper.make_node("Add", ["b", "x"], ["s"], "residual"),
        helper.make_node("HardSwish", ["s"], ["h"], "swish"),
        helper.make_node("Concat", ["h", "ra"], ["c"], "join", axis=1),
        helper.make_node("MaxPool", ["c"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "fc", "fb"], ["y"], "head"),
    ]
    weights = {
        "w1": square(1),
        "w2": square(2),
        "fc": rng.normal(0, 0.3, (2 * CHANNELS, 4)).astype(np.float32),
        "fb": rng.normal(0, 1, 4).astype(np.float32),
    }
    return Case(net(nodes, weights), scale=3.0)


@pytest.fixture(scope="module")
def case() -> Case:
    return block()


def wide() -> Case:
    """Wide enough that int8 pays by measured costs too: two convolutions, a residual sum, a mean and a head."""
    rng = np.random.default_rng(4)
    shape = (96, CHANNELS, 1, 1)
    nodes = [
        conv("x", "a", "w1"),
        helper.make_node("Relu", ["a"], ["ra"], "relu_a"),
        conv("ra", "b", "w2"),
        helper.make_node("Add", ["b", "ra"], ["s"], "residual"),
        conv("s", "c", "w3"),
        helper.make_node("GlobalAveragePool", ["c"], ["y"], "mean"),
    ]
    weights = {"w1": rng.normal(0, 0.3, shape).astype(np.float32), "w2": square(5, size=96), "w3": square(6, size=96)}
    return Case(net(nodes, weights))


def test_what_two_plans_hold_in_int8_has_one_scale_and_the_same_weights(tmp_path: Path) -> None:
    case = wide()
    plans = [case.plan(profile) for profile in STATIC]
    files = [case.written(made, tmp_path) for made in plans if made.int8]
    assert len(files) >= 4
    for one, two in combinations(files, 2):
        steps, others = steps_in(one), steps_in(two)
        shared = set(steps) & set(others)
        assert len(shared) >= 3
        assert {name: steps[name] for name in shared} == {name: others[name] for name in shared}
        weights, other_weights = weights_in(one), weights_in(two)
        names = set(weights) & set(other_weights)
        assert len(names) >= 2
        for name in names:
            for mine, theirs in zip(weights[name], other_weights[name], strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_moving_values_keeps_their_scale(case: Case) -> None:
    found = case.encodings.tensors
    assert found["c"] == found["m"]
    assert found["ra"] != found["g"]


def test_an_activation_and_a_bias_belong_to_their_operator(case: Case) -> None:
    by_name = {unit.name: [node.op_type for node in unit.nodes] for unit in case.units}
    assert by_name["conv_a"] == ["Conv", "Relu"]
    assert case.units[-1].bias is not None


def test_the_same_data_give_the_same_plan(case: Case, tmp_path: Path) -> None:
    again = block()
    (tmp_path / "again").mkdir()
    for profile in STATIC:
        one = case.written(case.plan(profile), tmp_path)
        two = again.written(again.plan(profile), tmp_path / "again")
        assert one.read_bytes() == two.read_bytes()


def test_what_must_stay_float_says_why(case: Case) -> None:
    made = case.plan(X86_AVX2, keep_float={"conv_b": "because I say so"})
    index = next(i for i, unit in enumerate(case.units) if unit.name == "conv_b")
    assert index not in made.int8
    assert made.reasons[index] == "because I say so"
    assert set(made.reasons) | made.int8 == set(range(len(case.units)))


def test_a_kind_that_a_profile_lacks_stays_float(case: Case) -> None:
    operators = {name: cost for name, cost in X86_AVX2.operators.items() if name != "Conv.pointwise"}
    made = case.plan(msgspec.structs.replace(X86_AVX2, operators=operators))
    assert "Conv" not in case.names(made)
    assert any("no int8 kernel for Conv.pointwise" in reason for reason in made.reasons.values())


def test_int8_that_costs_more_than_float_is_not_taken(case: Case) -> None:
    dear = {
        name: msgspec.structs.replace(cost, in_int8=msgspec.structs.replace(cost.in_float, fixed=1e9))
        for name, cost in X86_AVX2.operators.items()
    }
    made = case.plan(msgspec.structs.replace(X86_AVX2, operators=dear))
    assert not made.int8
    assert made.int8_share == 0.0


def test_a_tensor_that_int8_cannot_carry_keeps_its_readers_and_writers_float() -> None:
    """Scores with a mask of -1e9 in a third of the places: one step would be millions."""
    mask = np.zeros((1, CHANNELS, 10, 10), np.float32)
    mask[..., ::3] = -1e9
    nodes = [conv("x", "a"), helper.make_node("Add", ["a", "mask"], ["m"], "masked"), conv("m", "y")]
    case = Case(net(nodes, {"w": square(), "mask": mask}))
    made = case.plan(X86_AVX2)
    assert "m" in case.encodings.refused
    assert {case.units[index].name for index in made.int8} == {"conv_a"}
    assert any("int8 cannot carry 'm'" in reason for reason in made.reasons.values())


def test_control_flow_stays_float_as_a_whole() -> None:
    body = [
        helper.make_graph(
            [helper.make_node("Conv", ["a", "w"], [name], f"inner_{name}", kernel_shape=[1, 1])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("yes", "no")
    ]
    nodes = [
        conv("x", "a", "w1"),
        helper.make_node("ReduceSum", ["a"], ["total"], "total", keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"], "test"),
        helper.make_node("If", ["positive"], ["i"], "choose", then_branch=body[0], else_branch=body[1]),
        conv("i", "y", "w2"),
    ]
    weights = {"w": square(), "w1": square(1), "w2": square(2), "zero": np.zeros((), np.float32)}
    case = Case(net(nodes, weights))
    made = case.plan(X86_AVX2)
    inner = [graph for node in write_qdq(case.float, made).graph for graph in _bodies(node)]
    assert len(inner) == 2
    assert all(node.op_type in {"Conv", "Identity"} for graph in inner for node in graph)
    assert 0.6 < made.int8_share < 0.7  # the branch that runs is a third of the multiplications
    choose = next(index for index, unit in enumerate(case.units) if unit.operator == "If")
    assert "control flow" in made.reasons[choose]


def _bodies(node: object) -> list[object]:
    return [attribute.as_graph() for attribute in node.attributes.values() if attribute.type.name == "GRAPH"]


def test_weights_that_are_computed_are_not_quantised() -> None:
    nodes = [
        helper.make_node("Mul", ["w", "two"], ["w2"], "twice"),
        helper.make_node("ReduceMean", ["x"], ["mean"], "mean", axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["w2", "mean"], ["w3"], "scaled"),
        conv("x", "y", "w3"),
    ]
    case = Case(net(nodes, {"w": square(), "two": np.float32(2)}))
    made = case.plan(X86_AVX2)
    assert any("computed, not constant" in reason for reason in made.reasons.values())


def test_profiles_know_which_cpu_computes_what_right() -> None:
    vnni, haswell, arm = frozenset({"avx2", "avx512_vnni"}), frozenset({"avx2"}), frozenset({"asimd"})
    assert native_static(flags=vnni, machine="x86_64") is X86_VNNI
    assert native_static(flags=frozenset({"avx2", "avx_vnni"}), machine="x86_64") is X86_VNNI
    assert native_static(flags=haswell, machine="x86_64") is X86_AVX2
    assert native_static(flags=arm, machine="aarch64") is ARM64
    wrong = [one for one in STATIC if saturates(one, flags=haswell, machine="x86_64")]
    assert wrong == [X86_VNNI, ARM64]  # TFLite's kernels are right without VNNI
    assert not any(saturates(one, flags=arm, machine="aarch64") for one in STATIC)
    assert not any(saturates(one, flags=vnni, machine="x86_64") for one in STATIC)
    assert not runs_right(X86_VNNI, flags=haswell, machine="x86_64")


def test_a_recurrent_layer_stays_float() -> None:
    case = Case(models.lstm_net())
    made = case.plan(X86_AVX2)
    assert "LSTM" not in case.names(made)
    assert made.int8_share == 0.0
    lstm = next(index for index, unit in enumerate(case.units) if unit.operator == "LSTM")
    assert made.work(lstm) == 5 * (128 * 16 + 128 * 32)
