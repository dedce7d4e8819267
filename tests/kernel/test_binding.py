"""Bindings: from the signature's arrays to the file's and back."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from lepton_edge.bundle import Binding
from lepton_edge.bundle.binding import from_file, to_file

FLOATS = st.floats(-(2.0**20), 2.0**20, width=32)
SCALES = st.floats(2.0**-14, 16, width=32)
NARROW = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}


def bound(dtype: str = "int8", **fields: object) -> Binding:
    return Binding(name="x", tensor="x", dtype=dtype, **fields)


def quantize_linear(dtype: str) -> onnxruntime.InferenceSession:
    """ONNX's own operator: y = QuantizeLinear(x, scale, zero)."""
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
        "q",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("zero", NARROW[dtype], []),
        ],
        [helper.make_tensor_value_info("y", NARROW[dtype], ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


SESSIONS = {dtype: quantize_linear(dtype) for dtype in NARROW}


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=FLOATS),
    SCALES,
    st.integers(0, 255),
    st.sampled_from(["int8", "uint8"]),
)
def test_steps_are_those_of_onnx(x: np.ndarray, scale: float, zero: int, dtype: str) -> None:
    zero = zero - 128 if dtype == "int8" else zero
    feed = {"x": x, "scale": np.array(scale, np.float32), "zero": np.array(zero, dtype)}
    (wanted,) = SESSIONS[dtype].run(None, feed)
    np.testing.assert_array_equal(to_file(bound(dtype, scale=scale, zero_point=zero), x), wanted)


@given(hnp.arrays(np.int8, st.integers(1, 40)), SCALES, st.integers(-128, 127))
def test_each_step_comes_back_as_itself(steps: np.ndarray, scale: float, zero: int) -> None:
    binding = bound(scale=scale, zero_point=zero)
    real = from_file(binding, steps, "float32")
    assert real.dtype == np.float32
    np.testing.assert_allclose(real, (steps.astype(np.float64) - zero) * scale, rtol=1e-6)
    np.testing.assert_array_equal(to_file(binding, real), steps)


@given(st.permutations(range(4)), hnp.array_shapes(min_dims=4, max_dims=4, max_side=20))
def test_a_permutation_is_undone(order: list[int], shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    binding = bound("float32", permutation=order)
    there = to_file(binding, array)
    np.testing.assert_array_equal(there, array.transpose(order))
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(from_file(binding, there, "float32"), array)


def test_what_nothing_changes_is_not_copied() -> None:
    array = np.ones((1, 3, 4, 4), np.float32)
    assert to_file(bound("float32"), array) is array
    assert np.shares_memory(to_file(bound("float32", permutation=[1, 0, 2, 3]), array), array)


WIDE_INT = np.array([-(2**40), -129, 0, 127, 300, 2**40])
SATURATED = {
    "int64 to int32": (WIDE_INT, "int32", [-(2**31), -129, 0, 127, 300, 2**31 - 1]),
    "int64 to uint8": (WIDE_INT, "uint8", [0, 0, 0, 127, 255, 255]),
    "int8 to uint16": (np.array([-1, 5], np.int8), "uint16", [0, 5]),
    "uint64 to int64": (np.array([0, 2**64 - 1], np.uint64), "int64", [0, 2**63 - 1]),
    "float to int32": (np.array([-1e30, 7, 1e30]), "int32", [-(2**31), 7, 2**31 - 1]),
    "float to int64": (np.array([-1e30, 7, 1e30]), "int64", [-(2**63), 7, np.nextafter(2.0**63, 0)]),
}


@pytest.mark.parametrize(("array", "dtype", "wanted"), SATURATED.values(), ids=SATURATED)
def test_integers_saturate(array: np.ndarray, dtype: str, wanted: list[int]) -> None:
    given_ = to_file(bound(dtype), array)
    assert given_.dtype == dtype
    assert [int(value) for value in given_] == [int(value) for value in wanted]


def test_extremes_saturate_and_nan_is_zero() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 3.4e38, 0], np.float32)
    assert to_file(bound(scale=1e-3, zero_point=5), x).tolist() == [127, -128, 5, 127, 5]


def test_int32_steps_are_exact() -> None:
    binding = bound("int32", scale=0.5, zero_point=1)
    x = np.array([2.0**25 + 0.5, -(2.0**29), 2.0**31], np.float64)
    assert to_file(binding, x).tolist() == [2**26 + 2, 1 - 2**30, 2**31 - 1]
    assert from_file(binding, np.array([2**26 + 2], np.int32), "float64").tolist() == [2.0**25 + 0.5]


def test_an_integer_signature_gets_rounded_and_saturated_values() -> None:
    steps = np.array([-128, 0, 3, 127], np.int8)
    assert from_file(bound(scale=0.6), steps, "uint8").tolist() == [0, 0, 2, 76]
    assert from_file(bound(scale=9.0), steps, "int8").tolist() == [-128, 0, 27, 127]
    images = np.arange(256, dtype=np.uint8)
    shifted = bound(scale=1.0, zero_point=-128)
    np.testing.assert_array_equal(from_file(shifted, to_file(shifted, images), "uint8"), images)


def test_wide_files_serve_narrow_signatures() -> None:
    assert from_file(bound("int32"), np.array([1, 2**20], np.int32), "int64").dtype == np.int64
    assert from_file(bound("float32"), np.array([1.5], np.float32), "float16").dtype == np.float16
