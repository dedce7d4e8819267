"""Sums in int8: scales on which XNNPACK's fixed-point numbers and floats give one answer."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from converters.graph.canonical import canonicalise
from converters.quantize.encoding import Encoding, encode
from converters.quantize.sums import Sum, settle, settle_sums
from converters.quantize.units import find_units
from tests.converters.canonical_graphs import graph

LOW, HIGH = st.floats(-8, 0), st.floats(0.01, 8)
ENCODINGS = st.builds(encode, LOW, HIGH)


def pairs(added: Sum) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first, second = (np.arange(256) - one.zero_point for one in (added.first, added.second))
    return first[:, None], added.sign * second


def held(added: Sum, scale: float) -> npt.NDArray[np.int64]:
    """As XNNPACK's qs8 addition computes, before it clamps to a byte."""
    ratios = [np.float32(one.scale) / np.float32(scale) for one in (added.first, added.second)]
    shift = 20 - int(np.floor(np.log2(max(ratios))))
    first, second = (int(np.rint(float(ratio) * 2.0**shift)) for ratio in ratios)
    a, b = pairs(added)
    return (a * first + b * second + (1 << (shift - 1))) >> shift


def in_floats(added: Sum, scale: float) -> npt.NDArray[np.int64]:
    a, b = pairs(added)
    first, second = (np.float32(one.scale) / np.float32(scale) for one in (added.first, added.second))
    return np.rint(a.astype(np.float32) * first + b.astype(np.float32) * second).astype(np.int64)


@given(ENCODINGS, ENCODINGS, ENCODINGS, st.sampled_from([1, -1]))
def test_both_kinds_of_kernels_round_nearly_all_pairs_alike(
    first: Encoding, second: Encoding, total: Encoding, sign: int
) -> None:
    added = Sum(first, second, sign=sign)
    settled = settle(total, added)
    assert settled.zero_point == total.zero_point
    assert 1 <= settled.scale / total.scale <= 1 + 2**-8 + 1e-6
    limits = -settled.zero_point, 255 - settled.zero_point
    one, other = (np.clip(kernel(added, settled.scale), *limits) for kernel in (held, in_floats))
    assert np.mean(one != other) < 1e-4


def test_what_shares_the_encoding_of_a_sum_goes_with_it() -> None:
    net = canonicalise(graph("(float[N,4] x, float[N,4] z) => (float[N,2,2] y) { a = Add(x, z) y = Reshape(a, s) }",
                          {"s": [-1, 2, 2]}), where="net")  # fmt: skip
    x, z, total = encode(-1, 1.3), encode(-2, 0.7), encode(-3, 1.9)
    encodings = {"x": x, "z": z, "a": total, "y": total}
    group = {"x": "x", "z": "z", "a": "a", "y": "a"}
    settle_sums(find_units(net.graph), encodings, group.__getitem__, keep=frozenset())
    assert encodings["a"] == encodings["y"] != total
    assert (encodings["x"], encodings["z"]) == (x, z)


def test_a_sum_whose_encoding_is_given_keeps_it() -> None:
    net = canonicalise(graph("(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add(x, z) }"), where="net")
    given_ = {"x": encode(-1, 1.3), "z": encode(-2, 0.7), "y": encode(-3, 1.9)}
    encodings = dict(given_)
    settle_sums(find_units(net.graph), encodings, lambda name: name, keep=frozenset({"y"}))
    assert encodings == given_
