"""A graph means the same after it was brought to another opset: ONNX Runtime runs both and gives equal outputs."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, defs, helper, numpy_helper, parser

from converters.importers.opset import to_opset
from converters.importers.raising import ADAPTERS
from converters.ort import session
from lepton_edge.errors import ModelError, NotYetSupportedError, UnsupportedOperatorError
from tests.converters import models

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Weights = dict[str, np.ndarray]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def ran(model: onnx.ModelProto, feeds: Weights) -> list[np.ndarray]:
    return session(model.SerializeToString()).run(None, feeds)


def net(
    opset: int,
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str | None] | None,
    weights: Weights,
    outputs: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [onnx.ValueInfoProto(name=f"y{i or ''}") for i in range(outputs)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 3 if opset < 9 else 7 if opset < 16 else 8 if opset < 20 else 11
    if opset < 9:
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer)
        model.graph.CopyFrom(graph)
    found = onnx.shape_inference.infer_shapes(model)
    for value, known in zip(model.graph.output, found.graph.output, strict=True):
        value.CopyFrom(known)
        if not value.type.tensor_type.HasField("shape"):
            kind = value.type.tensor_type.elem_type or FLOAT
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, [None] * len(shape or [])))
    return model


@dataclass(frozen=True)
class Case:
    """One operator of an old opset: attributes, constant inputs after x, the shape of x."""

    opset: int
    op: str
    attributes: dict[str, object] = field(default_factory=dict)
    weights: Weights = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 3, 6, 6)
    outputs: int = 1
    positive: bool = False
    inputs: tuple[str, ...] | None = None

    def model(self, *, typed: bool = True) -> onnx.ModelProto:
        outputs = [f"y{i or ''}" for i in range(self.outputs)]
        inputs = self.inputs if self.inputs is not None else ("x", *self.weights)
        node = helper.make_node(self.op, inputs, outputs, "node", **self.attributes)
        return net(self.opset, [node], self.shape if typed else [None] * len(self.shape), self.weights, self.outputs)

    def feeds(self) -> Weights:
        x = rng().standard_normal(self.shape).astype(np.float32)
        return {"x": np.abs(x) + 0.1 if self.positive else x}


F32 = np.float32
NORM = {name: rng().uniform(0.5, 2, 3).astype(F32) for name in ("scale", "bias", "mean", "var")}
CASES = {
    "relu 7": Case(7, "Relu"),
    "batch norm 7": Case(7, "BatchNormalization", {"epsilon": 1e-3}, NORM),
    "batch norm 9": Case(9, "BatchNormalization", {}, NORM),
    "batch norm 13": Case(13, "BatchNormalization", {}, NORM),
    **{
        f"{op} {opset} axis {axis}": Case(opset, op, {} if axis is None else {"axis": axis})
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset, axis in ((7, None), (7, 0), (7, 2), (7, 3), (11, -1), (11, -2), (12, 1), (13, 1))
    },
    "softmax of a matrix": Case(9, "Softmax", {}, shape=(4, 5)),
    "clip 7": Case(7, "Clip", {"min": -0.5, "max": 0.7}),
    "clip 7 min": Case(7, "Clip", {"min": -0.5}),
    "clip 7 max": Case(10, "Clip", {"max": 0.5}),
    "clip 7 bare": Case(10, "Clip"),
    "dropout 7": Case(7, "Dropout", {"ratio": 0.3}),
    "dropout 10": Case(10, "Dropout", {"ratio": 0.3}),
    "pad 7": Case(7, "Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 1.5}),
    "pad 7 edge": Case(7, "Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "edge"}),
    "pad 9 reflect": Case(9, "Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "reflect"}),
    "pad 10 off": Case(10, "Pad", {"pads": [0, 0, -1, 0, 0, 0, 0, -2]}),
    "slice 7": Case(7, "Slice", {"starts": [1, -3], "ends": [9, -1], "axes": [1, 3]}),
    "slice 9 without axes": Case(9, "Slice", {"starts": [0, 1], "ends": [1, 2147483647]}),
    "split 7": Case(7, "Split", {"axis": 2, "split": [1, 5]}, outputs=2),
    "split 11 even": Case(11, "Split", {"axis": 3}, outputs=3),
    "split 13 even": Case(13, "Split", {"axis": 3}, outputs=2),
    "split 13": Case(13, "Split", {"axis": 3}, {"s": np.array([4, 2])}, outputs=2),
    "squeeze 7": Case(7, "Squeeze", {"axes": [1]}, shape=(3, 1, 4, 1)),
    "squeeze 11 all": Case(11, "Squeeze", shape=(3, 1, 4, 1)),
    "unsqueeze 7": Case(7, "Unsqueeze", {"axes": [1, 4]}),
    "unsqueeze 11": Case(11, "Unsqueeze", {"axes": [-1]}),
    "topk 7": Case(7, "TopK", {"k": 3, "axis": 2}, outputs=2),
    "topk 9": Case(9, "TopK", {"k": 2}, outputs=2),
    **{
        f"{op} {opset}": Case(opset, op, {"keepdims": keep} | ({"axes": axes} if axes else {}), positive=True)
        for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
                   "ReduceProd", "ReduceSum", "ReduceSumSquare")
        for opset, axes, keep in ((7, [1, 3], 0), (11, [-1], 1), (12, None, 0), (17, [2, 3], 1))
        if not (op == "ReduceSum" and opset == 17)
    },
    "reduce sum 13": Case(13, "ReduceSum", {"keepdims": 0}, {"axes": np.array([1])}),
    "upsample 7": Case(7, "Upsample", {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}),
    "upsample 7 linear": Case(7, "Upsample", {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"}),
    "upsample 9": Case(9, "Upsample", {"mode": "nearest"}, {"s": np.array([1, 1, 2, 2], F32)}),
    "upsample 9 fraction": Case(9, "Upsample", {"mode": "linear"}, {"s": np.array([1, 1, 1.5, 2.5], F32)}),
    "resize 10": Case(10, "Resize", {}, {"s": np.array([1, 1, 1.7, 2.3], F32)}),
    "resize 10 shrinks": Case(10, "Resize", {}, {"s": np.array([1, 1, 0.6, 0.4], F32)}),
    "resize 10 both": Case(10, "Resize", {}, {"s": np.array([1, 1, 0.6, 1.9], F32)}),
    "resize 10 linear": Case(10, "Resize", {"mode": "linear"}, {"s": np.array([1, 1, 0.6, 1.7], F32)}),
    **{
        f"resize 11 {mode} {how}": Case(
            11, "Resize", {"mode": mode, "coordinate_transformation_mode": how},
            {"roi": np.zeros(0, F32), "s": np.array([1, 1, 0.7, 1.9], F32)},
        )
        for mode in ("nearest", "linear", "cubic")
        for how in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    },
    "resize 11 sizes": Case(
        11, "Resize", {"mode": "linear"},
        {"roi": np.zeros(0, F32), "s": np.zeros(0, F32), "z": np.array([2, 3, 9, 4])},
    ),
    "resize 11 crop": Case(
        11, "Resize", {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
        {"roi": np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9], F32), "s": np.array([1, 1, 1.5, 2], F32)},
    ),
    "resize 11 tf half pixel": Case(
        11, "Resize", {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"},
        {"roi": np.zeros(0, F32), "s": np.array([1, 1, 0.7, 1.9], F32)},
    ),
    "resize 13": Case(13, "Resize", {"mode": "cubic"}, {"s": np.array([1, 1, 2, 2], F32)}, inputs=("x", "", "s")),
    "scatter 9": Case(
        9, "Scatter", {"axis": 1}, {"i": np.array([[2, 0]], np.int64), "u": np.array([[9, 8]], F32)}, shape=(1, 4)
    ),
    "roi align 10": Case(
        10, "RoiAlign", {"output_height": 2, "output_width": 2, "spatial_scale": 0.7},
        {"r": np.array([[0.3, 0.4, 5, 4.2], [1, 1, 3, 5]], F32), "b": np.array([0, 1])},
    ),
    **{
        f"grid sample 16 {mode}": Case(
            16, "GridSample", {"mode": mode, "align_corners": 1},
            {"grid": rng().uniform(-1.2, 1.2, (2, 4, 5, 2)).astype(F32)},
        )
        for mode in ("bilinear", "nearest", "bicubic")
    },
    "dft 17": Case(17, "DFT", {"axis": 1}, shape=(1, 8, 1)),
    "average pool 7": Case(7, "AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "average pool 10 ceil": Case(
        10, "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
    ),
    "average pool 11 padded": Case(
        11, "AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "count_include_pad": 1}
    ),
    "average pool same": Case(
        7, "AveragePool", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, shape=(1, 2, 7, 5)
    ),
    "max pool 7": Case(7, "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "max pool 10 ceil": Case(10, "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "lp pool 7": Case(7, "LpPool", {"kernel_shape": [2, 2], "p": 2}),
    "lrn": Case(7, "LRN", {"size": 3}),
    "conv 7": Case(7, "Conv", {}, {"w": rng().standard_normal((4, 3, 3, 3)).astype(F32)}),
    "conv transpose 7": Case(
        7, "ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"w": rng().standard_normal((3, 4, 3, 3)).astype(F32)},
    ),
    "conv transpose 7 shaped": Case(
        7, "ConvTranspose", {"strides": [2, 2], "output_shape": [11, 12]},
        {"w": rng().standard_normal((3, 4, 3, 3)).astype(F32)},
    ),
    "gemm 7": Case(
        7, "Gemm", {"alpha": 0.5, "transB": 1},
        {"w": rng().standard_normal((4, 5)).astype(F32), "b": np.ones(4, F32)}, shape=(2, 5),
    ),
    "depth to space 7": Case(7, "DepthToSpace", {"blocksize": 2}, shape=(1, 8, 2, 3)),
    "flatten 9": Case(9, "Flatten", {"axis": 2}),
    "lstm 7": Case(
        7, "LSTM", {"hidden_size": 4},
        {"w": rng().standard_normal((1, 16, 3)).astype(F32), "r": rng().standard_normal((1, 16, 4)).astype(F32)},
        shape=(5, 2, 3),
    ),
    "gru 7": Case(
        7, "GRU", {"hidden_size": 4, "linear_before_reset": 1},
        {"w": rng().standard_normal((1, 12, 3)).astype(F32), "r": rng().standard_normal((1, 12, 4)).astype(F32)},
        shape=(5, 2, 3),
    ),
    "prelu 7": Case(7, "PRelu", {}, {"s": np.array([[[0.1]], [[0.2]], [[0.3]]], F32)}),
    "arg max 7": Case(7, "ArgMax", {"axis": 1, "keepdims": 0}),
    "gather 7": Case(7, "Gather", {"axis": 2}, {"i": np.array([[0, 5], [2, 1]])}),
    "relu 23": Case(23, "Relu"),
    "average pool 22": Case(22, "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "group norm 18": Case(
        18, "GroupNormalization", {"num_groups": 3}, {"s": np.array([1, 2, 3], F32), "b": np.ones(3, F32)}
    ),
    "group norm 21": Case(
        21, "GroupNormalization", {"num_groups": 2},
        {"s": np.array([1, 2, 3, 4], F32), "b": np.ones(4, F32)}, shape=(2, 4, 3, 3),
    ),
    "rms norm 23": Case(23, "RMSNormalization", {"axis": -1}, {"s": np.arange(1, 7).astype(F32)}),
    "swish 24": Case(24, "Swish", {"alpha": 1.5}),
    "swish 24 bare": Case(24, "Swish"),
    "attention 23": Case(
        23, "Attention", {"q_num_heads": 2, "kv_num_heads": 2}, shape=(2, 5, 8), inputs=("x", "x", "x")
    ),
    "attention 23 causal": Case(
        23, "Attention", {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1}, shape=(2, 5, 8), inputs=("x", "x", "x")
    ),
    "rotary 23": Case(
        23, "RotaryEmbedding", {},
        {"c": rng().standard_normal((2, 5, 4)).astype(F32), "s": rng().standard_normal((2, 5, 4)).astype(F32)},
        shape=(2, 3, 5, 8),
    ),
    "quantize 21": Case(21, "QuantizeLinear", {}, {"s": np.float32(0.1), "z": np.int8(3)}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_same_answers_at_opset_20(case: Case) -> None:
    model = case.model()
    raised = to_opset(model, where="net")
    assert [(entry.domain, entry.version) for entry in raised.opset_import] == [("", 20)]
    assert raised.ir_version <= 9
    assert not raised.functions
    checker.check_model(raised, full_check=True)
    for got, want in zip(ran(raised, case.feeds()), ran(model, case.feeds()), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.opset < 20])
def test_the_same_answers_where_no_size_is_known(name: str) -> None:
    case = CASES[name]
    model = case.model(typed=False)
    raised = to_opset(model, where="net")
    for got, want in zip(ran(raised, case.feeds()), ran(model, case.feeds()), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


def attributes_and_slots(schema: defs.OpSchema) -> tuple[dict[str, bytes], list[str], list[str]]:
    defaults = {name: entry.default_value.SerializeToString() for name, entry in schema.attributes.items()}
    return defaults, [slot.option.name for slot in schema.inputs], [slot.option.name for slot in schema.outputs]


def harmless(old: defs.OpSchema, new: defs.OpSchema) -> bool:
    """Whether a node of the old version is one of the new by its form: nothing gone, nothing else by default."""
    (before, ins, outs), (after, new_ins, new_outs) = attributes_and_slots(old), attributes_and_slots(new)
    same = all(after.get(name) == value for name, value in before.items())
    required = any(new.attributes[name].required for name in after.keys() - before.keys())
    loose = [option.replace("Single", "Optional") for option in ins] == [
        option.replace("Single", "Optional") for option in new_ins[: len(ins)]
    ]
    added = all(option == "Optional" for option in (*new_ins[len(ins) :], *new_outs[len(outs) :]))
    return same and not required and loose and added and outs == new_outs[: len(outs)] and not new.deprecated


def test_every_change_of_form_up_to_opset_20_has_an_adapter() -> None:
    history: dict[str, list[defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.domain:
            history.setdefault(schema.name, []).append(schema)
    missing = []
    for name, versions in history.items():
        ordered = sorted(versions, key=lambda schema: schema.since_version)
        for old, new in itertools.pairwise(ordered):
            adapted = (name, new.since_version) in ADAPTERS
            if 7 < new.since_version <= 20 and not adapted and not harmless(old, new):
                missing.append(f"{name} {new.since_version}")
    assert missing == []


@pytest.mark.parametrize("shape", [["n", 3, 6, 6], [None] * 4])
def test_a_scale_that_is_computed_may_shrink_and_enlarge(shape: list[int | str | None]) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=FLOAT),
        helper.make_node("Div", ["target", "f"], ["scales"]),
        helper.make_node("Resize", ["x", "scales"], ["y"], "resize"),
    ]
    model = net(10, nodes, shape, {"target": np.array([2, 3, 4, 9], F32)}, 1)
    x = {"x": rng().standard_normal((2, 3, 6, 6)).astype(F32)}
    np.testing.assert_array_equal(ran(to_opset(model, where="net"), x)[0], ran(model, x)[0])


FUNCTIONS = """
<ir_version: 9, opset_import: ["" : {opset}, "local" : 1]>
main (float[N, 4] x) => (float[N, 4] y)
{{
   a = local.twice <slope: float = 0.25> (x)
   flag = Constant <value: tensor = bool {{1}}> ()
   y = If (flag) <
      then_branch = t () => (float[N, 4] t) {{ t = local.twice (a) }},
      else_branch = e () => (float[N, 4] e) {{ e = Identity (a) }}
   >
}}
<domain: "local", opset_import: ["" : {inner}]>
leaky <alpha> (p) => (q) {{ r = LeakyRelu <alpha: float = @alpha> (p)  q = {soft} (r) }}
<domain: "local", opset_import: ["" : {inner}, "local" : 1]>
twice <slope: float = 0.5> (x) => (z)
{{
   m = local.leaky <alpha: float = @slope> (x)
   n = Neg (m)
   z = local.leaky <alpha: float = @slope> (n)
}}
"""


@pytest.mark.parametrize(("opset", "inner"), [(17, 17), (20, 20), (22, 22), (17, 18), (21, 18)])
def test_functions_within_functions_and_branches_are_written_out(opset: int, inner: int) -> None:
    model = parser.parse_model(FUNCTIONS.format(opset=opset, inner=inner, soft="Softmax"))
    raised = to_opset(model, where="net")
    assert not raised.functions
    assert {entry.domain for entry in raised.opset_import} == {""}
    checker.check_model(raised, full_check=True)
    x = {"x": rng().standard_normal((3, 4)).astype(F32)}
    same = parser.parse_model(FUNCTIONS.format(opset=opset, inner=opset, soft="Softmax"))
    np.testing.assert_allclose(ran(raised, x)[0], ran(same, x)[0], rtol=1e-6)


def test_a_function_of_an_older_opset_keeps_its_meaning() -> None:
    def nested(opset: int, soft: str) -> onnx.ModelProto:
        text = FUNCTIONS.format(opset=18, inner=opset, soft=soft).replace("N, 4", "N, 2, 4")
        return parser.parse_model(text)

    raised = to_opset(nested(12, "Softmax <axis: int = 1>"), where="net")
    checker.check_model(raised, full_check=True)
    assert "Flatten" in {node.op_type for node in raised.graph.node}
    x = {"x": rng().standard_normal((3, 2, 4)).astype(F32)}
    assert not np.allclose(ran(raised, x)[0], ran(nested(18, "Softmax <axis: int = 1>"), x)[0])
    assert ran(raised, x)[0].sum() == pytest.approx(3, rel=1e-5)


def test_nested_bodies_are_raised_too() -> None:
    body = helper.make_graph(
        [helper.make_node("Squeeze", ["x"], ["s"], axes=[1]), helper.make_node("Softmax", ["s"], ["t"])],
        "then", [], [helper.make_tensor_value_info("t", FLOAT, ["n", 4])],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("ReduceMax", ["x"], ["e"], axes=[1], keepdims=0)],
        "else", [], [helper.make_tensor_value_info("e", FLOAT, ["n", 4])],
    )  # fmt: skip
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], "if", then_branch=body, else_branch=other),
    ]
    model = net(11, nodes, ["n", 1, 4], {"zero": np.zeros((), F32)}, 1)
    raised = to_opset(model, where="net")
    for sign in (1, -1):
        x = {"x": sign * np.abs(rng().standard_normal((3, 1, 4))).astype(F32)}
        np.testing.assert_allclose(ran(raised, x)[0], ran(model, x)[0], rtol=1e-6)


def test_other_domains_pass_through() -> None:
    nodes = [
        helper.make_node("FusedMatMul", ["x", "w"], ["m"], "fused", domain="com.microsoft", transB=1),
        helper.make_node("Squeeze", ["m"], ["y"], axes=[1]),
    ]
    model = net(11, nodes, ["n", 1, 4], {"w": rng().standard_normal((5, 4)).astype(F32)}, 1)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, ["n", 5]))
    raised = to_opset(model, where="net")
    assert raised.graph.node[0] == model.graph.node[0]
    x = {"x": rng().standard_normal((3, 1, 4)).astype(F32)}
    np.testing.assert_array_equal(ran(raised, x)[0], ran(model, x)[0])


def test_nothing_to_do_gives_the_same_object() -> None:
    model = models.conv_net(opset=20)
    assert to_opset(model, where="net") is model


@pytest.mark.parametrize("opset", range(7, 24))
def test_the_model_given_is_not_changed(opset: int) -> None:
    model = models.conv_net(opset=opset)
    before = model.SerializeToString()
    raised = to_opset(model, where="net")
    assert model.SerializeToString() == before
    x = {"x": rng().standard_normal((2, 3, 8, 8)).astype(F32)}
    np.testing.assert_allclose(ran(raised, x)[0], ran(model, x)[0], rtol=1e-5)


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], type[ModelError], str]] = {
    "too old": (Case(6, "Relu").model, NotYetSupportedError, "opset 6: the oldest that is read is 7"),
    "unknown": (
        lambda: helper.make_model(Case(20, "Relu").model().graph, opset_imports=[helper.make_opsetid("", 999)]),
        NotYetSupportedError, "opset 999",
    ),
    "training": (
        Case(9, "BatchNormalization", {}, NORM, outputs=3).model, UnsupportedOperatorError, "'node'.*training mode"
    ),
    "per pixel": (Case(8, "BatchNormalization", {"spatial": 0}, NORM).model, NotYetSupportedError, "spatial = 0"),
    "new without a form": (
        Case(24, "TensorScatter", {"axis": 2}, {"u": np.zeros((2, 3, 1, 6), F32), "i": np.array([0, 1])}).model,
        UnsupportedOperatorError, "'TensorScatter': it came with opset 24.*export the model with opset 20",
    ),
    "new attribute": (
        Case(21, "QuantizeLinear", {"block_size": 2}, {"s": np.full((2, 3, 6, 3), 0.1, F32)}).model,
        UnsupportedOperatorError, "attribute 'block_size' came with opset 21",
    ),
    "new type": (
        lambda: parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 22]> g (bfloat16[2] x) => (bfloat16[2] y) { y = Sin (x) }'
        ),
        UnsupportedOperatorError, "takes no tensor.bfloat16.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "says"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_form_is_refused(make: Callable[[], onnx.ModelProto], kind: type[ModelError], says: str) -> None:
    with pytest.raises(kind, match=says) as error:
        to_opset(make(), where="net.onnx")
    assert "net.onnx" in str(error.value)


def calls(*pairs: tuple[str, str, int]) -> onnx.ModelProto:
    """A model whose function `a` is called; each (name, callee, count) is a function that calls another so often."""
    functions = [
        helper.make_function(
            "f", name, ["x"], ["y"],
            [helper.make_node(callee, ["x" if i == 0 else f"t{i}"], [f"t{i + 1}" if i + 1 < count else "y"],
                              domain="" if callee == "Neg" else "f") for i in range(count)],
            [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)],
        )
        for name, callee, count in pairs
    ]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("a", ["x"], ["y"], domain="f")], "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n"])], [helper.make_tensor_value_info("y", FLOAT, ["n"])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets)


def test_functions_that_never_end_are_refused() -> None:
    with pytest.raises(ModelError, match="calls itself"):
        to_opset(calls(("a", "b", 1), ("b", "a", 1)), where="net")
    names = "abcdefghijklmnopqrst"
    bomb = calls(*((name, names[i + 1] if i + 1 < len(names) else "Neg", 10) for i, name in enumerate(names)))
    with pytest.raises(ModelError, match=r"written out give .* nodes"):
        to_opset(bomb, where="net")


def test_functions_that_call_deep_down() -> None:
    names = [f"n{i}" for i in range(3000)]
    names[0] = "a"
    chain = calls(*((name, names[i + 1] if i + 1 < len(names) else "Neg", 1) for i, name in enumerate(names)))
    with pytest.raises(ModelError, match="deep"):
        to_opset(chain, where="net")


UNLIKE = {
    # random by meaning
    "bernoulli", "dropout", "randomnormal", "randomuniform", "multinomial",
    # ONNX Runtime's own kernel writes the lowest float where ONNX's reference, and the expanded function, have -inf
    "attention_4d_with_past_and_present_qk_matmul_bias",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_own_node_tests_give_the_same_at_opset_20() -> None:
    """Every node test of opset 7 to 23 that the installed onnx brings, where ONNX Runtime runs it before and after."""
    from onnx.backend.test.case.node import collect_testcases

    equal, wrong, refused = 0, [], set()
    for case in collect_testcases(None):
        version = max((entry.version for entry in case.model.opset_import if not entry.domain), default=0)
        if not 7 <= version <= 23 or not case.data_sets or any(name in case.name for name in UNLIKE):
            continue
        feeds = dict(zip((value.name for value in case.model.graph.input), case.data_sets[0][0], strict=False))
        try:
            want = ran(case.model, feeds)
        except Exception:  # noqa: BLE001 - what ONNX Runtime does not run says nothing here
            continue
        try:
            got = ran(to_opset(case.model, where=case.name), feeds)
        except ModelError as error:
            refused.add(getattr(error, "operator", str(error).partition("Scan of opset 8")[1] or str(error)))
            continue
        same = close(got, want)
        equal += same
        wrong += [] if same else [case.name]
    assert wrong == []
    assert equal > 500
    assert refused <= {"QuantizeLinear", "DequantizeLinear", "Cast", "CastLike", "QLinearMatMul", "Scan of opset 8"}


def close(got: object, want: object) -> bool:
    if isinstance(got, list | tuple):
        return len(got) == len(want) and all(close(a, b) for a, b in zip(got, want, strict=True))
    if np.asarray(got).dtype.kind not in "fc":
        return np.array_equal(got, want)
    return np.shape(got) == np.shape(want) and np.allclose(got, want, rtol=1e-3, atol=1e-4, equal_nan=True)
