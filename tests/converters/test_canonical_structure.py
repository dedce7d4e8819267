"""Constants, dead code, control flow, views and Transposes: each pass alone."""

import numpy as np
import onnx_ir as ir
import pytest

from converters.graph.canonical.run import load
from converters.graph.canonical.table import run_passes
from tests.converters.canonical_graphs import BY_NAME, Case, counts, graph, run

FOLD = ("constants_to_initialisers", "fold_sizes", "fold_constants", "drop_dead")
LAYOUT = ("transpose_to_reshape", "place_transposes")
IMAGE = "(float[N,5,6,3] x) => (float[N,5,6,4] y) "
TO_NCHW, TO_NHWC = "Transpose<perm=[0,3,1,2]>", "Transpose<perm=[0,2,3,1]>"
TRUE = np.ones((), np.bool_)
BODIES = (
    "<then_branch = a () => (float[N,4] p) { p = Relu(x) }, "
    "else_branch = e () => (float[N,4] q) { h = Mul(x, w) q = Neg(h) }>"
)

CASES = {
    "constants in nodes": Case(
        "(float[N,2] x) => (float[N,2] y) { c = Constant<value_floats=[1.0, 2.0]>() d = Constant<value_float=3.0>() "
        "e = Mul(c, d) y = Add(x, e) }", FOLD, {"Add": 1}),
    "a constant that is an output": Case(
        "(float[N,2] x) => (float[N,2] y, float[2] e) { e = Mul(c, c) y = Add(x, e) }", FOLD,
        {"Add": 1, "Identity": 1}, {"c": (2,)}),
    "a fresh random number per run": Case(
        "(float[N,2] x) => (float[N,2] y) { r = RandomNormal<shape=[2]>() z = Sub(r, r) y = Add(x, z) }",
        ("fold_constants", "merge_equal"), {"RandomNormal": 1, "Sub": 1, "Add": 1}),
    "weights in int8 stay": Case(
        "(float[N,2] x) => (float[N,2] y) { w = DequantizeLinear(q, s) y = Mul(x, w) }", FOLD,
        {"DequantizeLinear": 1, "Mul": 1}, {"q": np.array([1, 2], np.int8), "s": 0.5}),
    "the shape of an open batch": Case(
        "(float[N,2,6] x) => (float[N,12] y) { s = Shape(x) b = Gather(s, zero) u = Unsqueeze(b, axes) "
        "t = Concat<axis=0>(u, rest) y = Reshape(x, t) "
        "}", FOLD, {"Reshape": 1}, {"zero": 0, "axes": [0], "rest": [-1]}),
    "heads folded into the batch": Case(
        "(float[N,4,3] x) => (float[M,3] y) { s = Shape(x) b = Gather(s, zero) m = Mul(b, four) u = Unsqueeze(m, axes) "
        "t = Concat<axis=0>(u, three) y = Reshape(x, t) }", FOLD, {"Reshape": 1},
        {"zero": 0, "axes": [0], "four": 4, "three": [3]}),
    "an expansion to its own shape": Case(
        "(float[N,4] x) => (float[N,4] y) { s = Shape(x) e = Expand(x, s) y = Relu(e) }", FOLD, {"Relu": 1}),
    "an expansion to another shape": Case(
        "(float[N,1] x) => (float[N,4] y) { y = Expand(x, s) }", FOLD, {"Expand": 1}, {"s": [1, 4]}),
    "identities and dropout": Case(
        "(float[N,4] x) => (float[N,4] y) { a = Identity(x) b, m = Dropout(a) c = Cast<to=1>(b) d = Concat<axis=1>(c) "
        "y = Relu(d) }", ("remove_identities",), {"Relu": 1}),
    "an output that is an input": Case(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Identity(x) r = Relu(x) z = Identity(r) }",
        ("remove_identities",), {"Identity": 1, "Relu": 1}),
    "dropout whose mask is read": Case(
        "(float[N,4] x) => (float[N,4] y) { b, m = Dropout(x) y = Where(m, b, x) }", ("remove_identities",),
        {"Dropout": 1, "Where": 1}),
    "adding nothing": Case(
        "(float[N,4] x) => (float[N,4] y) { a = Add(x, zero) b = Mul(a, one) y = Relu(b) }", ("remove_neutral",),
        {"Relu": 1}, {"zero": 0.0, "one": 1.0}),
    "adding nothing, but an axis": Case(
        "(float[N,4] x) => (float[1,N,4] y) { a = Add(x, zero) y = Relu(a) }", ("remove_neutral",),
        {"Add": 1, "Relu": 1}, {"zero": np.zeros((1, 1, 1), np.float32)}),
    "the same thing twice": Case(
        "(float[N,4] x) => (float[N,4] y) { a = Mul(x, c) b = Mul(x, d) y = Add(a, b) }",
        ("share_constants", "merge_equal"), {"Mul": 1, "Add": 1}, {"c": 2.0, "d": 2.0}),
    "two equal outputs": Case(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu(x) z = Relu(x) }", ("merge_equal",), {"Relu": 2}),
    "what nobody reads": Case(
        "(float[N,4] x) => (float[N,4] y) { a = Exp(x) b = Log(a) y = Relu(x) }", ("drop_dead",), {"Relu": 1}),
    "If by a constant": Case(
        "(float[N,4] x) => (float[N,4] y) { y = If(f) " + BODIES + " }", ("inline_ifs",), {"Mul": 1, "Neg": 1},
        {"f": np.array([False]), "w": (4,)}),
    "If by an input stays whole": Case(
        "(float[N,4] x, bool[1] f) => (float[N,4] y) { r = Relu(x) y = If(f) "
        "<then_branch = t () => (float[N,4] p) { p = Identity(r) }, else_branch = e () => (float[N,4] q) "
        "{ h = Add(r, w) q = Add(h, w) }> }", tuple(BY_NAME), {"Relu": 1, "If": 1}, {"w": 0.0}),
    "two Ifs with the same names inside": Case(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = If(f) " + BODIES + " z = If(t) " + BODIES + " }",
        ("inline_ifs",), {"Mul": 1, "Neg": 1, "Relu": 1},
        {"f": np.array([False]), "t": np.array([True]), "w": (4,)}),
    "a Loop of three trips": Case(
        "(float[N,4] x) => (float[N,4] y, float[3,N,4] s) { y, s = Loop(trips, go, x) <body = b (int64 i, bool c, "
        "float[N,4] v) => (bool d, float[N,4] w, float[N,4] o) { d = Identity(c) k = Cast<to=1>(i) w = Add(v, k) "
        "o = Mul(w, f) }> }", ("unroll_loops", "fold_constants"), {"Add": 3, "Mul": 3, "Unsqueeze": 3, "Concat": 1},
        {"trips": 3, "go": TRUE, "f": 0.5}),
    "a Loop of many trips": Case(
        "(float[N,4] x) => (float[N,4] y) { y = Loop(trips, go, x) <body = b (int64 i, bool c, float[N,4] v) => "
        "(bool d, float[N,4] w) { d = Identity(c) w = Mul(v, f) }> }", ("unroll_loops",), {"Loop": 1},
        {"trips": 1000, "go": TRUE, "f": 0.5}),
    "a Loop that may stop": Case(
        "(float[N,4] x) => (float[N,4] y) { y = Loop(trips, go, x) <body = b (int64 i, bool c, float[N,4] v) => "
        "(bool d, float[N,4] w) { w = Mul(v, f) m = ReduceMax<keepdims=0>(w) d = Less(m, f) }> }", ("unroll_loops",),
        {"Loop": 1}, {"trips": 3, "go": TRUE, "f": 0.5}),
    "views in a row": Case(
        "(float[N,4,6] x) => (float[N,3,8] y) { a = Reshape(x, s) b = Unsqueeze(a, one) c = Flatten(b) y = "
        "Reshape(c, t) }",
        ("merge_views",), {"Reshape": 1}, {"s": [-1, 24], "one": [1], "t": [-1, 3, 8]}),
    "views that undo each other": Case(
        "(float[N,4,6] x) => (float[N,4,6] y) { a = Unsqueeze(x, one) b = Squeeze(a, one) y = Relu(b) }",
        ("merge_views",), {"Relu": 1}, {"one": [2]}),
    "a view with two open axes": Case(
        "(float[N,T,6] x) => (float[N,T,3,2] y) { s = Shape<start=0,end=2>(x) t = Concat<axis=0>(s, r) y = "
        "Reshape(x, t) }",
        FOLD, {"Reshape": 1}, {"r": [3, 2]}, sizes={"T": 5}),
    "a resize to computed sizes": Case(
        "(float[N,2,3,4] x) => (float[N,2,6,8] y) { s = Shape<start=0,end=2>(x) t = Concat<axis=0>(s, r) "
        'y = Resize<mode="linear">(x, , , t) }', FOLD, {"Resize": 1}, {"r": [6, 8]}),
    "queries and values of one projection": Case(
        "(float[N,5,8] x) => (float[N,5,4] y, float[N,5,4] z) { m = MatMul(x, w) r = Reshape(m, s) "
        "t = Transpose<perm=[2,0,1,3]>(r) a = Gather<axis=0>(t, i) b = Gather<axis=0>(t, j) y = Relu(a) "
        "z = Relu(b) }",
        ("take_pieces_first", "transpose_to_reshape", "merge_views"), {"MatMul": 2, "Relu": 2},
        {"w": (8, 8), "s": [0, 0, 2, 4], "i": np.array(0), "j": np.array(1)}),
    "heads by way of a batch of heads": Case(
        "(float[N,5,8] x) => (float[N,2,5,4] y) { a = Transpose<perm=[1,0,2]>(x) m = MatMul(a, w) r = Reshape(m, s) "
        "t = Transpose<perm=[1,0,2]>(r) y = Reshape(t, u) }",
        ("one_transpose",), {"MatMul": 1, "Transpose": 1, "Reshape": 1},
        {"w": (8, 8), "s": [5, -1, 4], "u": [-1, 2, 5, 4]}),
    "a class token": Case(
        "(float[N,5,4] x) => (float[N,6,4] y) { s = Shape<start=0,end=1>(x) t = Concat<axis=0>(s, o) "
        "e = Expand(c, t) y = Concat<axis=1>(e, x) }",
        (*FOLD, "pad_for_constants"), {"Pad": 1, "Add": 1}, {"c": (1, 1, 4), "o": [1, 4]}),
    "slices, pads and tiles of nothing": Case(
        "(float[N,4] x) => (float[N,4] y) { a = Slice(x, b, e, axes) c = Pad(a, pads) d = Tile(c, one) "
        "t = Transpose<perm=[0,1]>(d) y = Relu(t) }", ("remove_no_ops",), {"Relu": 1},
        {"b": [0], "e": [2**31], "axes": [1], "pads": [0, 0, 0, 0], "one": [1, 1]}),
    "a slice of an open axis": Case(
        "(float[N,4] x) => (float[M,4] y) { y = Slice(x, b, e, axes) }", ("remove_no_ops",), {"Slice": 1},
        {"b": [0], "e": [4], "axes": [0]}),
    "a zero state": Case(
        "(float[5,2,3] x) => (float[5,1,2,2] y) { y, h, c = LSTM<hidden_size=2>(x, w, r, b, , z, z) }",
        ("drop_zero_states",), {"LSTM": 1},
        {"w": (1, 8, 3), "r": (1, 8, 2), "b": (1, 16), "z": np.zeros((1, 2, 2), np.float32)}),
    "transposes in a row": Case(
        "(float[N,2,3,4] x) => (float[N,3,4,2] y) { a = " + TO_NCHW + "(x) b = Transpose<perm=[0,3,2,1]>(a) y = "
        "Relu(b) }",
        ("transpose_to_reshape",), {"Transpose": 1, "Relu": 1}),
    "a transpose of axes of size 1": Case(
        "(float[N,1,1,4] x) => (float[N,4,1,1] y) { a = " + TO_NCHW + "(x) y = Relu(a) }",
        ("transpose_to_reshape",), {"Reshape": 1, "Relu": 1}),
    "a channels-last residual net": Case(
        IMAGE + "{ a = " + TO_NCHW + "(x) c = Conv(a, w) n = " + TO_NHWC + "(c) m = Mul(n, g) r = Relu(m) "
        "t = " + TO_NCHW + "(r) d = Conv<pads=[1,1,1,1]>(t, v) u = " + TO_NHWC + "(d) s = Add(u, r) y = Clip(s, "
        "zero) }",
        LAYOUT, {"Transpose": 2, "Conv": 2, "Mul": 1, "Relu": 1, "Add": 1, "Clip": 1},
        {"w": (4, 3, 1, 1), "g": (4,), "v": (4, 4, 3, 3), "zero": 0.0}),
    "a channels-last squeeze and excitation": Case(
        "(float[N,5,6,3] x) => (float[N,4] y) { a = " + TO_NCHW + "(x) c = Conv(a, w) n = " + TO_NHWC + "(c) "
        "m = ReduceMean(n, axes) o = " + TO_NCHW + "(m) p = Conv(o, v) q = " + TO_NHWC + "(p) s = Sigmoid(q) "
        "t = Mul(n, s) y = ReduceMean<keepdims=0>(t, axes) }",
        LAYOUT, {"Transpose": 1, "Conv": 2, "ReduceMean": 2, "Sigmoid": 1, "Mul": 1},
        {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1), "axes": [1, 2]}),
    "channels-last concat, pad, slice and split": Case(
        "(float[N,3,4,4] x) => (float[N,4,3,3] y) { n = " + TO_NHWC + "(x) p = Pad(n, pads) s = Slice(p, b, e, axes) "
        "c = Concat<axis=3>(s, s) u, v = Split<axis=3, num_outputs=2>(c) a = Add(u, v) t = " + TO_NCHW + "(a) "
        "y = Conv(t, w) }",
        LAYOUT, {"Pad": 1, "Slice": 1, "Concat": 1, "Split": 1, "Add": 1, "Conv": 1},
        {"pads": [0, 0, 1, 0, 0, 0, 1, 0], "b": [1], "e": [4], "axes": [1], "w": (4, 3, 1, 3)},
    ),
    "a transpose that an operator needs": Case(
        "(float[N,3,4,4] x) => (float[N,4,4,5] y) { n = " + TO_NHWC + "(x) l = LayerNormalization(n, g, b) y = "
        "MatMul(l, w) }",
        LAYOUT, {"Transpose": 1, "LayerNormalization": 1, "MatMul": 1}, {"g": (3,), "b": (3,), "w": (3, 5)}),
    "a ConvNeXt block keeps its two": Case(
        "(float[N,3,4,4] x) => (float[N,3,4,4] y) { c = Conv<group=3, pads=[1,1,1,1]>(x, v) n = " + TO_NHWC + "(c) "
        "l = LayerNormalization(n, g, b) m = MatMul(l, w) s = Mul(m, g) t = " + TO_NCHW + "(s) y = Add(x, t) }",
        LAYOUT, {"Conv": 1, "Transpose": 2, "LayerNormalization": 1, "MatMul": 1, "Mul": 1, "Add": 1},
        {"v": (3, 1, 3, 3), "g": (3,), "b": (3,), "w": (3, 3)}),
    "two outputs of one transposed tensor": Case(
        "(float[N,3,4,4] x) => (float[N,4,4,3] y, float[N,3,4,4] z) { r = Relu(x) y = " + TO_NHWC + "(r) "
        "z = " + TO_NCHW + "(y) }", LAYOUT, {"Relu": 1, "Transpose": 1}),
    "a transposed tensor that an If reads": Case(
        "(float[N,3,4,4] x, bool[1] f) => (float[N,3,4,4] y, float[N,4,4,3] z) { n = " + TO_NHWC + "(x) r = Relu(n) "
        "t = " + TO_NCHW + "(r) y = Conv<kernel_shape=[1,1]>(t, w) z = If(f) <then_branch = a () => (float[N,4,4,3] p) "
        "{ p = Neg(r) }, else_branch = b () => (float[N,4,4,3] q) { q = Abs(r) }> }",
        LAYOUT, {"Transpose": 1, "Relu": 1, "Conv": 1, "If": 1}, {"w": (3, 3, 1, 1)}),
    "a pad over time": Case(
        "(float[N,3,8] x) => (float[N,4,7] y) { c = Conv(x, w) p = Pad(c, pads) y = Conv(p, v) }",
        ("explicit_windows", "one_to_two_d", "sink_squeezes", "merge_views", "merge_pads"),
        {"Unsqueeze": 1, "Conv": 2, "Squeeze": 1},
        {"w": (4, 3, 3), "v": (4, 4, 2), "pads": [0, 0, 2, 0, 0, 0]}),
    "scales and shifts in a row": Case(
        "(float[N,3,4] x) => (float[N,3,4] y) { a = Sub(x, m) b = Div(a, s) c = Mul(b, g) y = Add(c, h) }",
        ("merge_affine",), {"Mul": 1, "Add": 1},
        {"m": (4,), "s": np.array([1, 2, 3, 4], np.float32), "g": (4,), "h": (4,)}),
    "scales and shifts that would grow": Case(
        "(float[N,3,4] x) => (float[N,3,4] y) { a = Add(x, m) y = Mul(a, g) }",
        ("merge_affine",), {"Add": 1, "Mul": 1}, {"m": (3, 1), "g": (4,)}),
    "a division by zero": Case(
        "(float[N,4] x) => (float[N,4] y) { y = Div(x, z) }", ("merge_affine",), {"Div": 1},
        {"z": np.array([1, 2, 0, 4], np.float32)}),
    "a shift that is an output": Case(
        "(float[N,4] x) => (float[N,4] y, float[N,4] a) { a = Add(x, m) y = Mul(a, g) }",
        ("merge_affine",), {"Add": 1, "Mul": 1}, {"m": (4,), "g": (4,)}),
    "a transpose before flattening": Case(
        "(float[N,3,4,5] x) => (float[N,6] y) { t = " + TO_NHWC + "(x) f = Flatten(t) y = Gemm(f, w, b) }",
        ("plain_gemm", "absorb_flattened_transpose"), {"Reshape": 1, "Gemm": 1}, {"w": (60, 6), "b": (6,)}),
    "a transpose that moves the batch before flattening": Case(
        "(float[3,4,5] x) => (float[4,6] y) { t = Transpose<perm=[1,0,2]>(x) f = Flatten(t) y = Gemm(f, w, b) }",
        ("plain_gemm", "absorb_flattened_transpose"), {"Transpose": 1, "Flatten": 1, "Gemm": 1},
        {"w": (15, 6), "b": (6,)}),
    "Einsum with weights": Case(
        '(float[N,5,6] x) => (float[N,5,2,3] y) { y = Einsum<equation="abc,cde->abde">(x, w) }',
        ("einsum_to_matmul", "remove_no_ops", "fold_constants"), {"MatMul": 1, "Reshape": 1}, {"w": (6, 2, 3)}),
    "Einsum that sums two axes": Case(
        '(float[N,5,2,3] x) => (float[N,5,6] y) { y = Einsum<equation="abcd,cde->abe">(x, w) }',
        ("einsum_to_matmul", "remove_no_ops", "merge_views", "fold_constants"), {"Reshape": 1, "MatMul": 1},
        {"w": (2, 3, 6)}),
    "Einsum of attention": Case(
        '(float[N,5,2,3] x, float[N,7,2,3] z) => (float[N,2,5,7] y) { y = Einsum<equation="abcd,aecd->acbe">(x, z) }',
        ("einsum_to_matmul", "remove_no_ops", "merge_views"), {"Transpose": 2, "MatMul": 1}),
    "Einsum of a diagonal": Case(
        '(float[N,3,3] x, float[N,3] z) => (float[N,3] y) { y = Einsum<equation="aii,ai->ai">(x, z) }',
        ("einsum_to_matmul",), {"Einsum": 1}),
    "a pad before a transpose": Case(
        "(float[N,4,4,3] x) => (float[N,3,6,4] y) { p = Pad(x, pads) y = " + TO_NCHW + "(p) }",
        ("hoist_over_pad",), {"Transpose": 1, "Pad": 1}, {"pads": [0, 1, 0, 0, 0, 1, 0, 0]}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pass_keeps_outputs_and_reaches_its_form(case: Case) -> None:
    run(case)


def test_a_giant_constant_is_never_computed() -> None:
    source = graph(
        "(float[N,2] x) => (float[N,2] y) { c = ConstantOfShape(s) m = ReduceMax<keepdims=0>(c) y = Div(x, m) }",
        {"s": np.array([100_000, 100_000], np.int64)},
    )
    made = load(source, where="giant")
    run_passes(made)
    assert counts(made) == {"ConstantOfShape": 1, "ReduceMax": 1, "Div": 1}


def test_shapes_keep_the_batch_as_a_symbol() -> None:
    made = run(CASES["heads folded into the batch"])
    (node,) = made.graph
    assert node.outputs[0].shape == ir.Shape(["4*N", 3])


def test_every_pass_says_what_it_requires_and_ensures() -> None:
    for item in BY_NAME.values():
        text = item.run.__doc__ or ""
        assert "Requires:" in text, item.name
        assert "Ensures:" in text, item.name
