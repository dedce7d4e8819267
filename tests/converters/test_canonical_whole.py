"""Whole nets through all passes: equal outputs, the contract's forms, the same result each time."""

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.graph.canonical import canonicalise
from converters.graph.canonical.table import MAX_ROUNDS, run_passes
from converters.graph.shapes import shape_of, with_batch
from converters.graph.work import node_macs
from lepton_edge.errors import ModelError
from tests.converters import models
from tests.converters.canonical_graphs import BY_NAME, Case, counts, graph, run
from tests.converters.equality import largest_difference, random_inputs

CONV = {"Conv": 2, "Relu": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
NETS = {
    "convolutions, batch norm, mean": (models.conv_net, CONV),
    "the same of opset 11": (
        lambda: models.conv_net(opset=11), CONV),
    "the same without a named batch": (
        lambda: models.conv_net(batch="", side=6), CONV),
    "token indices": (models.text_net, {"Gather": 1, "ReduceMean": 1, "Gemm": 1}),
    "a recurrence": (models.lstm_net, {"Transpose": 1, "LSTM": 1}),
    "nothing but softmax": (models.no_weights_net, {"Softmax": 1}),
    "half precision": (models.half_net, {"Gemm": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("make", "left"), NETS.values(), ids=NETS)
def test_net_reaches_its_form_with_equal_outputs(make, left) -> None:
    source = make()
    made = canonicalise(source, where="net")
    assert counts(made) == left
    assert made.opset_imports[""] == 20
    assert not made.functions
    for batch in (1, 3):
        assert largest_difference(source, made, random_inputs(source, batch, batch=batch)) <= 1e-5


def test_canonical_form_of_a_canonical_graph_is_itself() -> None:
    once = canonicalise(models.conv_net(), where="net")
    proto = ir.serde.serialize_model(once)
    again = canonicalise(proto, where="net")
    assert ir.serde.serialize_model(again).graph.node == proto.graph.node


def test_two_runs_give_the_same_bytes() -> None:
    first, second = (ir.serde.serialize_model(canonicalise(models.conv_net(), where="net")) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_source_is_not_changed() -> None:
    source = models.conv_net()
    before = source.SerializeToString(deterministic=True)
    canonicalise(source, where="net")
    assert source.SerializeToString(deterministic=True) == before


def test_batch_stays_a_symbol_and_every_value_has_type_and_shape() -> None:
    made = canonicalise(models.conv_net(), where="net")
    for node in made.graph:
        for value in node.outputs:
            assert value.dtype == ir.DataType.FLOAT
            shape = shape_of(value)
            assert shape is not None
            assert shape[0] is None
            assert None not in shape[1:]
            assert with_batch(value, 2) == (2, *shape[1:])


def test_inputs_that_are_constants_too_are_inputs_no_more() -> None:
    source = models.conv_net()
    source.ir_version = 3
    for tensor in source.graph.initializer:
        source.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    made = canonicalise(source, where="old")
    assert [value.name for value in made.graph.inputs] == ["x"]
    assert counts(made) == CONV


def test_invalid_graph_is_refused_by_name() -> None:
    source = graph("(float[N,3] x) => (float[N,4] y) { y = Gemm(x, w) }", {"w": (5, 4)})
    with pytest.raises(ModelError, match="net"):
        canonicalise(source, where="net")


def test_multiplications_of_a_node_are_counted_at_batch_one() -> None:
    made = canonicalise(models.conv_net(), where="net")
    first, second = (node_macs(node) for node in made.graph if node.op_type == "Conv")
    (head,) = (node_macs(node) for node in made.graph if node.op_type == "Gemm")
    wide = models.WIDTH
    assert first == 8 * 8 * wide * 3 * 3 * 3
    assert second == 8 * 8 * wide * wide * 3 * 3
    assert head == wide * 4
    assert all(node_macs(node) == 0 for node in made.graph if node.op_type == "Relu")


def test_work_of_products_recurrences_and_transposed_convolutions() -> None:
    text = "(float[N,5,3] x) => (float[N,5,4] y) { y = MatMul(x, w) }"
    (node,) = canonicalise(graph(text, {"w": (3, 4)}), where="net").graph
    assert node_macs(node) == 5 * 3 * 4
    text = "(float[N,3,5,5] x) => (float[N,4,6,6] y) { y = ConvTranspose(x, w) }"
    (node,) = canonicalise(graph(text, {"w": (3, 4, 2, 2)}), where="net").graph
    assert node_macs(node) == 3 * 5 * 5 * 4 * 2 * 2
    lstm = next(node for node in canonicalise(models.lstm_net(), where="net").graph if node.op_type == "LSTM")
    assert node_macs(lstm) == 5 * (128 * 16 + 128 * 32)


def test_passes_settle_long_before_the_cap() -> None:
    made = canonicalise(models.conv_net(), where="net")
    assert run_passes(made) <= 2 < MAX_ROUNDS


ATTENTION = (
    "(float[N,6,8] x) => (float[N,6,8] y) { s = Shape(x) b = Gather(s, zero) u = Unsqueeze(b, axes) "
    "t = Concat<axis=0>(u, six, two, four) q0 = MatMul(x, wq) q1 = Reshape(q0, t) q = Transpose<perm=[0,2,1,3]>(q1) "
    "k0 = MatMul(x, wk) k1 = Reshape(k0, t) k = Transpose<perm=[0,2,3,1]>(k1) v0 = MatMul(x, wv) v1 = Reshape(v0, t) "
    "v = Transpose<perm=[0,2,1,3]>(v1) a = MatMul(q, k) c = Div(a, root) p = Softmax<axis=-1>(c) o = MatMul(p, v) "
    "r = Transpose<perm=[0,2,1,3]>(o) f = Reshape(r, flat) g = Gemm(f, wo, bo) back = Concat<axis=0>(u, six, eight) "
    "y = Reshape(g, back) }"
)


def test_attention_keeps_known_shapes_with_an_open_batch() -> None:
    weights = dict.fromkeys(("wq", "wk", "wv", "wo"), (8, 8)) | {
        "bo": (8,), "zero": 0, "axes": [0], "six": [6], "two": [2], "four": [4], "eight": [8], "root": 2.0,
        "flat": [-1, 8],
    }  # fmt: skip
    source = graph(ATTENTION, weights)
    made = canonicalise(source, where="attention")
    left = counts(made)
    assert "Shape" not in left
    assert "Gemm" not in left
    assert left["MatMul"] == 6
    assert left["Transpose"] == 4
    assert all(with_batch(value) is not None for node in made.graph for value in node.outputs)
    for batch in (1, 3):
        assert largest_difference(source, made, random_inputs(source, batch, batch=batch)) <= 1e-5


UNUSUAL = {
    "sequences": Case(
        "(float[N,4] x) => (float[M,4] y) { s = SequenceConstruct(x, x) y = ConcatFromSequence<axis=0>(s) }",
        (), {"Concat": 1}),
    "an optional": Case(
        "(float[N,4] x) => (bool y) { o = Optional(x) y = OptionalHasElement(o) }",
        (), {"Optional": 1, "OptionalHasElement": 1}),
    "a scan": Case(
        "(float[3,4] x) => (float[4] y, float[3,4] z) { y, z = Scan<num_scan_inputs=1, body = b "
        "(float[4] s, float[4] i) => (float[4] o, float[4] p) { o = Add(s, i) p = Mul(o, c) }>(h, x) }",
        (), {"Scan": 1}, {"c": 2.0, "h": (4,)}),
    "an If that reads folded values, with an If inside": Case(
        "(float[N,4] x, bool[1] f) => (float[N,4] y) { v = Mul(w, w) g = MatMul(x, v) y = If(f) "
        "<then_branch = a () => (float[N,4] p) { q = Neg(g) p = If(t) <then_branch = c () => (float[N,4] r) "
        "{ r = MatMul(q, v) }, else_branch = d () => (float[N,4] s) { s = Neg(q) }> }, "
        "else_branch = b () => (float[N,4] u) { u = Mul(g, w) }> }", (), {"Gemm": 1, "If": 1},
        {"w": (4, 4), "t": np.ones((), np.bool_)}),
    "an If whose branch is its input": Case(
        "(float[N,4] x) => (float[N,4] y) { y = If(t) <then_branch = a () => (float[N,4] p) { p = Identity(x) }, "
        "else_branch = b () => (float[N,4] q) { q = Neg(x) }> }", (), {"Identity": 1}, {"t": np.ones((), np.bool_)}),
    "outputs that are inputs and constants": Case(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z, float[2] c) "
        "{ y = Identity(x) z = Identity(y) c = Identity(k) }",
        (), {"Identity": 3}, {"k": (2,)}),
    "SAME over open axes": Case(
        '(float[N,3,H,W] x) => (float[N,4,P,Q] y) { y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w) }',
        (), {"Conv": 1}, {"w": (4, 3, 3, 3)}, sizes={"H": 7, "W": 8}),
    "an axis of size 0": Case(
        "(float[N,4] x) => (float[N,0] y) { a = Slice(x, b, b, o) y = Relu(a) }", (), {"Slice": 1, "Relu": 1},
        {"b": [0], "o": [1]}),
    "dynamic quantisation": Case(
        "(float[N,2,4,4] x) => (float[N,2,4,4] y) { a, s, z = DynamicQuantizeLinear(x) b = ConvInteger(a, w, z) "
        "c = Cast<to=1>(b) y = Mul(c, s) }", (),
        {"ReduceMin": 1, "ReduceMax": 1, "Clip": 2, "Relu": 1, "Sub": 3, "Mul": 2, "Equal": 1, "Where": 1, "Div": 1,
         "Round": 1, "Cast": 3, "QuantizeLinear": 1, "Conv": 1}, {"w": np.ones((2, 2, 1, 1), np.int8)}),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_graph_survives_all_passes(case: Case) -> None:
    run(Case(case.text, tuple(BY_NAME), case.left, case.weights, case.opset, case.sizes))


def test_unknown_operators_of_other_domains_stay() -> None:
    source = graph("(float[N,4,4] x) => (float[N,4,4] y) { a = com.microsoft.Inverse(x) y = Relu(a) }")
    source.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    made = canonicalise(source, where="net")
    assert counts(made) == {"Inverse": 1, "Relu": 1}
    assert largest_difference(source, made, random_inputs(source, 0)) == 0


def test_a_chain_that_doubles_at_every_step_is_read_in_time() -> None:
    steps = "".join(f"a{i + 1} = Add(a{i}, a{i}) t{i} = Tanh(a{i + 1}) b{i + 1} = Mul(b{i}, t{i}) " for i in range(200))
    text = f"(float[N,4] x) => (float[N,4] y) {{ a0 = Relu(x) b0 = Relu(x) {steps} y = Add(a200, b200) }}"
    started = time.process_time()
    canonicalise(graph(text), where="chain")
    assert time.process_time() - started < 10


def test_difference_is_relative_and_sees_what_is_not_finite() -> None:
    text = "(float[N,2] x) => (float[N,2] y) {{ y = {}(x, c) }}"
    double = graph(text.format("Mul"), {"c": 2.0})
    inputs = {"x": np.array([[1, -4]], np.float32)}
    assert largest_difference(double, double, inputs) == 0
    assert largest_difference(double, graph(text.format("Mul"), {"c": 2.5}), inputs) == pytest.approx(0.25)
    assert largest_difference(double, graph(text.format("Div"), {"c": 0.0}), inputs) == float("inf")


def test_random_inputs_follow_seed_batch_and_type() -> None:
    source = graph("(float[N,3,T] x, int64[N] i, bool[2] b) => (float[N,3,T] y) { y = Relu(x) }")
    first, again, other = (random_inputs(source, seed, batch=4, sizes={"T": 5}) for seed in (0, 0, 1))
    assert first["x"].shape == (4, 3, 5)
    assert first["i"].shape == (4,)
    assert first["b"].dtype == np.bool_
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])
    made = random_inputs(canonicalise(source, where="net"), 0, batch=4, sizes={"T": 5})
    assert np.array_equal(made["x"], first["x"])


@pytest.mark.parametrize("name", ["digits", "parity"])
def test_demo_nets_are_canonical_but_for_spelling(name: str) -> None:
    path = Path(__file__).parents[2] / "lepton_edge" / "demo" / f"{name}.onnx"
    source = onnx.load(path)
    made = canonicalise(source, where=str(path))
    assert counts(made) == {"Conv": 5, "Relu": 5, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert all(len(node.inputs) == 3 for node in made.graph if node.op_type == "Conv")
    assert largest_difference(source, made, random_inputs(source, 0, batch=2)) <= 1e-5
