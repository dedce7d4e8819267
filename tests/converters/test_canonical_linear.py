"""Convolutions, norms and fully connected layers: each pass alone."""

import numpy as np
import pytest

from tests.converters.canonical_graphs import Case, run

NORM = {"g": (4,), "s": (4,), "m": (4,), "v": np.array([0.5, 1, 2, 3], np.float32)}
FOLD = ("batch_norm_to_affine", "constants_right", "explicit_windows", "fold_affine")

CASES = {
    "batch norm after a convolution": Case(
        "(float[N,3,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, w) y = BatchNormalization(c, g, s, m, v) }",
        FOLD, {"Conv": 1}, {"w": (4, 3, 3, 3), **NORM},
    ),
    "batch norm after a convolution with bias and groups": Case(
        "(float[N,2,6,6] x) => (float[N,4,4,4] y) { c = Conv<group=2>(x, w, b) y = BatchNormalization(c, g, s, m, v) }",
        FOLD, {"Conv": 1}, {"w": (4, 1, 3, 3), "b": (4,), **NORM},
    ),
    "batch norm after a transposed convolution with groups": Case(
        "(float[N,4,3,3] x) => (float[N,4,5,5] y) "
        "{ c = ConvTranspose<group=2>(x, w) y = BatchNormalization(c, g, s, m, v) }",
        FOLD, {"ConvTranspose": 1}, {"w": (4, 2, 3, 3), **NORM},
    ),
    "batch norm after a fully connected layer": Case(
        "(float[N,3] x) => (float[N,4] y) { c = Gemm(x, w, b) y = BatchNormalization(c, g, s, m, v) }",
        FOLD, {"Gemm": 1}, {"w": (3, 4), "b": (4,), **NORM},
    ),
    "batch norm alone": Case(
        "(float[N,4,5,5] x) => (float[N,4,5,5] y) { y = BatchNormalization(x, g, s, m, v) }",
        FOLD, {"Mul": 1, "Add": 1}, NORM,
    ),
    "batch norm, but the convolution has two readers": Case(
        "(float[N,3,6,6] x) => (float[N,4,4,4] y) "
        "{ c = Conv(x, w) n = BatchNormalization(c, g, s, m, v) y = Add(n, c) }",
        FOLD, {"Conv": 1, "Mul": 1, "Add": 2}, {"w": (4, 3, 3, 3), **NORM},
    ),
    "batch norm, but the convolution is an output": Case(
        "(float[N,3,6,6] x) => (float[N,4,4,4] y, float[N,4,4,4] c) "
        "{ c = Conv(x, w) y = BatchNormalization(c, g, s, m, v) }",
        FOLD, {"Conv": 1, "Mul": 1, "Add": 1}, {"w": (4, 3, 3, 3), **NORM},
    ),
    "two convolutions share weights, one has a batch norm": Case(
        "(float[N,3,6,6] x) => (float[N,4,4,4] y) "
        "{ c = Conv(x, w) n = BatchNormalization(c, g, s, m, v) r = Relu(x) d = Conv(r, w) y = Add(n, d) }",
        FOLD, {"Conv": 2, "Relu": 1, "Add": 1}, {"w": (4, 3, 3, 3), **NORM},
    ),
    "batch norm whose convolution an If reads too": Case(
        "(float[N,3,6,6] x, bool[1] f) => (float[N,4,4,4] y, float[N,4,4,4] z) "
        "{ c = Conv(x, w) y = BatchNormalization(c, g, s, m, v) z = If(f) "
        "<then_branch = t () => (float[N,4,4,4] p) { p = Relu(c) }, "
        "else_branch = e () => (float[N,4,4,4] q) { q = Neg(c) }> }",
        FOLD, {"Conv": 1, "Mul": 1, "Add": 1, "If": 1}, {"w": (4, 3, 3, 3), **NORM},
    ),
    "scales and shifts per channel": Case(
        "(float[N,3,6,6] x) => (float[N,4,4,4] y) "
        "{ c = Conv(x, w) a = Mul(c, p) b = Sub(a, q) d = Div(b, two) y = Sub(one, d) }",
        FOLD, {"Conv": 1}, {"w": (4, 3, 3, 3), "p": (4, 1, 1), "q": (1, 4, 1, 1), "two": 2.0, "one": 1.0},
    ),
    "a shift along the width": Case(
        "(float[N,3,6,6] x) => (float[N,4,4,4] y) { c = Conv(x, w) y = Add(c, p) }",
        FOLD, {"Conv": 1, "Add": 1}, {"w": (4, 3, 3, 3), "p": (4,)},
    ),
    "a shift that adds an axis": Case(
        "(float[N,3,6,6] x) => (float[N,N,4,4,4] y) { c = Conv(x, w) y = Add(c, p) }",
        FOLD, {"Conv": 1, "Add": 1}, {"w": (4, 3, 3, 3), "p": (1, 1, 4, 1, 1)},
    ),
    "a product scaled": Case(
        "(float[N,5,3] x) => (float[N,5,4] y) { c = MatMul(x, w) y = Mul(c, p) }",
        FOLD, {"MatMul": 1}, {"w": (3, 4), "p": (4,)},
    ),
    "windows spelled out": Case(
        '(float[N,3,7,7] x) => (float[N,4,4,4] y) { y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w) }',
        ("explicit_windows",), {"Conv": 1}, {"w": (4, 3, 3, 3)},
    ),
    "SAME_LOWER of an average pool": Case(
        "(float[N,3,6,6] x) => (float[N,3,3,3] y) "
        '{ y = AveragePool<auto_pad="SAME_LOWER", kernel_shape=[3,3], strides=[2,2]>(x) }',
        ("explicit_windows",), {"AveragePool": 1},
    ),
    "SAME of a transposed convolution": Case(
        "(float[N,3,5,5] x) => (float[N,4,10,10] y) "
        '{ y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w) }',
        ("explicit_windows",), {"ConvTranspose": 1}, {"w": (3, 4, 3, 3)},
    ),
    "zeros padded before a convolution": Case(
        "(float[N,3,6,6] x) => (float[N,4,7,6] y) { p = Pad(x, pads) y = Conv(p, w) }",
        ("explicit_windows", "merge_pads"), {"Conv": 1}, {"w": (4, 3, 3, 3), "pads": [0, 0, 1, 0, 0, 0, 2, 2]},
    ),
    "zeros padded before an average pool": Case(
        "(float[N,3,6,6] x) => (float[N,3,7,7] y) { p = Pad(x, pads) y = AveragePool<kernel_shape=[2,2]>(p) }",
        ("explicit_windows", "merge_pads"), {"AveragePool": 1}, {"pads": [0, 0, 1, 1, 0, 0, 1, 1]},
    ),
    "zeros padded before a max pool": Case(
        "(float[N,3,6,6] x) => (float[N,3,7,7] y) { p = Pad(x, pads) y = MaxPool<kernel_shape=[2,2]>(p) }",
        ("explicit_windows", "merge_pads"), {"Pad": 1, "MaxPool": 1}, {"pads": [0, 0, 1, 1, 0, 0, 1, 1]},
    ),
    "ones padded before a convolution": Case(
        "(float[N,3,6,6] x) => (float[N,4,6,6] y) { p = Pad(x, pads, one) y = Conv(p, w) }",
        ("explicit_windows", "merge_pads"), {"Pad": 1, "Conv": 1},
        {"w": (4, 3, 3, 3), "pads": [0, 0, 1, 1, 0, 0, 1, 1], "one": 1.0},
    ),
    "edges repeated before a convolution": Case(
        '(float[N,3,6,6] x) => (float[N,4,6,6] y) { p = Pad<mode="edge">(x, pads) y = Conv(p, w) }',
        ("explicit_windows", "merge_pads"), {"Pad": 1, "Conv": 1},
        {"w": (4, 3, 3, 3), "pads": [0, 0, 1, 1, 0, 0, 1, 1]},
    ),
    "channels padded before a convolution": Case(
        "(float[N,3,6,6] x) => (float[N,4,4,4] y) { p = Pad(x, pads) y = Conv(p, w) }",
        ("explicit_windows", "merge_pads"), {"Pad": 1, "Conv": 1},
        {"w": (4, 4, 3, 3), "pads": [0, 0, 0, 0, 0, 1, 0, 0]},
    ),
    "a convolution over time": Case(
        "(float[N,3,16] x) => (float[N,4,7] y) { y = Conv<strides=[2], pads=[1,0]>(x, w, b) }",
        ("explicit_windows", "one_to_two_d"), {"Unsqueeze": 1, "Conv": 1, "Squeeze": 1}, {"w": (4, 3, 4), "b": (4,)},
    ),
    "a transposed convolution over time": Case(
        "(float[N,3,5] x) => (float[N,4,12] y) { y = ConvTranspose<strides=[2], output_padding=[1]>(x, w) }",
        ("explicit_windows", "one_to_two_d"), {"Unsqueeze": 1, "ConvTranspose": 1, "Squeeze": 1}, {"w": (3, 4, 3)},
    ),
    "a net over time": Case(
        "(float[N,3,16] x) => (float[N,4] y) { c = Conv(x, w) r = Relu(c) a = Add(r, s) "
        "p = MaxPool<kernel_shape=[2]>(a) d = Conv<pads=[1,1]>(p, v) e = Add(d, p) y = ReduceMean<keepdims=0>(e, "
        "two) }",
        ("explicit_windows", "one_to_two_d", "sink_squeezes", "merge_views"),
        {"Unsqueeze": 1, "Conv": 2, "Relu": 1, "Add": 2, "MaxPool": 1, "GlobalAveragePool": 1, "Squeeze": 1},
        {"w": (4, 3, 3), "s": (4, 1), "v": (4, 4, 3), "two": [2]},
    ),
    "Gemm with everything": Case(
        "(float[3,N] x) => (float[N,4] y) { y = Gemm<alpha=0.5, beta=2.0, transA=1, transB=1>(x, w, b) }",
        ("plain_gemm",), {"Transpose": 1, "Gemm": 1}, {"w": (4, 3), "b": (1, 4)}, sizes={"N": 5},
    ),
    "Gemm without bias": Case(
        "(float[N,3] x) => (float[N,4] y) { y = Gemm(x, w) }", ("plain_gemm",), {"Gemm": 1}, {"w": (3, 4)}
    ),
    "Gemm with a bias per row": Case(
        "(float[2,3] x) => (float[2,4] y) { y = Gemm(x, w, b) }",
        ("plain_gemm",), {"Gemm": 1, "Add": 1}, {"w": (3, 4), "b": (2, 1)},
    ),
    "Gemm with a computed bias": Case(
        "(float[N,3] x, float[4] b) => (float[N,4] y) { y = Gemm<beta=0.5>(x, w, b) }",
        ("plain_gemm",), {"Gemm": 1, "Mul": 1, "Add": 1}, {"w": (3, 4)},
    ),
    "Gemm of two computed matrices": Case(
        "(float[2,3] x, float[4,3] z) => (float[2,4] y) { y = Gemm<transB=1, alpha=2.0>(x, z, b) }",
        ("plain_gemm",), {"Transpose": 1, "MatMul": 1, "Mul": 1, "Add": 1}, {"b": (4,)},
    ),
    "a product of a matrix, and a bias": Case(
        "(float[N,3] x) => (float[N,4] y) { m = MatMul(x, w) y = Add(b, m) }",
        ("constants_right", "plain_gemm", "matmul_to_gemm", "fold_affine"), {"Gemm": 1}, {"w": (3, 4), "b": (4,)},
    ),
    "a product of higher rank keeps its shape": Case(
        "(float[N,5,3] x) => (float[N,5,4] y) { m = MatMul(x, w) y = Sub(m, b) }",
        ("matmul_to_gemm", "flat_matmul_bias"), {"MatMul": 1, "Add": 1}, {"w": (3, 4), "b": (1, 1, 4)},
    ),
    "a bias along another axis": Case(
        "(float[N,4,3] x) => (float[N,4,4] y) { m = MatMul(x, w) y = Add(m, b) }",
        ("matmul_to_gemm", "flat_matmul_bias"), {"MatMul": 1, "Add": 1}, {"w": (3, 4), "b": (4, 1)},
    ),
    "Reshape, Gemm, Reshape": Case(
        "(float[N,5,3] x) => (float[N,5,4] y) { f = Reshape(x, s) g = Gemm(f, w, b) y = Reshape(g, t) }",
        ("plain_gemm", "unfold_gemm"), {"MatMul": 1, "Add": 1},
        {"w": (3, 4), "b": (4,), "s": [-1, 3], "t": [-1, 5, 4]},
    ),
    "a gate of one row per sample stays a Gemm": Case(
        "(float[N,3,1,1] x) => (float[N,1,1,4] y) { f = Reshape(x, s) g = Gemm(f, w, b) y = Reshape(g, t) }",
        ("plain_gemm", "unfold_gemm"), {"Reshape": 2, "Gemm": 1},
        {"w": (3, 4), "b": (4,), "s": [-1, 3], "t": [-1, 1, 1, 4]},
    ),
    "Reshape, Gemm, Reshape that mixes channels": Case(
        "(float[N,6,3] x) => (float[N,3,8] y) { f = Reshape(x, s) g = Gemm(f, w, b) y = Reshape(g, t) }",
        ("plain_gemm", "unfold_gemm"), {"Reshape": 2, "Gemm": 1},
        {"w": (3, 4), "b": (4,), "s": [-1, 3], "t": [-1, 3, 8]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pass_keeps_outputs_and_reaches_its_form(case: Case) -> None:
    run(case)


def test_shared_weights_are_not_changed_for_the_other_reader() -> None:
    made = run(CASES["two convolutions share weights, one has a batch norm"])
    first, second = (node for node in made.graph if node.op_type == "Conv")
    assert first.inputs[1] is not second.inputs[1]


def test_a_folded_node_takes_the_name_of_the_node_whose_output_it_makes() -> None:
    made = run(CASES["batch norm after a convolution"])
    assert [node.name for node in made.graph] == ["batchnormalization1"]


def test_attributes_and_bias_of_a_convolution_are_spelled_out() -> None:
    made = run(CASES["windows spelled out"])
    (node,) = made.graph
    assert {name: item.value for name, item in node.attributes.items()} == {
        "kernel_shape": (3, 3), "strides": (2, 2), "dilations": (1, 1), "pads": (1, 1, 1, 1), "group": 1,
    }  # fmt: skip
    assert node.inputs[2] is not None
    assert not node.inputs[2].const_value.numpy().any()
