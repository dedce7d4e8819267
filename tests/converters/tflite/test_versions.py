"""Versions of operators: the lowest that is right, and never above what the runtimes have."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from converters.tflite.model import Operator, Options, Subgraph, Tensor, TfliteModel
from converters.tflite.options import defaults
from converters.tflite.pack import write_file
from converters.tflite.versions import MAXIMA, needed_version, runtime_version
from tests.converters.tflite.one_operator import constant, fed, model, needs_tflite_runtime, run_other, scales

IMAGE = (1, 6, 6, 8)
FILTER = (4, 3, 3, 8)


def i8(name: str, shape: tuple[int, ...], per_channel: int = 0) -> Tensor:
    return fed(name, shape, "int8", scales([0.5] * per_channel if per_channel else 0.5))


CASES: dict[str, tuple[int, str, list[Tensor | None], Tensor, Options]] = {
    "float add": (1, "ADD", [fed("a", (2,)), fed("b", (2,))], fed("y", (2,)), {}),
    "int8 add": (2, "ADD", [i8("a", (2,)), i8("b", (2,))], i8("y", (2,)), {}),
    "int64 add": (4, "ADD", [fed("a", (2,), "int64"), fed("b", (2,), "int64")], fed("y", (2,), "int64"), {}),
    "plain int16 add": (5, "ADD", [fed("a", (2,), "int16"), fed("b", (2,), "int16")], fed("y", (2,), "int16"), {}),
    "sub of five axes": (3, "SUB", [fed("a", (2, 1, 1, 1, 1)), fed("b", (1,))], fed("y", (2, 1, 1, 1, 1)), {}),
    "mul that scales up": (3, "MUL", [i8("a", (2,)), i8("b", (2,))], fed("y", (2,), "int8", scales(0.1)), {}),
    "mul that scales down": (2, "MUL", [i8("a", (2,)), i8("b", (2,))], fed("y", (2,), "int8", scales(0.9)), {}),
    "float conv": (1, "CONV_2D", [fed("x", IMAGE), fed("w", FILTER), fed("b", (4,))], fed("y", (1, 6, 6, 4)), {}),
    "int8 conv": (3, "CONV_2D", [i8("x", IMAGE), i8("w", FILTER, 4), None], i8("y", (1, 6, 6, 4)), {}),
    "hybrid conv": (2, "CONV_2D", [fed("x", IMAGE), i8("w", FILTER), None], fed("y", (1, 6, 6, 4)), {}),
    "hybrid conv, channels": (5, "CONV_2D", [fed("x", IMAGE), i8("w", FILTER, 4), None], fed("y", (1, 6, 6, 4)), {}),
    "grouped conv": (6, "CONV_2D", [fed("x", IMAGE), fed("w", (4, 3, 3, 4)), None], fed("y", (1, 6, 6, 4)), {}),
    "dilated depthwise": (
        2, "DEPTHWISE_CONV_2D", [fed("x", IMAGE), fed("w", (1, 3, 3, 8)), None], fed("y", IMAGE),
        {"dilation_w_factor": 2},
    ),
    "int8 depthwise": (3, "DEPTHWISE_CONV_2D", [i8("x", IMAGE), i8("w", (1, 3, 3, 8)), None], i8("y", IMAGE), {}),
    "float rows": (1, "FULLY_CONNECTED", [fed("x", (1, 4)), fed("w", (3, 4)), fed("b", (3,))], fed("y", (1, 3)), {}),
    "rows without bias": (6, "FULLY_CONNECTED", [fed("x", (1, 4)), fed("w", (3, 4)), None], fed("y", (1, 3)), {}),
    "rows of more axes": (
        5, "FULLY_CONNECTED", [fed("x", (1, 2, 4)), fed("w", (3, 4)), fed("b", (3,))], fed("y", (1, 2, 3)),
        {"keep_num_dims": True},
    ),
    "int8 rows": (
        4, "FULLY_CONNECTED", [i8("x", (1, 4)), i8("w", (3, 4), 3), fed("b", (3,), "int32")], i8("y", (1, 3)), {},
    ),
    "hybrid rows": (3, "FULLY_CONNECTED", [fed("x", (1, 4)), i8("w", (3, 4)), fed("b", (3,))], fed("y", (1, 3)), {}),
    "hybrid rows, channels": (
        12, "FULLY_CONNECTED", [fed("x", (1, 4)), i8("w", (3, 4), 3), fed("b", (3,))], fed("y", (1, 3)), {},
    ),
    "transposed conv with bias": (
        3, "TRANSPOSE_CONV",
        [fed("s", (4,), "int32"), i8("w", FILTER), i8("x", (1, 6, 6, 8)), fed("b", (4,), "int32")],
        i8("y", (1, 6, 6, 4)), {},
    ),
    "six axes turned": (6, "TRANSPOSE", [fed("x", (1,) * 6), fed("p", (6,), "int32")], fed("y", (1,) * 6), {}),
    "int8 turned": (2, "TRANSPOSE", [i8("x", (1, 2)), fed("p", (2,), "int32")], i8("y", (2, 1)), {}),
    "half pixels": (
        3, "RESIZE_BILINEAR", [i8("x", IMAGE), fed("s", (2,), "int32")], i8("y", IMAGE), {"half_pixel_centers": True},
    ),
    "quantise": (1, "QUANTIZE", [fed("x", (2,))], i8("y", (2,)), {}),
    "requantise": (2, "QUANTIZE", [i8("x", (2,))], i8("y", (2,)), {}),
    "quantise channels": (3, "QUANTIZE", [fed("x", (2,))], i8("y", (2,), 2), {}),
    "int8 weights to float": (5, "DEQUANTIZE", [i8("x", (2,), 2)], fed("y", (2,)), {}),
    "float16 weights to float": (3, "DEQUANTIZE", [fed("x", (2,), "float16")], fed("y", (2,)), {}),
    "broadcast": (2, "BROADCAST_TO", [fed("x", (1,)), fed("s", (1,), "int32")], fed("y", (3,)), {}),
    "cast to int8": (3, "CAST", [fed("x", (1,))], fed("y", (1,), "int8"), {}),
    "split int8": (2, "SPLIT", [fed("a", (), "int32"), i8("x", (2,))], i8("y", (1,)), {"num_splits": 2}),
    "where of floats": (2, "WHERE", [fed("x", (2,))], fed("y", (0, 1), "int64"), {}),
    "gather in batches": (
        5, "GATHER", [fed("x", (2, 3)), fed("i", (2, 1), "int32")], fed("y", (2, 1)), {"batch_dims": 1, "axis": 1},
    ),
    "slice with an offset": (
        8, "STRIDED_SLICE", [fed("x", (4,)), *(fed(n, (1,), "int32") for n in "bes")], fed("y", (2,)), {"offset": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_needed_version(case: tuple[int, str, list[Tensor | None], Tensor, Options], tmp_path: Path) -> None:
    version, code, inputs, output, options = case
    made = model(code, inputs, [output], options)
    (operator,) = made.main.operators
    assert operator.version == version
    assert needed_version(replace(operator, version=99), made.main.tensors) == version
    write_file(made, tmp_path / "one.tflite")
    Interpreter(model_path=str(tmp_path / "one.tflite"))


@needs_tflite_runtime
def test_tflite_runtime_has_what_its_maxima_say(tmp_path: Path) -> None:
    jobs, expected = [], []
    for name, (version, code, inputs, output, options) in CASES.items():
        path = tmp_path / f"{name}.tflite"
        write_file(model(code, inputs, [output], options), path)
        jobs.append((path, None))
        expected.append(version <= MAXIMA["tflite-runtime"][code])
    answers = [str(one) for one in run_other(jobs)]
    assert ["Didn't find op" not in answer for answer in answers] == expected


def lone(code: str, version: int) -> TfliteModel:
    """An operator in a file that will not run: what is asked is whether the runtime knows the version."""
    operator = Operator(code, (0,), (1,), defaults(code), version)
    return TfliteModel([Subgraph("main", [fed("x", (1,)), fed("y", (1,))], [operator], (0,), (1,))])


def known(path: Path) -> bool:
    try:
        Interpreter(model_path=str(path))
    except ValueError as error:
        return re.search("Didn't find op", str(error)) is None
    return True


@pytest.mark.parametrize("code", MAXIMA["litert"])
def test_litert_has_exactly_the_versions_of_the_table(code: str, tmp_path: Path) -> None:
    highest = MAXIMA["litert"][code]
    paths = {version: tmp_path / f"{version}.tflite" for version in (highest, highest + 1)}
    for version, path in paths.items():
        write_file(lone(code, version), path)
    assert [known(path) for path in paths.values()] == [True, False]


@needs_tflite_runtime
def test_tflite_runtime_has_exactly_the_versions_of_the_table(tmp_path: Path) -> None:
    jobs, expected = [], []
    for code, highest in MAXIMA["tflite-runtime"].items():
        for version in (highest, highest + 1):
            path = tmp_path / f"{code}.{version}.tflite"
            write_file(lone(code, version), path)
            jobs.append((path, None))
            expected.append((code, version == highest))
    answers = [str(one) for one in run_other(jobs)]
    assert [
        (code, "Didn't find op" not in answer) for (code, _), answer in zip(expected, answers, strict=True)
    ] == expected


def test_no_runtime_knows_less_than_an_older_one() -> None:
    assert {code for code, highest in MAXIMA["tflite-runtime"].items() if MAXIMA["litert"][code] < highest} == set()


def test_versions_and_releases_that_are_unknown_do_not_count() -> None:
    operators = [Operator("ADD", (), ()), Operator("CUMSUM", (), ()), Operator("ADD", (), (), version=99)]
    assert runtime_version(operators) == "2.4.0"
    assert runtime_version([Operator("CUSTOM", (), (), custom="Mine")]) == ""


def test_releases_are_compared_as_numbers() -> None:
    assert runtime_version([Operator("CONV_2D", (), (), version=6), Operator("CONV_2D", (), (), version=7)]) == "2.11.0"


def test_what_a_custom_operator_needs_is_its_own_affair() -> None:
    operator = Operator("CUSTOM", (0,), (0,), version=3, custom="Mine")
    assert needed_version(operator, [constant("x", np.zeros(1, np.float32))]) == 3
