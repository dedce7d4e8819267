"""Plans written as graphs: held against the float graph, and against ONNX Runtime with and without its fusions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.quantize.cost import kind
from converters.quantize.profiles import ARM64, STATIC, X86_AVX2, X86_VNNI, Profile, host_flags, saturates
from tests.converters.quantised import (
    CHANNELS,
    Case,
    conv,
    net,
    optimised_operators,
    relative_error,
    run,
    square,
    steps_in,
)

RIGHT = [one for one in STATIC if not saturates(one, flags=host_flags()[0], machine=host_flags()[1])]


def between(*middle: onnx.NodeProto, last: str = "m", **weights: np.ndarray) -> onnx.ModelProto:
    """Nodes from `a` to `last`, between two convolutions."""
    return net([conv("x", "a", "w1"), *middle, conv(last, "y", "w2")], {"w1": square(1), "w2": square(2), **weights})


def clip(low: float, high: float) -> onnx.ModelProto:
    ends = {"low": np.float32(low), "high": np.float32(high)}
    return between(helper.make_node("Clip", ["a", "low", "high"], ["m"], "clip"), **ends)


def shared_relu() -> onnx.ModelProto:
    """A Relu that cannot fuse, because the sum before it is needed too."""
    nodes = [helper.make_node("Relu", ["a"], ["r"], "relu"), helper.make_node("Add", ["a", "r"], ["m"], "sum")]
    return between(*nodes)


def gated() -> onnx.ModelProto:
    nodes = [
        helper.make_node("HardSigmoid", ["a"], ["g"], "gate", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["a", "g"], ["m"], "mul"),
        helper.make_node("Tanh", ["m"], ["t"], "tanh"),
    ]
    return between(*nodes, last="t")


def one(operator: str, **attributes: object) -> Callable[[], onnx.ModelProto]:
    return lambda: between(helper.make_node(operator, ["a"], ["m"], "middle", **attributes))


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "relu": one("Relu"),
    "clip": lambda: clip(0, 6),
    "clip below zero": lambda: clip(-0.5, 0.25),
    "shared relu": shared_relu,
    "hard swish": one("HardSwish"),
    "hard sigmoid": gated,
    "sigmoid": one("Sigmoid"),
    "leaky relu": one("LeakyRelu", alpha=0.1),
    "softmax": one("Softmax", axis=1),
    "max pool": one("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool": one("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "average pool, padding left out": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool, padding counted": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "mean": one("GlobalAveragePool"),
    "transpose": one("Transpose", perm=[0, 1, 3, 2]),
    "depth to space": lambda: between(
        helper.make_node("DepthToSpace", ["a"], ["d"], "shuffle", blocksize=2),
        helper.make_node("SpaceToDepth", ["d"], ["m"], "back", blocksize=2),
    ),
    "add a constant": lambda: between(
        helper.make_node("Add", ["a", "k"], ["m"], "add"), k=np.linspace(-1, 2, 100, dtype=np.float32).reshape(10, 10)
    ),
    "channel factors": lambda: between(
        helper.make_node("Mul", ["a", "k"], ["m"], "scale"),
        k=np.linspace(-1, 2, 800, dtype=np.float32).reshape(1, CHANNELS, 10, 10),
    ),
    "concat": lambda: between(
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Concat", ["a", "r"], ["c"], "join", axis=1),
        helper.make_node("Slice", ["c", "from", "to", "axes"], ["m"], "half"),
        **{"from": np.array([4]), "to": np.array([12]), "axes": np.array([1])},
    ),
    "dilated and strided": lambda: net(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], "conv", kernel_shape=[3, 3], dilations=[2, 2], strides=[2, 1]),
        ],
        {"w": np.random.default_rng(0).normal(0, 0.2, (5, CHANNELS, 3, 3)).astype(np.float32)},
    ),
    "one weight, two readers": lambda: net([conv("x", "a"), conv("a", "y")], {"w": square()}),
    "an output that is read inside": lambda: net(
        [conv("x", "a", "w1"), conv("a", "y", "w2")], {"w1": square(1), "w2": square(2)}, outputs=("a", "y")
    ),
    "dead channels and a huge bias": lambda: net(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", kernel_shape=[1, 1])],
        {"w": square() * np.eye(CHANNELS, dtype=np.float32)[0][:, None, None, None], "b": np.full(8, 1e3, np.float32)},
    ),
}


@pytest.mark.parametrize("profile", RIGHT, ids=lambda profile: profile.name)
@pytest.mark.parametrize("name", NETS)
def test_int8_computes_about_what_float_does(name: str, profile: Profile, tmp_path: Path) -> None:
    case = Case(NETS[name](), scale=2.0)
    made = case.plan(profile)
    path = case.written(made, tmp_path)
    wanted = run(case.float_file(tmp_path), case.x)
    got = run(path, case.x)
    assert [array.shape for array in got] == [array.shape for array in wanted]
    for mine, theirs in zip(got, wanted, strict=True):
        assert relative_error(mine, theirs) < 0.05


@pytest.mark.parametrize("name", NETS)
def test_fused_and_plain_kernels_agree_within_a_few_steps(name: str, tmp_path: Path) -> None:
    """What ONNX Runtime fuses must be what is written: the graph without any fusion gives the same."""
    case = Case(NETS[name](), scale=2.0)
    path = case.written(case.plan(X86_AVX2), tmp_path)
    for fused, plain in zip(run(path, case.x), run(path, case.x, optimise=False), strict=True):
        assert np.abs(fused - plain).max() <= 0.03 * np.ptp(plain)


@pytest.mark.parametrize("name", ["relu", "clip", "clip below zero", "shared relu", "hard swish", "average pool"])
def test_what_is_planned_in_int8_runs_in_int8(name: str, tmp_path: Path) -> None:
    case = Case(NETS[name](), scale=2.0)
    made = case.plan(X86_AVX2)
    assert {kind(case.units[index]) for index in made.int8} >= {"Conv.pointwise.ragged"}
    operators = optimised_operators(case.written(made, tmp_path), tmp_path)
    assert "Conv" not in operators
    assert not {"HardSwish", "HardSigmoid", "AveragePool", "Relu"} & set(operators)
    assert operators.count("DequantizeLinear") == 1


def test_arm_gets_signed_activations_and_weights(tmp_path: Path) -> None:
    case = Case(NETS["hard swish"](), scale=2.0)
    signed, unsigned = (onnx.load(case.written(case.plan(profile), tmp_path)) for profile in (ARM64, X86_AVX2))
    kinds = [{tensor.data_type for tensor in model.graph.initializer} for model in (signed, unsigned)]
    assert TensorProto.UINT8 not in kinds[0]
    assert TensorProto.INT8 not in kinds[1]


def test_a_linear_layer_before_float_gives_float_at_once(tmp_path: Path) -> None:
    """No quantisation between a matrix product and the layer norm that reads it."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"], "rows_of"),
        helper.make_node("MatMul", ["r", "w"], ["p"], "product"),
        helper.make_node("Add", ["p", "b"], ["s"], "bias"),
        helper.make_node("LayerNormalization", ["s", "one", "zero"], ["y"], "norm"),
    ]
    weights = {
        "rows": np.array([-1, 8, 100]),
        "w": rng.normal(0, 0.2, (100, 64)).astype(np.float32),
        "b": rng.normal(0, 1, 64).astype(np.float32),
        "one": np.ones(64, np.float32),
        "zero": np.zeros(64, np.float32),
    }
    case = Case(net(nodes, weights))
    made = case.plan(X86_AVX2)
    assert {"MatMul"} <= case.names(made)
    path = case.written(made, tmp_path)
    assert "s_quantized" not in steps_in(path)
    assert relative_error(run(path, case.x)[0], run(case.float_file(tmp_path), case.x)[0]) < 0.03


