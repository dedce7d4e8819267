"""Branches and loops in TFLite against ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from lepton_edge.errors import UnsupportedOperatorError
from tests.converters.tflite.one_node import KERNELS, answers, convert, litert

BRANCH = """<ir_version: 9, opset_import: ["" : 20]>
g (bool c, float[2,3] x, float[3] w) => (float[2,3] y, float[2,3] z) {
  h = Add(x, w)
  y, z = If (c) <
    then_branch = t () => (float[2,3] a, float[2,3] b) { a = Mul(h, w)  b = Identity(x) },
    else_branch = e () => (float[2,3] d, float[2,3] f) { d = Sub(x, h)  f = Neg(x) }>
}"""
LOOP = """<ir_version: 9, opset_import: ["" : 20]>
g (int64 n, float[3] x, float[3] w) => (float[3] y, int64 k) <int64 zero = {0}, bool yes = {1}> {
  y, k = Loop (n, yes, x, zero) <
    body = b (int64 i, bool go, float[3] a, int64 s) => (bool on, float[3] a2, int64 s2) {
      p = Mul(a, w)  a2 = Add(p, x)  s2 = Add(s, i)
      q = ReduceSum<keepdims=0>(a2)  l = Constant<value_float=1000.0>()  on = Less(q, l)
    }>
}"""
COLLECTING = """<ir_version: 9, opset_import: ["" : 20]>
g (int64 n, float[3] x) => (float[3] y, float[m,3] all) <bool yes = {1}> {
  y, all = Loop (n, yes, x) <
    body = b (int64 i, bool go, float[3] a) => (bool on, float[3] a2, float[3] row) {
      on = Identity(go)  a2 = Add(a, x)  row = Identity(a2)
    }>
}"""


def _check(text: str, feeds: dict[str, np.ndarray], path: Path) -> None:
    model = onnx.parser.parse_model(text)
    convert(model, path)
    want = answers(model, feeds)
    for kernels in KERNELS:
        got = litert(path, feeds, kernels)
        for entry, value in zip(model.graph.output, want, strict=True):
            np.testing.assert_allclose(got[entry.name], value, rtol=1e-6, err_msg=kernels)


@pytest.mark.parametrize("condition", [True, False])
def test_branches_are_given_what_either_reads_from_outside(condition: bool, tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    feeds = {"c": np.array(condition), "x": x, "w": np.array([1, 2, 3], np.float32)}
    _check(BRANCH, feeds, tmp_path / "m.tflite")


@pytest.mark.parametrize("limit", [0, 1, 5, 50])
def test_loops_stop_at_their_limit_or_by_their_condition(limit: int, tmp_path: Path) -> None:
    feeds = {"n": np.array(limit), "x": np.array([1, 2, 3], np.float32), "w": np.array([1.5, 0.5, 1], np.float32)}
    _check(LOOP, feeds, tmp_path / "m.tflite")


def test_a_loop_that_collects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match="Loop"):
        convert(onnx.parser.parse_model(COLLECTING), tmp_path / "m.tflite")
