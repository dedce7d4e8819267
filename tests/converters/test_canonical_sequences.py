"""Sequences read by their members, gates that are spread by hand, and shapes that are known but for the batch."""

import numpy as np
import onnx_ir as ir
import pytest

from converters.graph.canonical import canonicalise
from tests.converters.canonical_graphs import BY_NAME, Case, graph, run

ALL = tuple(BY_NAME)
UNPACK = ("unpack_sequences",)
TWO = "(float[N,4] x, float[N,4] z) => (float[N,C] y) "
IDS = {"zero": np.array(0, np.int64), "one": np.array(1, np.int64), "last": np.array(-1, np.int64)}

CASES = {
    "construct and join": Case(
        TWO + "{ s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=1>(s) }", UNPACK, {"Concat": 1}),
    "join along a new axis": Case(
        "(float[N,4] x, float[N,4] z) => (float[N,2,4] y) { s = SequenceConstruct(x, z) "
        "y = ConcatFromSequence<axis=-2, new_axis=1>(s) }", UNPACK, {"Unsqueeze": 2, "Concat": 1}),
    "empty, insert, erase, pick": Case(
        TWO + "{ a = SequenceEmpty() b = SequenceInsert(a, x) c = SequenceInsert(b, z, zero) d = SequenceInsert(c, x) "
        "e = SequenceErase(d, last) p = SequenceAt(e, zero) q = SequenceAt(e, last) y = Sub(p, q) }",
        UNPACK, {"Sub": 1}, IDS),
    "a member is an output": Case(
        TWO + "{ s = SequenceConstruct(x, z) y = SequenceAt(s, one) }", UNPACK, {"Identity": 1}, IDS, sizes={"C": 4}),
    "length": Case(
        "(float[N,4] x) => (int64 y) { s = SequenceConstruct(x, x, x) n = SequenceLength(s) y = Add(n, one) }",
        UNPACK, {"Add": 1}, IDS),
    "split by one": Case(
        "(float[N,3,4] x) => (float[N,4] y) { s = SplitToSequence<axis=1, keepdims=0>(x) a = SequenceAt(s, zero) "
        "b = SequenceAt(s, last) y = Sub(a, b) }", UNPACK, {"Slice": 2, "Squeeze": 2, "Sub": 1}, IDS),
    "split by a size that leaves a rest": Case(
        "(float[N,5] x) => (float[N,1] y) { s = SplitToSequence<axis=-1>(x, two) y = SequenceAt(s, last) }",
        UNPACK, {"Slice": 1}, IDS | {"two": np.array(2, np.int64)}),
    "split by sizes": Case(
        "(float[N,5] x) => (float[N,5] y) { s = SplitToSequence<axis=1>(x, parts) a = SequenceAt(s, zero) "
        "b = SequenceAt(s, one) y = Concat<axis=1>(b, a) }",
        UNPACK, {"Slice": 2, "Concat": 1}, IDS | {"parts": [2, 3]}),
    "a body for every member": Case(
        TWO + "{ s = SequenceConstruct(x, z) t = SequenceMap(s, x) <body = b (float[N,4] v, float[N,4] w) => "
        "(float[N,4] o) { p = Relu(v) o = Add(p, w) }> y = ConcatFromSequence<axis=1>(t) }", UNPACK,
        {"Relu": 2, "Add": 2, "Concat": 1}),
    "a place that is computed stays": Case(
        "(float[N,4] x, float[N,4] z, int64 i) => (float[N,4] y) { s = SequenceConstruct(x, z) y = SequenceAt(s, i) }",
        UNPACK, {"SequenceConstruct": 1, "SequenceAt": 1}, sizes={"i": 1}),
    "hstack as torch writes it": Case(
        TWO + "{ s = SequenceConstruct(x, z) a = SequenceAt(s, zero) h = Shape(a) n = Size(h) f = Equal(n, one) "
        "y = If(f) <then_branch = t () => (float[N,C] p) { p = ConcatFromSequence<axis=0>(s) }, else_branch = e () => "
        "(float[N,C] q) { q = ConcatFromSequence<axis=1>(s) }> }", ALL, {"Concat": 1}, IDS, sizes={"C": 8}),
    "a gate spread to the shape of what it scales": Case(
        "(float[N,4,5,5] x, float[N,4] g) => (float[N,4,5,5] y) { v = Unsqueeze(g, axes) s = Shape(x) e = Expand(v, s) "
        "y = Mul(x, e) }", ALL, {"Unsqueeze": 1, "Mul": 1}, {"axes": [2, 3]}),
    "a row divided by its norm": Case(
        "(float[N,4] x) => (float[N,4] y) { n = ReduceL2(x, axes) m = Clip(n, low) s = Shape(x) e = Expand(m, s) "
        "y = Div(x, e) }", ALL, {"ReduceL2": 1, "Clip": 1, "Div": 1}, {"axes": [1], "low": 1e-12}),
    "a spread that makes the shape stays": Case(
        "(float[1,4] x, float[1,4] z) => (float[3,4] y) { e = Expand(x, s) y = Mul(z, e) }", ("drop_spreads",),
        {"Expand": 1, "Mul": 1}, {"s": [3, 4]}),
    "rows cut and rejoined by computed sizes": Case(
        "(float[7,N,6] x) => (float[7,N,6] y) { h = Shape(x) t = Gather(h, zero) b = Gather(h, one) r = Mul(t, b) "
        "u = Unsqueeze(r, first) v = Concat<axis=0>(u, six) w = Reshape(x, v) k = Relu(w) t1 = Unsqueeze(t, first) "
        "b1 = Unsqueeze(b, first) c = Concat<axis=0>(t1, b1, rest) y = Reshape(k, c) }", ALL,
        {"Relu": 1, "Reshape": 2}, IDS | {"first": [0], "six": [6], "rest": [-1]}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_graph_says_the_same_with_fewer_words(case: Case) -> None:
    run(case)


def test_an_output_is_described_by_what_is_known_of_it() -> None:
    made = canonicalise(graph("(float[N,3,4] x) => (float[A,B] y) { y = Flatten(x) }"), where="case")
    assert made.graph.outputs[0].shape == ir.Shape(["N", 12])