def _uneven(shape: tuple[int, ...]) -> np.ndarray:
    """Weights whose last channels are a thousandth of the first: one scale for all would leave nothing of them."""
    spread = np.logspace(0, -3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (np.random.default_rng(0).normal(0, 0.5, shape) * spread).astype(np.float32)


LEFT_FLOAT = {
    "Conv": (helper.make_node("Conv", ["a", "u", "v"], ["b"], "left"), (8, 8, 3, 3)),
    "Conv and Relu": (helper.make_node("Conv", ["a", "u", "v"], ["b"], "left"), (8, 8, 3, 3)),
    "depthwise Conv": (helper.make_node("Conv", ["a", "u", "v"], ["b"], "left", group=8), (8, 1, 3, 3)),
    "ConvTranspose": (helper.make_node("ConvTranspose", ["a", "u", "v"], ["b"], "left"), (8, 8, 3, 3)),
}


@pytest.mark.parametrize("name", LEFT_FLOAT)
def test_what_stays_float_between_int8_is_left_alone_by_the_runtime(name: str, tmp_path: Path) -> None:
    """ONNX Runtime takes it for an int8 operator whose weights were forgotten, and gives them one scale."""
    left, shape = LEFT_FLOAT[name]
    relu = [helper.make_node("Relu", ["b"], ["c"], "relu")] if name == "Conv and Relu" else []
    last = helper.make_node("Conv", ["c" if relu else "b", "w"], ["y"], "last", kernel_shape=[1, 1])
    weights = {"w": square(), "u": _uneven(shape), "v": np.zeros(8, np.float32)}
    case = Case(net([conv("x", "a"), left, *relu, last], weights), scale=2.0)
    made = case.plan(X86_AVX2, keep_float={"left": "for the test"})
    path = case.written(made, tmp_path)
    assert "left" in [case.units[at].name for at in range(len(case.units)) if at not in made.int8]
    assert {"a_by_channel"} <= {node.output[0] for node in onnx.load(path).graph.node}
    assert left.op_type in optimised_operators(path, tmp_path)
    fused, plain = run(path, case.x)[0], run(path, case.x, optimise=False)[0]
    assert np.abs(fused - plain).max() <= 0.01 * np.ptp(plain)


def test_a_bias_beyond_int32_raises_its_channels_weight_scale(tmp_path: Path) -> None:
    weights, bias = square() * np.float32(1e-6), np.array([1e4] + [0.5] * 7, np.float32)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", kernel_shape=[1, 1])
    case = Case(net([node], {"w": weights, "b": bias}))
    path = case.written(case.plan(X86_AVX2), tmp_path)
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    steps = held["conv_bias_quantized"]
    assert np.abs(steps.astype(np.int64)).max() <= 2**30 + 1
    np.testing.assert_allclose(steps * held["conv_bias_scale"], bias, rtol=1e-3, atol=1e-3)


def test_vnni_and_avx2_files_give_the_same_answers_here(tmp_path: Path) -> None:
    if X86_VNNI not in RIGHT:
        pytest.skip("this CPU has no VNNI")
    case = Case(NETS["concat"](), scale=2.0)
    made = case.plan(X86_AVX2)
    twin = case.plan(X86_AVX2.__class__(**{**_fields(X86_AVX2), "weights": "S8", "name": "twin"}))
    one, two = (run(case.written(plan, tmp_path), case.x)[0] for plan in (made, twin))
    np.testing.assert_array_equal(one, two)


def _fields(profile: Profile) -> dict[str, object]:
    return {name: getattr(profile, name) for name in profile.__struct_fields__}
