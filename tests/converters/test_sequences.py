"""Models whose state is fed back: stepping, calibration over sequences, and a session that takes whole sequences."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from converters.calibrate import calibrate, runner
from converters.data.dataset import Dataset
from converters.data.open import open_data
from converters.data.sequence import (
    Recurrence,
    parse_state,
    recurrence,
    run_sequence,
    stateful_session,
    step_samples,
)
from converters.graph.signature import read_signature
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Binding, ModelSignature, TensorSpec, Variant
from lepton_edge.errors import DataError, ModelError, UsageError
from lepton_edge.runtimes import Session
from lepton_edge.runtimes.onnxruntime import OnnxRuntime
from tests.converters import models

HIDDEN, INPUT, STEPS = 8, 3, 12
STATE = {"h_out": "h_in", "c_out": "c_in"}


def step_net() -> onnx.ModelProto:
    """One LSTM step that forgets little: its cell grows along a sequence. x (1, 3), h and c (1, 1, 8) -> y (1, 2)."""
    rng = np.random.default_rng(0)
    gates = np.concatenate([np.full(HIDDEN, bias) for bias in (2.0, 2.0, 6.0, 0.5)])  # input, output, forget, cell
    weights = {
        "w": (0.1 * rng.standard_normal((1, 4 * HIDDEN, INPUT))).astype(np.float32),
        "r": (0.1 * rng.standard_normal((1, 4 * HIDDEN, HIDDEN))).astype(np.float32),
        "b": np.concatenate([gates, np.zeros(4 * HIDDEN)])[np.newaxis].astype(np.float32),
        "head": rng.standard_normal((HIDDEN, 2)).astype(np.float32),
        "first": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x", "first"], ["xs"], "time"),
        helper.make_node(
            "LSTM", ["xs", "w", "r", "b", "", "h_in", "c_in"], ["", "h_out", "c_out"], "cell", hidden_size=8
        ),
        helper.make_node("Squeeze", ["h_out", "first"], ["h"], "flat"),
        helper.make_node("MatMul", ["h", "head"], ["y"], "head"),
    ]
    state: dict[str, list[int | str]] = {"h_in": [1, 1, HIDDEN], "c_in": [1, 1, HIDDEN]}
    out: dict[str, list[int | str]] = {"y": [1, 2], "h_out": [1, 1, HIDDEN], "c_out": [1, 1, HIDDEN]}
    return models.model(nodes, weights, inputs={"x": [1, INPUT], **state}, outputs=out, opset=20)


@pytest.fixture
def how() -> Recurrence:
    return recurrence(read_signature(step_net(), where="net"), STATE, where="net")


@pytest.fixture
def data(how: Recurrence) -> Dataset:
    x = np.random.default_rng(1).standard_normal((10, STEPS, INPUT)).astype(np.float32)
    return open_data({"x": x, "y": np.arange(10) % 2}, how.sequence_signature())


@pytest.fixture
def session(tmp_path: Path) -> Session:
    path = tmp_path / "net.onnx"
    onnx.save(step_net(), path)
    signature = read_signature(step_net(), where="net")
    variant = Variant(
        name="float32-onnx",
        file="net.onnx",
        format="onnx",
        precision="float32",
        runtime="onnxruntime",
        profile="any",
        inputs=[Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in signature.inputs],
        outputs=[Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in signature.outputs],
        rank=0,
        tolerance=1.0,
    )
    return Session(OnnxRuntime().load(path, threads=1), signature, variant)


def by_hand(session: Session, x: np.ndarray) -> list[tuple[Arrays, Arrays]]:
    h, c = np.zeros((2, 1, 1, HIDDEN), np.float32)
    walked = []
    for row in x:
        inputs = {"x": row[np.newaxis], "h_in": h, "c_in": c}
        outputs = session.run(inputs)
        walked.append((inputs, outputs))
        h, c = outputs["h_out"], outputs["c_out"]
    return walked


def test_data_carry_a_time_axis_and_no_state(how: Recurrence, data: Dataset) -> None:
    signature = how.sequence_signature()
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [("x", [1, "time", INPUT])]
    assert [spec.name for spec in signature.outputs] == ["y", "h_out", "c_out"]
    assert data.inputs(0)["x"].shape == (1, STEPS, INPUT)
    with pytest.raises(DataError, match="shape"):
        open_data({"x": np.zeros((10, INPUT), np.float32)}, signature)


def test_the_last_steps_outputs_are_those_of_stepping_by_hand(how: Recurrence, data: Dataset, session: Session) -> None:
    sample = data.inputs(3)
    expected = by_hand(session, sample["x"][0])[-1][1]
    for got in (run_sequence(session.run, sample, how), stateful_session(session, how).run(sample)):
        assert list(got) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(got[name], array)


def test_a_stateful_session_stands_in_for_a_session(how: Recurrence, data: Dataset, session: Session) -> None:
    whole = stateful_session(session, how)
    assert whole.signature == how.sequence_signature()
    assert whole.variant.name == session.variant.name
    many = np.concatenate([data.inputs(index)["x"] for index in range(4)])
    joined = whole.run_samples({"x": many})["y"]
    np.testing.assert_array_equal(joined[2:3], whole.run(data.inputs(2))["y"])
    with pytest.raises(DataError, match="h_in"):
        whole.run({"x": many[:1], "h_in": np.zeros((1, 1, HIDDEN), np.float32)})


def test_each_sequence_starts_anew(how: Recurrence, data: Dataset, session: Session) -> None:
    whole = stateful_session(session, how)
    first = whole.run(data.inputs(0))["y"]
    whole.run(data.inputs(1))
    np.testing.assert_array_equal(whole.run(data.inputs(0))["y"], first)


def test_step_samples_hold_real_state(how: Recurrence, data: Dataset, session: Session) -> None:
    steps = step_samples(data, how, session.run, 16)
    assert {name: array.shape for name, array in steps.items()} == {
        "x": (16, INPUT),
        "h_in": (16, 1, HIDDEN),
        "c_in": (16, 1, HIDDEN),
    }
    last = by_hand(session, data.inputs(15 % len(data))["x"][0])[-1][0]
    for name, array in last.items():
        np.testing.assert_array_equal(steps[name][-1:], array)
    assert np.abs(steps["c_in"][-1]).max() > 2
    one = step_samples(data, how, session.run, 1)
    np.testing.assert_array_equal(one["x"], data.inputs(0)["x"][:, -1])


def test_calibration_over_sequences_sees_the_state_that_one_step_never_reaches(
    how: Recurrence, data: Dataset, session: Session
) -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(step_net()))
    found = calibrate(model, data, state=STATE, where="net")
    walked = [step for index in range(len(data)) for step in by_hand(session, data.inputs(index)["x"][0])]
    for name in ("x", "h_in", "c_in", "h_out", "c_out", "y"):
        values = np.concatenate([{**given, **got}[name].ravel() for given, got in walked])
        assert found[name].seen == values.size
        assert found[name].minimum == pytest.approx(float(values.min()), abs=1e-5)
        assert found[name].maximum == pytest.approx(float(values.max()), abs=1e-5)
    zero = {name: np.zeros((1, 1, HIDDEN), np.float32) for name in STATE.values()}
    steps = [session.run({"x": row[np.newaxis], **zero}) for index in range(10) for row in data.inputs(index)["x"][0]]
    assert found["c_out"].maximum > 2 * max(float(step["c_out"].max()) for step in steps)
    assert found.samples == 10
    assert found.warnings == ()


def test_groups_step_alike(how: Recurrence, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(step_net()))
    whole = calibrate(model, data, state=STATE)
    monkeypatch.setattr(runner, "GROUP_BYTES", 1)
    monkeypatch.setattr(runner, "MOST_BYTES", 1)
    assert calibrate(model, data, state=STATE) == whole
    assert how.state == STATE


def test_state_is_read_from_the_command_line() -> None:
    assert parse_state(["h_out=h_in", "c_out=c_in"]) == STATE
    assert parse_state([]) == {}


@pytest.mark.parametrize("texts", [["h"], ["=h"], ["h="], ["a=b=c"], ["a=b", "a=c"], ["a=b", "c=b"]])
def test_other_forms_of_state_are_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="--state"):
        parse_state(texts)


MISFITS = {
    "no such output": ({"nope": "h_in"}, "net has no output 'nope'"),
    "no such input": ({"h_out": "nope"}, "net has no input 'nope'"),
    "another shape": ({"y": "h_in"}, r"'y' is float32 of shape \[1, 2\], 'h_in' takes float32 of shape \[1, 1, 8\]"),
    "twice": ({"h_out": "h_in", "c_out": "h_in"}, "names an input twice"),
}


@pytest.mark.parametrize(("state", "message"), MISFITS.values(), ids=MISFITS)
def test_state_that_does_not_fit_is_refused_by_name(state: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recurrence(read_signature(step_net(), where="net"), state, where="net")
    with pytest.raises(UsageError, match=message):
        calibrate(ir.from_proto(step_net()), _Nothing(), state=state, where="net")


class _Nothing:
    labels = None

    def __len__(self) -> int:
        return 1

    def inputs(self, index: int) -> Arrays:
        raise AssertionError(index)

    def describe(self, index: int) -> str:
        raise AssertionError(index)


def test_a_model_of_nothing_but_state_is_refused() -> None:
    spec = TensorSpec(name="h", dtype="float32", shape=["batch", 4])
    out = TensorSpec(name="o", dtype="float32", shape=["batch", 4])
    with pytest.raises(UsageError, match="no data could drive it"):
        recurrence(ModelSignature(inputs=[spec], outputs=[out]), {"o": "h"}, where="net")


def test_types_that_differ_are_refused() -> None:
    inputs = [TensorSpec(name=name, dtype="float32", shape=["batch", 4]) for name in ("x", "h")]
    out = TensorSpec(name="o", dtype="float16", shape=["batch", 4])
    with pytest.raises(UsageError, match="float16"):
        recurrence(ModelSignature(inputs=inputs, outputs=[out]), {"o": "h"}, where="net")


def growing() -> Recurrence:
    """The state's last axis has no fixed size."""
    inputs = [
        TensorSpec(name="x", dtype="float32", shape=["batch", 1]),
        TensorSpec(name="h", dtype="float32", shape=["batch", "past"]),
    ]
    out = TensorSpec(name="o", dtype="float32", shape=["batch", "total"])
    return recurrence(ModelSignature(inputs=inputs, outputs=[out]), {"o": "h"}, where="net")


def test_state_that_changes_its_shape_is_refused() -> None:
    def run(inputs: Arrays) -> Arrays:
        return {"o": np.concatenate([inputs["h"], inputs["x"]], axis=1)}

    with pytest.raises(ModelError, match=r"--state o=h: 'o' came out with shape \[1, 2\]"):
        run_sequence(run, {"x": np.ones((1, 3, 1), np.float32)}, growing())


def test_sequences_without_steps_or_of_unequal_length_are_refused() -> None:
    how = growing()
    with pytest.raises(DataError, match="steps"):
        list(how.steps({"x": np.ones((1, 0, 1), np.float32)}))
    with pytest.raises(DataError, match="steps"):
        list(how.steps({"x": np.ones((1, 2, 1)), "z": np.ones((1, 3, 1))}))
