"""Plans for TFLite targets: what their graphs ask of the kernels, and that they speak of the numbers of all plans."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converters.quantize.cost import Edges, Line, OperatorCost, kind
from converters.quantize.encoding import SIGNED_UNIT, UNIT
from converters.quantize.profiles import STATIC, X86_AVX2, Profile
from converters.quantize.qdq import write_qdq
from converters.write.tflite import to_tflite
from tests.converters.quantised import (
    CHANNELS,
    Case,
    conv,
    net,
    relative_error,
    run,
    square,
    steps_in,
    weights_in,
)
from tests.converters.test_plan import wide
from tests.converters.test_qdq import NETS, between

MEASURED = [one for one in STATIC if one.format == "tflite"]
_CHEAP = OperatorCost(in_float=Line(fixed=1000.0), in_int8=Line(fixed=1.0))
TAKES_ALL = msgspec.structs.replace(
    next(one for one in MEASURED if one.name == "litert-xnnpack"),
    name="takes-all",
    operators=dict.fromkeys(
        {
            *("Add", "AveragePool", "Clip", "Concat", "Conv.pointwise", "Conv.dense", "Conv.stem", "ConvTranspose"),
            *(
                "DepthToSpace",
                "Gemm",
                "GlobalAveragePool",
                "HardSigmoid",
                "HardSwish",
                "LeakyRelu",
                "MatMul",
                "MaxPool",
                "Mul",
            ),
            *("Mul.channel", "Relu", "Resize", "Sigmoid", "Slice", "Softmax", "SpaceToDepth", "Tanh", "Transpose"),
        },
        _CHEAP,
    ),
    edges=Edges(),
)
"""Whatever has an int8 form is int8, so that all forms are seen."""
_MOVES = {"Concat", "DepthToSpace", "MaxPool", "Reshape", "Resize", "Slice", "SpaceToDepth", "Transpose"}
_FIXED = {"Sigmoid": UNIT, "Softmax": UNIT, "Tanh": SIGNED_UNIT}


def relu_between_scales() -> onnx.ModelProto:
    """A concatenation of parts of unlike width, one of which stays apart: its scale is another."""
    nodes = [
        helper.make_node("Mul", ["a", "tiny"], ["n"], "narrow"),
        helper.make_node("Concat", ["a", "n", "k"], ["m"], "join", axis=1),
    ]
    constant = np.linspace(0, 0.1, CHANNELS * 100, dtype=np.float32).reshape(1, CHANNELS, 10, 10)
    weights = {"tiny": np.float32(0.05), "k": constant, "w1": square(1), "w2": np.tile(square(2), (1, 3, 1, 1))}
    batch = net([conv("x", "a", "w1"), *nodes, conv("m", "y", "w2")], weights)
    batch.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return batch


def gates() -> onnx.ModelProto:
    """Outputs of fixed scales in one group: neither can have its own there."""
    nodes = [
        helper.make_node("Sigmoid", ["a"], ["s"], "sigmoid"),
        helper.make_node("Tanh", ["a"], ["t"], "tanh"),
        helper.make_node("Concat", ["s", "t"], ["c"], "join", axis=1),
        helper.make_node("Slice", ["c", "from", "to", "axes"], ["m"], "half"),
    ]
    ends = {"from": np.array([4]), "to": np.array([12]), "axes": np.array([1])}
    return between(*nodes, **ends)


def clipped_sum(low: float, high: float) -> Callable[[], onnx.ModelProto]:
    """A clip that fuses into a sum, in a group that goes beyond its bounds."""

    def make() -> onnx.ModelProto:
        nodes = [
            helper.make_node("Add", ["a", "a"], ["d"], "double"),
            helper.make_node("Clip", ["d", "low", "high"], ["r"], "clip"),
            helper.make_node("Concat", ["a", "r"], ["c"], "join", axis=1),
            helper.make_node("Slice", ["c", "from", "to", "axes"], ["m"], "half"),
        ]
        ends = {"from": np.array([4]), "to": np.array([12]), "axes": np.array([1])}
        return between(*nodes, **ends, low=np.float32(low), high=np.float32(high))

    return make


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    **NETS,
    "parts of unlike width": relu_between_scales,
    "fixed scales in one group": gates,
    "a clip that an operator carries": clipped_sum(-1, 1),
    "a clip that none carries": clipped_sum(-0.5, 0.75),
}


@pytest.mark.parametrize("name", FORMS)
def test_int8_computes_about_what_float_does(name: str, tmp_path: Path) -> None:
    case = _case(name)
    path = case.written(case.plan(TAKES_ALL), tmp_path)
    wanted = run(case.float_file(tmp_path), case.x)
    for optimise in (True, False):
        for mine, theirs in zip(run(path, case.x, optimise=optimise), wanted, strict=True):
            assert mine.shape == theirs.shape
            assert relative_error(mine, theirs) < 0.06


@pytest.mark.parametrize("name", FORMS)
def test_every_change_of_scale_is_said(name: str, tmp_path: Path) -> None:
    """Operators that move values read and write one scale, fixed scales are kept, nothing works on bare steps."""
    case = _case(name)
    graph = _Graph(case.written(case.plan(TAKES_ALL), tmp_path))
    for node in graph.nodes:
        if node.op_type in _MOVES and graph.is_int8(node):
            written = graph.written(node)
            assert all(graph.read(node, index) == written for index in graph.data(node))
        if node.op_type in _FIXED and graph.is_int8(node):
            assert graph.written(node) == (pytest.approx(_FIXED[node.op_type].scale), _FIXED[node.op_type].zero_point)
        if node.op_type == "Clip":
            maker = graph.maker(node.input[0])
            assert maker is None or maker.op_type != "QuantizeLinear", "a clip of steps has no TFLite form"


def test_what_tflite_clips_in_the_operator_before_stays_a_node(tmp_path: Path) -> None:
    carried, saturated = (
        _Graph(_case(name).written(_case(name).plan(TAKES_ALL), tmp_path))
        for name in ("a clip that an operator carries", "a clip that none carries")
    )
    assert [node.op_type for node in carried.nodes if node.op_type in {"Clip", "Relu"}] == ["Clip"]
    assert not [node for node in saturated.nodes if node.op_type in {"Clip", "Relu"}]


@pytest.mark.parametrize("name", ["hard swish", "hard sigmoid", "shared relu", "average pool"])
def test_operators_without_a_fast_int8_kernel_are_said_in_others(name: str, tmp_path: Path) -> None:
    case = _case(name)
    graph = _Graph(case.written(case.plan(TAKES_ALL), tmp_path))
    operators = [node.op_type for node in graph.nodes]
    assert not {"HardSwish", "HardSigmoid", "AveragePool"} & set(operators)
    for node in graph.nodes:
        if node.op_type == "Relu":
            maker = graph.maker(node.input[0])
            assert maker is not None
            assert maker.op_type == "Mul"


def test_a_gate_adds_only_ranges_that_follow_from_observed_ones(tmp_path: Path) -> None:
    case = _case("hard swish")
    steps = steps_in(case.written(case.plan(TAKES_ALL), tmp_path))
    added = {name: one for name, one in steps.items() if name.removesuffix("_quantized") not in case.encodings.tensors}
    ends = {(-zero * scale, (255 - zero) * scale) for scale, zero in added.values()}
    assert {low for low, _ in ends} == {0.0}
    # Steps of the sum end where the gate does, give or take the step by which its offset is one of them.
    assert sorted(high for _, high in ends) == pytest.approx([1.0, 6.0], rel=1 / 254)


def test_zero_lies_on_a_step_of_a_gates_sum(tmp_path: Path) -> None:
    """Half a step would make a tie of every zero behind a convolution, which kernels round differently."""
    case = _case("hard swish")
    steps = steps_in(case.written(case.plan(TAKES_ALL), tmp_path))
    added = {name: one for name, one in steps.items() if name.removesuffix("_quantized") not in case.encodings.tensors}
    (scale,) = (scale for scale, _ in added.values() if 200 * scale > 3)
    assert 3 / scale == pytest.approx(round(3 / scale), abs=1e-4)


def test_what_two_plans_hold_in_int8_has_one_scale_and_the_same_weights(tmp_path: Path) -> None:
    """Across formats too."""
    case = wide()
    for one, two in product([X86_AVX2], [*MEASURED[:2], TAKES_ALL]):
        files = [case.written(case.plan(profile), tmp_path) for profile in (one, two)]
        steps, others = (steps_in(path) for path in files)
        shared = set(steps) & set(others)
        assert len(shared) >= 3
        assert {name: steps[name] for name in shared} == {name: others[name] for name in shared}
        weights, other_weights = (weights_in(path) for path in files)
        assert set(weights) & set(other_weights)
        for name in set(weights) & set(other_weights):
            for mine, theirs in zip(weights[name], other_weights[name], strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_bounds_without_zero_and_volumes_stay_float() -> None:
    ends = {"low": np.float32(0.5), "high": np.float32(2)}
    beyond = Case(between(helper.make_node("Clip", ["a", "low", "high"], ["m"], "clip"), **ends), scale=2.0)
    made = beyond.plan(TAKES_ALL)
    assert not [unit for index, unit in enumerate(beyond.units) if index in made.int8 and unit.activation is not None]
    assert any("leave out 0" in reason for reason in made.reasons.values())
    volume = np.random.default_rng(0).normal(0, 0.1, (4, 1, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["v"], "volume"),
        helper.make_node("Conv", ["v", "w"], ["y"], "conv", kernel_shape=[3, 3, 3]),
    ]
    deep = Case(net(nodes, {"w": volume, "axis": np.array([1])}))
    assert any("on images alone" in reason for reason in deep.plan(TAKES_ALL).reasons.values())


def test_what_stays_float_between_int8_units_stays_it_in_the_file() -> None:
    """Or an operator would run in the very int8 kernel that the plan avoids."""
    case = _case("hard swish")
    made = case.plan(msgspec.structs.replace(TAKES_ALL, operators={"Conv.pointwise": _CHEAP}))
    assert case.names(made) == {"Conv"}
    written, _ = to_tflite(write_qdq(case.float, made), where="net")
    kinds = {one.code: written.main.tensors[one.outputs[0]].dtype for one in written.main.operators}
    assert kinds["CONV_2D"] == "int8"
    assert kinds["HARD_SWISH"] == "float32"


def test_a_fixed_scale_gives_way_to_a_group_that_goes_beyond() -> None:
    case = _case("fixed scales in one group")
    group = case.encodings.tensors["c"]
    assert group.low <= -0.9
    assert group.high >= 0.9
    assert _case("sigmoid").encodings.tensors["m"] == UNIT


@pytest.mark.parametrize("profile", MEASURED, ids=lambda profile: profile.name)
def test_measured_tables_are_whole(profile: Profile) -> None:
    """Every rewriting that a table names exists, and lines say something of each form."""
    case = _case("hard swish")
    assert write_qdq(case.float, case.plan(profile)) is not case.float
    if profile.speed == "measured":
        assert {"Conv.depthwise", "Conv.depthwise.wide", "MatMul.dynamic", "Resize.linear"} <= set(profile.operators)
        for name, cost in profile.operators.items():
            for line in (cost.in_float, cost.in_int8):
                assert all(part >= 0 for part in msgspec.structs.astuple(line)), name


def test_wide_windows_are_a_kind_of_their_own_where_a_table_tells_them_apart() -> None:
    weights = np.random.default_rng(0).normal(0, 0.1, (CHANNELS, 1, 7, 7)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", kernel_shape=[7, 7], pads=[3] * 4, group=CHANNELS)
    case = Case(net([node], {"w": weights}))
    assert kind(case.units[0]) == "Conv.depthwise.ragged.wide"
    assert X86_AVX2.entry("Conv.depthwise.ragged.wide") == X86_AVX2.entry("Conv.depthwise.ragged")
    assert X86_AVX2.entry("Conv.depthwise.wide") == X86_AVX2.entry("Conv.depthwise")


def _case(name: str) -> Case:
    return Case(FORMS[name](), scale=2.0)


class _Graph:
    """A written file, asked for the scales around its nodes."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(path).graph
        self.nodes = list(graph.node)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def maker(self, name: str) -> onnx.NodeProto | None:
        return self._makers.get(name)

    def is_int8(self, node: onnx.NodeProto) -> bool:
        readers = self._readers.get(node.output[0], [])
        return bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)

    def data(self, node: onnx.NodeProto) -> list[int]:
        return list(range(len(node.input))) if node.op_type == "Concat" else [0]

    def read(self, node: onnx.NodeProto, index: int) -> tuple[float, int]:
        maker = self._makers[node.input[index]]
        assert maker.op_type == "DequantizeLinear"
        return self._scale(maker)

    def written(self, node: onnx.NodeProto) -> tuple[float, int]:
        return self._scale(self._readers[node.output[0]][0])

    def _scale(self, node: onnx.NodeProto) -> tuple[float, int]:
        zero = self._held[node.input[2]]
        return float(self._held[node.input[1]]), int(zero) + (128 if zero.dtype == np.int8 else 0)
