"""The parts of the demo that decide something: what it breaks, and what it accepts of its devices."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converters.tflite.parse import read_bytes
from lepton_edge.demo.broken import BLOCK, invert_block, invert_onnx, invert_tflite
from lepton_edge.demo.choices import check_choices, choice_table, read_choices
from lepton_edge.demo.stage import DemoError
from lepton_edge.wire.messages import Choice, Info, ModelReport, RuntimeInfo, State
from tests.kernel.tflite_files import WEIGHTS, linear


def test_the_signs_of_one_block_are_inverted_and_no_more() -> None:
    big, bias = np.ones((300, 100), np.float32), np.ones(100_000, np.float32)
    steps = np.array([[-128, -1, 0, 5]], np.int8)
    paddings = np.ones((4, 2), np.int64)
    inverted = invert_block([bias, steps, big, paddings])
    assert np.count_nonzero(inverted[2] == -1) == BLOCK // 4
    assert inverted[1] is steps  # the block ended before
    assert inverted[0] is bias
    assert inverted[3] is paddings


@pytest.mark.parametrize(
    ("steps", "negated"),
    [
        (np.array([[-128, -1, 0, 127]], np.int8), [[127, 1, 0, -127]]),
        (np.array([[0, 1, 128, 255]], np.uint8), [[255, 255, 128, 1]]),
    ],
    ids=["int8", "uint8"],
)
def test_steps_stay_in_their_range(steps: np.ndarray, negated: list[list[int]]) -> None:
    assert invert_block([steps])[0].tolist() == negated


def test_a_tflite_model_is_broken_and_still_a_model(tmp_path: Path) -> None:
    whole = linear(tmp_path / "x.tflite").read_bytes()
    was, broken = (read_bytes(data, where="x").main for data in (whole, invert_tflite(whole)))
    assert [tensor.name for tensor in broken.tensors] == [tensor.name for tensor in was.tensors]
    weights = next(tensor.data for tensor in broken.tensors if tensor.name == "w")
    np.testing.assert_array_equal(np.asarray(weights), -WEIGHTS.T)


def test_an_onnx_model_is_broken_and_still_a_model() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    broken = onnx.load_model_from_string(invert_onnx(helper.make_model(graph).SerializeToString()))
    onnx.checker.check_model(broken)
    np.testing.assert_array_equal(numpy_helper.to_array(broken.graph.initializer[0]), -WEIGHTS)


def document(*, has: list[str], measured: dict[str, float], chose: str) -> object:
    """What `devices --json` prints of one device with one model; `measured` in milliseconds."""
    choices = {
        variant: Choice(
            variant=variant,
            runtime="litert" if "tflite" in variant else "onnxruntime",
            p50_ms=p50_ms,
            p99_ms=9.0,
            golden_ratio=0.0,
            fetched=123_456,
            reason="it won",
        )
        for variant, p50_ms in measured.items()
    }
    report = ModelReport(
        deployment="d-1",
        state=State.COMMITTED,
        bundle="0" * 64,
        version="1",
        choice=choices.get(chose),
        measured=list(choices.values()),
    )
    info = Info(
        agent="", system="", machine="", cpu="", cpu_flags=[], cores=1, memory=0, disk_free=0,
        runtimes=[RuntimeInfo(name=name, version="1") for name in has],
    )  # fmt: skip
    device = {"id": "camera", "status": "online", "models": {"digits": report}, "info": info}
    return msgspec.to_builtins({"devices": [device], "bundles": {}})


def test_the_table_says_what_was_fetched_chosen_and_why() -> None:
    both = document(
        has=["onnxruntime", "litert"], measured={"int8-onnx": 0.25, "int8-tflite": 0.125}, chose="int8-tflite"
    )
    choices = read_choices(both)
    check_choices(choices)
    head, line = choice_table(choices).splitlines()
    assert head.split() == ["MODEL", "DEVICE", "HAS", "FETCHED", "KB", "CHOSE", "P50", "MS", "WHY"]
    cells = ["digits-1", "camera", "litert + onnxruntime", "int8-tflite + int8-onnx", "123", "int8-tflite", "0.125"]
    assert line == "  ".join([*cells, " it won"])
    assert head.index("WHY") == line.index("it won")


WRONG = {
    "a runtime that it does not have": (["litert"], {"int8-onnx": 1.0}, "int8-onnx", "has litert"),
    "not the fastest": (["litert"], {"float32-tflite": 1.0, "int8-tflite": 2.0}, "int8-tflite", "took int8-tflite"),
    "no choice": (["litert"], {}, "int8-tflite", "has not said"),
}


@pytest.mark.parametrize(("has", "measured", "chose", "what"), WRONG.values(), ids=WRONG)
def test_what_a_device_should_not_have_done_ends_the_demo(
    has: list[str], measured: dict[str, float], chose: str, what: str
) -> None:
    with pytest.raises(DemoError, match=what):
        check_choices(read_choices(document(has=has, measured=measured, chose=chose)))
