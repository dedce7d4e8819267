"""ONNX's own cases for every operator: written as TFLite they compute the same, or are refused by the operator's name.

The cases come with the package onnx. Parameters are fed in most of them, which few TFLite kernels take.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

import lepton_edge as le
from lepton_edge.errors import LeptonError

KINDS = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32,
    TensorProto.INT64, TensorProto.BOOL,
}  # fmt: skip
NAMES = Path(__file__).parents[4] / "shared" / "data" / "onnx2tf_backend.json"
"""The cases of onnx 1.21, by which other converters are measured."""
SHARE = 0.8
"""Of all cases, how many pass at least; the figure reached is 0.86 of those of onnx 1.23."""


def cases() -> list[Any]:
    """Those of ONNX's own domain, on tensors of types that both sides have."""
    return [case for case in collect_testcases(None) if _usable(case)]


def _usable(case: Any) -> bool:
    graph = case.model.graph
    borders = [*graph.input, *graph.output]
    return bool(
        case.data_sets
        and all(node.domain in {"", "ai.onnx"} for node in graph.node)
        and all(one.type.HasField("tensor_type") and one.type.tensor_type.elem_type in KINDS for one in borders)
    )


def outcome(case: Any, folder: Path) -> str:
    """pass; refused; or what went wrong."""
    source, path = folder / "m.onnx", folder / "m.tflite"
    onnx.save(case.model, source)
    path.unlink(missing_ok=True)
    try:
        le.load_model(source).save(path)
    except LeptonError as error:
        named = any(node.op_type in str(error) for node in case.model.graph.node)
        old = case.model.opset_import[0].version < 7
        # An expanded case may be refused for what stands inside: a Loop, a Scan.
        return "refused" if named or old or "no TFLite for" in str(error) else f"refused without a name: {error}"
    fed, wanted = case.data_sets[0]
    found = list(
        _run(path, {entry.name: _array(value) for entry, value in zip(case.model.graph.input, fed, strict=False)})
    )
    for entry, value in zip(case.model.graph.output, wanted, strict=True):
        if not any(name == entry.name and _equal(got, _array(value)) for name, got in found):
            return f"wrong: {entry.name}"
    return "pass"


def _run(path: Path, feeds: dict[str, np.ndarray[Any, Any]]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    interpreter = Interpreter(str(path), num_threads=1)
    entries = interpreter.get_input_details()
    for entry in entries:
        if tuple(entry["shape"]) != feeds[entry["name"]].shape:
            interpreter.resize_tensor_input(entry["index"], feeds[entry["name"]].shape)
    interpreter.allocate_tensors()
    for entry in entries:
        interpreter.set_tensor(entry["index"], feeds[entry["name"]].astype(entry["dtype"]))
    interpreter.invoke()
    for entry in interpreter.get_output_details():
        yield entry["name"], interpreter.get_tensor(entry["index"])


def _array(value: Any) -> np.ndarray[Any, Any]:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _equal(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> bool:
    """The tolerance of the cases is 1e-3; float64 and float16 are computed in float32."""
    if got.shape != want.shape:
        return False
    return np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=1e-3, atol=1e-4, equal_nan=True)


def _outcomes(chosen: Sequence[Any], folder: Path) -> dict[str, str]:
    found = {}
    for case in chosen:
        try:
            found[case.name] = outcome(case, folder)
        except (RuntimeError, ValueError) as error:  # LiteRT's own, when it loads or runs the file
            found[case.name] = f"crashed: {error}"
    return found


def _check(found: dict[str, str]) -> None:
    assert {name: told for name, told in found.items() if told not in {"pass", "refused"}} == {}
    assert sum(told == "pass" for told in found.values()) >= SHARE * len(found)


@pytest.mark.filterwarnings("ignore")
def test_a_part_of_onnxs_cases_passes_or_is_refused(tmp_path: Path) -> None:
    _check(_outcomes(cases()[::8], tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_of_onnxs_cases_pass_or_are_refused(tmp_path: Path) -> None:
    found = _outcomes(cases(), tmp_path)
    _check(found)
    if not NAMES.exists():
        pytest.skip(f"{NAMES} is not here: the number of passes among its names is not compared")
    names = json.loads(NAMES.read_text(encoding="utf-8"))
    assert sum(found.get(name) == "pass" for name in names) >= 1000
