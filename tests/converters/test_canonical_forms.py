"""Activations, layer norm, pixel shuffles and means known by their formulas; look-alikes left alone."""

import math

import numpy as np
import pytest

from tests.converters.canonical_graphs import Case, run

CLIPS = ("plain_clips",)
SWISH = ("constants_right", "plain_clips", "hard_swish", "hard_sigmoid")
GELU = ("constants_right", "gelu")
NORM = ("constants_right", "merge_equal", "layer_norm", "fold_layer_norm_affine")
V = "(float[N,3,4] x) => (float[N,3,4] y) "
HARD = {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6}
ERF = {"r": math.sqrt(2), "i": 1 / math.sqrt(2), "one": 1.0, "half": 0.5}
TANH = {"c": 0.044715, "k": math.sqrt(2 / math.pi), "one": 1.0, "half": 0.5, "three": 3.0}
LAYER = {"axes": [-1], "two": 2.0, "eps": 1e-5, "minus": -0.5, "g": (4,), "b": (4,), "one": 1.0}
SQUARES = "m = ReduceMean(x, axes) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, axes) a = Add(v, eps) "

CASES = {
    "relu6 as Min of Relu": Case(
        V + "{ r = Relu(x) y = Min(r, six) }", CLIPS, {"Clip": 1}, {"six": 6.0}),
    "relu as Max": Case(V + "{ y = Max(zero, x) }", CLIPS, {"Relu": 1}, {"zero": 0.0}),
    "relu as Clip without an end": Case(
        V + "{ y = Clip(x, zero, big) }", CLIPS, {"Relu": 1}, {"zero": 0.0, "big": 3.4028234663852886e38}),
    "clip of opset 6": Case(V + "{ y = Clip<min=0.0, max=6.0>(x) }", ("constants_to_initialisers", *CLIPS),
                            {"Clip": 1}, opset=7),
    "clips that nest": Case(
        V + "{ a = Clip(x, one, six) y = Clip(a, zero, two) }", CLIPS, {"Clip": 1},
        {"zero": 0.0, "one": 1.0, "two": 2.0, "six": 6.0}),
    "relu that is an output before its clip": Case(
        "(float[N,4] x) => (float[N,4] r, float[N,4] y) { r = Relu(x) y = Clip(r, zero, six) }",
        CLIPS, {"Relu": 1, "Clip": 1}, {"zero": 0.0, "six": 6.0}),
    "clip with a computed bound": Case(
        "(float[N,4] x, float top) => (float[N,4] y) { y = Clip(x, zero, top) }", CLIPS, {"Clip": 1}, {"zero": 0.0}),
    "min with a row": Case(V + "{ y = Min(x, row) }", CLIPS, {"Min": 1}, {"row": (4,)}),
    "min that adds an axis": Case(
        "(float[N,4] x) => (float[1,N,4] y) { y = Min(x, six) }", CLIPS, {"Min": 1},
        {"six": np.full((1, 1, 1), 6, np.float32)}),
    "leaky relu as Max": Case(
        V + "{ a = Mul(x, s) y = Max(x, a) }", ("leaky_relu",), {"LeakyRelu": 1}, {"s": 0.1}),
    "leaky relu as Where": Case(
        V + "{ t = Greater(x, zero) a = Mul(x, s) y = Where(t, x, a) }", ("leaky_relu",), {"LeakyRelu": 1},
        {"s": 0.1, "zero": 0.0}),
    "PRelu with one slope": Case(
        V + "{ y = PRelu(x, s) }", ("leaky_relu",), {"LeakyRelu": 1}, {"s": np.full((3, 1), 0.2, np.float32)}),
    "PRelu with several slopes": Case(V + "{ y = PRelu(x, s) }", ("leaky_relu",), {"PRelu": 1}, {"s": (3, 1)}),
    "max with a steep slope": Case(
        V + "{ a = Mul(x, s) y = Max(x, a) }", ("leaky_relu",), {"Mul": 1, "Max": 1}, {"s": 1.5}),
    "hard swish, divided at the end": Case(
        V + "{ a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six) }", SWISH,
        {"HardSwish": 1}, HARD),
    "hard swish, scaled first, clipped by Relu and Min": Case(
        V + "{ a = Add(three, x) r = Relu(a) c = Min(r, six) h = Mul(x, sixth) y = Mul(c, h) }", SWISH,
        {"HardSwish": 1}, HARD),
    "hard swish of hard sigmoid": Case(
        V + "{ h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, h) }", SWISH, {"HardSwish": 1}),
    "hard sigmoid": Case(
        V + "{ a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six) }", SWISH, {"HardSigmoid": 1}, HARD),
    "Keras' hard sigmoid": Case(
        V + "{ m = Mul(x, s) a = Add(m, half) y = Clip(a, zero, one) }", SWISH, {"HardSigmoid": 1},
        {"s": 0.2, "half": 0.5, "zero": 0.0, "one": 1.0}),
    "hard swish with another offset": Case(
        V + "{ a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six) }", SWISH,
        {"HardSigmoid": 0, "Add": 1, "Clip": 1, "Mul": 1, "Div": 1}, {**HARD, "three": 2.5}),
    "hard swish of two tensors": Case(
        "(float[N,4] x, float[N,4] z) => (float[N,4] y) "
        "{ a = Add(z, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six) }", SWISH,
        {"Add": 1, "Clip": 1, "Mul": 1, "Div": 1}, HARD),
    "hard swish whose clip is an output": Case(
        "(float[N,4] x) => (float[N,4] y, float[N,4] c) "
        "{ a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six) }", SWISH,
        {"Add": 1, "Clip": 1, "Mul": 1, "Div": 1}, HARD),
    "swish stays": Case(V + "{ s = Sigmoid(x) y = Mul(x, s) }", SWISH, {"Sigmoid": 1, "Mul": 1}),
    "gelu as torch spells it": Case(
        V + "{ d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half) }", GELU, {"Gelu": 1}, ERF),
    "gelu as TensorFlow spells it": Case(
        V + "{ h = Mul(half, x) d = Mul(x, i) e = Erf(d) a = Add(one, e) y = Mul(h, a) }", GELU, {"Gelu": 1}, ERF),
    "gelu with the half inside": Case(
        V + "{ d = Mul(x, i) e = Erf(d) a = Mul(e, half) b = Add(a, half) y = Mul(x, b) }", GELU, {"Gelu": 1}, ERF),
    "gelu of a sum": Case(
        V + "{ s = Add(x, one) d = Div(s, r) e = Erf(d) a = Add(e, one) m = Mul(s, a) y = Mul(m, half) }", GELU,
        {"Add": 1, "Gelu": 1}, ERF),
    "gelu by tanh with Pow": Case(
        V + "{ p = Pow(x, three) q = Mul(p, c) s = Add(x, q) u = Mul(s, k) t = Tanh(u) a = Add(t, one) "
        "h = Mul(x, half) y = Mul(h, a) }", GELU, {"Gelu": 1}, TANH),
    "gelu by tanh with products": Case(
        V + "{ p = Mul(x, x) q = Mul(c, p) r = Add(q, one) w = Mul(x, k) u = Mul(w, r) t = Tanh(u) a = Add(one, t) "
        "m = Mul(x, a) y = Mul(half, m) }", GELU, {"Gelu": 1}, TANH),
    "erf with another scale": Case(
        V + "{ d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half) }", GELU,
        {"Div": 1, "Erf": 1, "Add": 1, "Mul": 2}, {**ERF, "r": 1.5}),
    "gelu whose erf is read elsewhere": Case(
        V + "{ d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) h = Mul(m, half) y = Add(h, e) }", GELU,
        {"Div": 1, "Erf": 1, "Add": 2, "Mul": 2}, ERF),
    "gelu scaled per channel": Case(
        V + "{ d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, row) }", GELU,
        {"Div": 1, "Erf": 1, "Add": 1, "Mul": 2}, {**ERF, "row": (4,)}),
    "gelu whose constant adds an axis": Case(
        "(float[N,4] x) => (float[1,N,4] y) { d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) "
        "y = Mul(m, half) }",
        GELU, {"Div": 1, "Erf": 1, "Add": 1, "Mul": 2}, {**ERF, "half": np.full((1, 1, 1), 0.5, np.float32)}),
    "layer norm as torch spells it": Case(
        V + "{ " + SQUARES + "s = Sqrt(a) n = Div(d, s) w = Mul(n, g) y = Add(w, b) }", NORM,
        {"LayerNormalization": 1}, LAYER),
    "layer norm without scale and bias, by a product": Case(
        V + "{ m = ReduceMean(x, axes) d = Sub(x, m) p = Mul(d, d) v = ReduceMean(p, axes) a = Add(v, eps) s = Sqrt(a) "
        "i = Reciprocal(s) y = Mul(d, i) }", NORM, {"LayerNormalization": 1}, LAYER),
    "layer norm by a power": Case(
        V + "{ " + SQUARES + "i = Pow(a, minus) j = Mul(i, g) n = Mul(d, j) y = Add(b, n) }", NORM,
        {"LayerNormalization": 1}, LAYER),
    "layer norm as TensorFlow spells it": Case(
        V + "{ " + SQUARES + "s = Sqrt(a) i = Div(one, s) j = Mul(i, g) u = Mul(x, j) w = Mul(m, j) z = Sub(b, w) "
        "y = Add(u, z) }", NORM, {"LayerNormalization": 1}, LAYER),
    "layer norm by the mean of squares": Case(
        V + "{ m = ReduceMean(x, axes) q = Mul(x, x) e = ReduceMean(q, axes) f = Mul(m, m) v = Sub(e, f) "
        "a = Add(v, eps) s = Sqrt(a) d = Sub(x, m) y = Div(d, s) }", NORM, {"LayerNormalization": 1}, LAYER),
    "layer norm over two axes": Case(
        V + "{ " + SQUARES + "s = Sqrt(a) n = Div(d, s) w = Mul(n, g) y = Add(w, b) }", NORM,
        {"LayerNormalization": 1}, {**LAYER, "axes": [1, 2], "g": (3, 4)}),
    "a norm over another axis": Case(
        V + "{ " + SQUARES + "s = Sqrt(a) y = Div(d, s) }", NORM,
        {"ReduceMean": 2, "Sub": 1, "Pow": 1, "Add": 1, "Sqrt": 1, "Div": 1}, {**LAYER, "axes": [1]}),
    "a norm whose two means are over different axes": Case(
        V + "{ m = ReduceMean(x, other) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, axes) a = Add(v, eps) "
        "s = Sqrt(a) y = Div(d, s) }", NORM,
        {"ReduceMean": 2, "Sub": 1, "Pow": 1, "Add": 1, "Sqrt": 1, "Div": 1}, {**LAYER, "other": [1]}),
    "a norm whose variance is an output": Case(
        "(float[N,3,4] x) => (float[N,3,4] y, float[N,3,1] v) { " + SQUARES + "s = Sqrt(a) y = Div(d, s) }", NORM,
        {"ReduceMean": 2, "Sub": 1, "Pow": 1, "Add": 1, "Sqrt": 1, "Div": 1}, LAYER),
    "a norm scaled along another axis": Case(
        V + "{ " + SQUARES + "s = Sqrt(a) n = Div(d, s) y = Mul(n, g) }", NORM,
        {"LayerNormalization": 1, "Mul": 1}, {**LAYER, "g": (3, 1)}),
    "spatial mean": Case(
        "(float[N,3,4,5] x) => (float[N,3,1,1] y) { y = ReduceMean(x, axes) }", ("spatial_mean",),
        {"GlobalAveragePool": 1}, {"axes": [-1, 2]}),
    "spatial mean without its axes": Case(
        "(float[N,3,4,5] x) => (float[N,3] y) { y = ReduceMean<keepdims=0>(x, axes) }", ("spatial_mean",),
        {"GlobalAveragePool": 1, "Squeeze": 1}, {"axes": [2, 3]}),
    "one window over everything": Case(
        "(float[N,3,4,5] x) => (float[N,3,1,1] y) { y = AveragePool<kernel_shape=[4,5]>(x) }", ("spatial_mean",),
        {"GlobalAveragePool": 1}),
    "mean over one spatial axis": Case(
        "(float[N,3,4,5] x) => (float[N,3,4,1] y) { y = ReduceMean(x, axes) }", ("spatial_mean",),
        {"ReduceMean": 1}, {"axes": [3]}),
    "mean over tokens": Case(
        "(float[N,3,4] x) => (float[N,3,1] y) { y = ReduceMean(x, axes) }", ("spatial_mean",),
        {"ReduceMean": 1}, {"axes": [2]}),
    "depth to space, columns and rows first": Case(
        "(float[N,8,3,5] x) => (float[N,2,6,10] y) { a = Reshape(x, s) b = Transpose<perm=[0,1,4,2,5,3]>(a) "
        "y = Reshape(b, t) }", ("pixel_shuffle",), {"DepthToSpace": 1},
        {"s": [-1, 2, 2, 2, 3, 5], "t": [-1, 2, 6, 10]}),
    "depth to space, depth first": Case(
        "(float[N,8,3,5] x) => (float[N,2,6,10] y) { a = Reshape(x, s) b = Transpose<perm=[0,3,4,1,5,2]>(a) "
        "y = Reshape(b, t) }", ("pixel_shuffle",), {"DepthToSpace": 1},
        {"s": [-1, 2, 2, 2, 3, 5], "t": [-1, 2, 6, 10]}),
    "space to depth": Case(
        "(float[N,2,6,4] x) => (float[N,8,3,2] y) { a = Reshape(x, s) b = Transpose<perm=[0,3,5,1,2,4]>(a) "
        "y = Reshape(b, t) }", ("pixel_shuffle",), {"SpaceToDepth": 1}, {"s": [-1, 2, 3, 2, 2, 2], "t": [-1, 8, 3, 2]}),
    "a shuffle of another kind": Case(
        "(float[N,8,3,5] x) => (float[N,2,6,10] y) { a = Reshape(x, s) b = Transpose<perm=[0,1,4,3,5,2]>(a) "
        "y = Reshape(b, t) }", ("pixel_shuffle",), {"Reshape": 2, "Transpose": 1},
        {"s": [-1, 2, 2, 2, 3, 5], "t": [-1, 2, 6, 10]}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pass_keeps_outputs_and_reaches_its_form(case: Case) -> None:
    run(Case(case.text, case.passes, {op: n for op, n in case.left.items() if n}, case.weights, case.opset))


@pytest.mark.parametrize("case", ["gelu by tanh with Pow", "gelu as torch spells it"])
def test_gelu_says_which_one_it_is(case: str) -> None:
    (node,) = run(CASES[case]).graph
    assert node.attributes["approximate"].as_string() == ("tanh" if "tanh" in case else "none")


@pytest.mark.parametrize(("case", "mode"), [("columns and rows", "CRD"), ("depth", "DCR")])
def test_depth_to_space_says_its_order(case: str, mode: str) -> None:
    (node,) = run(CASES[f"depth to space, {case} first"]).graph
    assert node.attributes["mode"].as_string() == mode
