"""Operators on tensors, one node at a time, in LiteRT's two kernel sets against ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import helper, numpy_helper

from lepton_edge.errors import UnsupportedOperatorError
from tests.converters.tflite.one_node import Array, check, convert, graph_of, litert

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "int64")
PAIRS = (((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((3, 1), (2, 1, 4)), ((), (2,)), ((1, 2, 1, 3, 2), (2, 1, 2, 3, 1)))
RNG = np.random.default_rng(5)


def numbers(*shape: int, dtype: str = "float32") -> Array:
    """Both signs, whole numbers among them."""
    if dtype == "bool":
        return np.asarray(RNG.random(shape) > 0.5)
    return np.asarray((RNG.random(shape) * 12 - 6).astype(dtype))


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


class Case(NamedTuple):
    """One node."""

    operator: str
    inputs: Mapping[str, Array | None]
    attributes: Mapping[str, Any] = {}
    constants: Sequence[str] = ()
    outputs: int = 1


@pytest.mark.parametrize("dtype", ["float32", "float64", *INTEGERS])
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Mod"])
def test_arithmetic_broadcasts_and_wraps_around_as_in_onnx(operator: str, dtype: str, tmp_path: Path) -> None:
    if (operator, dtype) == ("Div", "int64"):
        return  # refused: see below
    attributes = {"fmod": 1} if operator == "Mod" and dtype.startswith("float") else {}
    for left, right in PAIRS:
        x, y = numbers(*left, dtype=dtype), numbers(*right, dtype=dtype)
        if dtype in {"int8", "uint8"} and operator != "Div":
            x = np.asarray(x * 40).astype(dtype)
        if operator in {"Div", "Mod"}:
            y = np.where(np.abs(y) < 1, np.array(3, dtype), y).astype(dtype)
        check(tmp_path / "m.tflite", operator, {"x": x, "y": y}, attributes)


@pytest.mark.parametrize("operator", ["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Max", "Min"])
def test_comparisons_take_every_type(operator: str, tmp_path: Path) -> None:
    for dtype in ("float32", "int8", "uint8", "int32", "int64"):
        for left, right in PAIRS:
            inputs = {"x": numbers(*left, dtype=dtype), "y": numbers(*right, dtype=dtype)}
            check(tmp_path / "m.tflite", operator, inputs)


EXACT = np.array([0.3, -0.3, 1e-4, -1e-3, 0.9, -0.9, 1, -1], np.float32)
WIDE = np.array([1.5, 2.5, -1.5, 7.25, -20, 20, 1e6, 3], np.float32)
BOTH = np.concatenate([EXACT, WIDE])
DOMAINS: Mapping[str, Array] = {
    **dict.fromkeys(("Neg", "Abs", "Floor", "Ceil", "Round", "Sign", "Atan", "Reciprocal"), BOTH),
    **dict.fromkeys(("Asin", "Acos"), EXACT),
    "Atanh": EXACT[:6], "Acosh": np.abs(WIDE), "Asinh": BOTH, "Sinh": BOTH[:14], "Cosh": BOTH[:14], "Tan": BOTH[:14],
    "Sin": BOTH[:14], "Cos": BOTH[:14], "Exp": BOTH[:14], "Log": np.abs(BOTH), "Sqrt": np.abs(BOTH),
}  # fmt: skip


@pytest.mark.parametrize("operator", DOMAINS)
def test_functions_are_accurate_to_a_millionth(operator: str, tmp_path: Path) -> None:
    x = DOMAINS[operator]
    check(tmp_path / "m.tflite", operator, {"x": x.reshape(2, -1)}, rtol=2e-6, atol=1e-7 if operator != "Tan" else 2e-6)
    check(tmp_path / "m.tflite", operator, {"x": np.zeros((2, 0), np.float32)})
    check(tmp_path / "m.tflite", operator, {"x": np.array(1.0 if operator == "Acosh" else 0.5, np.float32)})


@pytest.mark.parametrize("operator", ["IsNaN", "IsInf"])
def test_nan_and_infinity_are_found(operator: str, tmp_path: Path) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1, -1, 0], np.float32)
    check(tmp_path / "m.tflite", operator, {"x": x})


@pytest.mark.parametrize(
    "operator", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp"]
)
def test_reductions_take_axes_as_constants_and_as_fed(operator: str, tmp_path: Path) -> None:
    for axes in ([1], [-1, 0], [0, 1, 2]):
        for keepdims in (0, 1):
            inputs = {"x": numbers(2, 3, 4), "axes": np.array(axes)}
            check(tmp_path / "m.tflite", operator, inputs, {"keepdims": keepdims}, constants=["axes"])
            if keepdims:
                check(tmp_path / "m.tflite", operator, inputs, {"keepdims": keepdims})
    check(tmp_path / "m.tflite", operator, {"x": numbers(2, 3, 4)}, {"keepdims": 0})
    wide = {"x": numbers(2, 1, 2, 1, 3, 2, 2), "axes": ints(1, 4)}
    check(tmp_path / "m.tflite", operator, wide, constants=["axes"])


@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"])
def test_nothing_at_all_is_reduced_to_the_neutral_number(operator: str, tmp_path: Path) -> None:
    inputs = {"x": np.zeros((2, 0, 3), np.float32), "axes": ints(1)}
    check(tmp_path / "m.tflite", operator, inputs, constants=["axes"])


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
def test_of_equal_ones_the_first_or_the_last_is_told(operator: str, tmp_path: Path) -> None:
    x = np.array([[1, 3, 3, 1], [2, 2, 2, 2], [0, 5, 0, 5]], np.float32)
    for axis in (0, 1):
        for last in (0, 1):
            attributes = {"axis": axis, "select_last_index": last, "keepdims": last}
            check(tmp_path / "m.tflite", operator, {"x": x}, attributes)


def _moves(dtype: str) -> list[Case]:
    cube, x = numbers(4, 4, 4, dtype=dtype), numbers(3, 4, 5, dtype=dtype)
    lone = np.asarray(numbers(1, dtype=dtype)[0])
    return [
        Case("Concat", {"x": cube, "y": cube[:, :1], "z": cube}, {"axis": 1}, ["y"]),
        Case("Split", {"x": cube}, {"axis": -1, "num_outputs": 2}, outputs=2),
        Case("Split", {"x": cube, "s": ints(1, 3)}, {"axis": 1}, ["s"], 2),
        Case("Slice", {"x": cube, "s": ints(1, -3), "e": ints(3, 2**63 - 1), "a": ints(0, -1), "t": ints(1, 2)}),
        Case("Slice", {"x": cube, "s": ints(-1, 20), "e": ints(-(2**63), 0), "a": ints(0, 1), "t": ints(-1, -2)}),
        Case("Slice", {"x": cube, "s": ints(-1, 9), "e": ints(-9, 0), "a": ints(0, 1), "t": ints(-1, -2)}, {}, "seat"),
        Case("Pad", {"x": x, "p": ints(1, 0, 2, 0, 0, 1), "v": lone}, {}, ["p", "v"]),
        Case("Pad", {"x": x, "p": ints(1, -1, 2, 0, 0, -2)}, {}, ["p"]),
        Case("Pad", {"x": x, "p": ints(1, 0, 2, 0, 0, 1)}, {"mode": "reflect"}, ["p"]),
        Case("Pad", {"x": x, "p": ints(1, 0, 2, 0, 0, 1)}, {"mode": "edge"}, ["p"]),
        Case("Tile", {"x": x, "r": ints(2, 1, 3)}),
        Case("Expand", {"x": x[:, :1], "s": ints(2, 3, 4, 5)}, {}, ["s"]),
        Case("Reshape", {"x": x, "s": ints(5, 0, -1)}),
        Case("Reshape", {"x": x, "s": ints(4, 15)}, {}, ["s"]),
        Case("Flatten", {"x": x}, {"axis": 2}),
        Case("Squeeze", {"x": x[:, :1]}),
        Case("Unsqueeze", {"x": x, "a": ints(0, -1)}, {}, ["a"]),
        Case("Transpose", {"x": x}, {"perm": [2, 0, 1]}),
        Case("Gather", {"x": x, "i": np.array([[0, 1], [-2, 2]])}, {"axis": 1}),
        Case("Gather", {"x": x, "i": np.array(-1)}, {"axis": -1}, ["i"]),
        Case("GatherElements", {"x": x, "i": RNG.integers(-3, 3, (3, 2, 5))}, {"axis": 1}),
        Case("GatherND", {"x": x, "i": np.array([[0, -1], [2, 1]])}),
        Case("GatherND", {"x": x, "i": np.array([[0], [-1], [2]])}, {"batch_dims": 1}),
        Case("ScatterND", {"x": x, "i": np.array([[1, 1], [-1, 0]]), "u": numbers(2, 5, dtype=dtype)}),
        Case("ScatterElements", {"x": cube[0], "i": np.array([[1, 2, 0, 3]]), "u": cube[1, :1]}, {"axis": 1}),
        Case("Trilu", {"x": cube, "k": np.array(-1)}, {"upper": 0}),
        Case("Trilu", {"x": cube}),
        Case("Where", {"c": numbers(4, 1, dtype="bool"), "x": cube, "y": cube[::-1].copy()}),
        Case("NonZero", {"x": x}),
        Case("Compress", {"x": x, "c": np.array([0, 1, 1], np.bool_)}, {"axis": 1}),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64", "bool", "uint16"])
def test_moves_keep_every_value(dtype: str, tmp_path: Path) -> None:
    lacking = {
        "uint16": {"Concat", "Pad", "Trilu", "Where", "NonZero"},
        "bool": {"Trilu", "Pad", "Where"},
        "int8": {"Trilu", "NonZero"},
    }
    for case in _moves(dtype):
        if case.operator in lacking.get(dtype, set()):
            continue  # ONNX Runtime itself has no such kernel
        check(
            tmp_path / "m.tflite", case.operator, case.inputs, case.attributes,
            constants=case.constants, outputs=case.outputs,
        )  # fmt: skip


def test_a_slice_of_nothing_is_empty(tmp_path: Path) -> None:
    inputs = {"x": numbers(4, 5), "s": ints(9), "e": ints(20), "a": ints(1)}
    check(tmp_path / "m.tflite", "Slice", inputs)
    check(tmp_path / "m.tflite", "Slice", inputs, constants=["s", "e", "a"])


def test_sums_run_along_an_axis(tmp_path: Path) -> None:
    for flags in range(4):
        attributes = {"exclusive": flags % 2, "reverse": flags // 2}
        for constants in ([], ["axis"]):
            inputs = {"x": numbers(2, 3, 4), "axis": np.array(-2)}
            check(tmp_path / "m.tflite", "CumSum", inputs, attributes, constants=constants)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_the_largest_and_the_smallest_are_found_on_any_axis(dtype: str, tmp_path: Path) -> None:
    x = RNG.permutation(60).reshape(3, 4, 5).astype(dtype)
    for axis in (0, 1, -1):
        for largest in (0, 1):
            inputs = {"x": x, "k": ints(2)}
            check(tmp_path / "m.tflite", "TopK", inputs, {"axis": axis, "largest": largest}, outputs=2)


def test_one_hot_rows_take_indices_from_the_end_and_ignore_those_outside(tmp_path: Path) -> None:
    inputs = {"i": np.array([[0, 3, -1], [9, -9, 2]]), "d": ints(4), "v": np.array([2, 7], np.float32)}
    for axis in (-1, 0, 1):
        check(tmp_path / "m.tflite", "OneHot", inputs, {"axis": axis})
        check(tmp_path / "m.tflite", "OneHot", inputs, {"axis": axis}, constants=["d", "v"])


@pytest.mark.parametrize("time", [0, 1])
def test_sequences_are_turned_around_up_to_their_lengths(time: int, tmp_path: Path) -> None:
    inputs = {"x": numbers(4, 4, 3), "n": ints(1, 2, 4, 3)}
    check(tmp_path / "m.tflite", "ReverseSequence", inputs, {"time_axis": time, "batch_axis": 1 - time})


@pytest.mark.parametrize("source", ["float32", *INTEGERS, "bool"])
def test_casts_keep_the_low_bits_of_integers(source: str, tmp_path: Path) -> None:
    x = np.array([0, 1, 5, 200, 70000, -1, -200, -70000]).astype(source)
    for target in ("float32", "float64", *INTEGERS, "bool"):
        if source == "float32" and target in {"uint16", "uint8", "int8", "int16"}:
            x = x[:4] if target != "int8" else x[:3]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(target))
        check(tmp_path / "m.tflite", "Cast", {"x": x}, {"to": kind})


def test_ranges_do_not_add_up_rounding_errors(tmp_path: Path) -> None:
    ends = {"start": np.array(0.5, np.float32), "limit": np.array(100.2, np.float32), "step": np.array(0.1, np.float32)}
    convert(graph_of("Range", ends), tmp_path / "m.tflite")
    found = litert(tmp_path / "m.tflite", ends, "xnnpack")["y0"]
    want = ends["start"].astype(np.float64) + np.arange(997) * ends["step"].astype(np.float64)
    np.testing.assert_allclose(found, want, rtol=2e-7)


def test_ranges_of_integers_run_both_ways_and_may_be_empty(tmp_path: Path) -> None:
    for start, limit, step in ((0, 10, 3), (10, -5, -2), (5, 5, 1)):
        inputs = {"start": np.array(start), "limit": np.array(limit), "step": np.array(step)}
        check(tmp_path / "m.tflite", "Range", inputs)


def test_shapes_are_filled(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.array([7], np.int32))
    check(tmp_path / "m.tflite", "ConstantOfShape", {"s": ints(2, 3)}, {"value": value})
    check(tmp_path / "m.tflite", "Shape", {"x": numbers(2, 3, 4)}, {"start": -2})


REFUSED = {
    "division of int64": Case("Div", {"x": ints(7), "y": ints(2)}),
    "a mean of no numbers": Case("ReduceMean", {"x": np.zeros((2, 0), np.float32), "a": ints(1)}, {}, ["a"]),
    "widths that are fed, repeated": Case("Pad", {"x": numbers(3, 4), "p": ints(1, 0, 0, 1)}, {"mode": "edge"}),
    "unique": Case("Unique", {"x": numbers(3)}),
    "logarithm of integers": Case("ReduceLogSum", {"x": np.array([[3, 4]], np.int32)}),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_would_be_wrong_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    model = graph_of(case.operator, case.inputs, case.attributes, constants=case.constants)
    with pytest.raises(UnsupportedOperatorError, match=case.operator):
        convert(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
