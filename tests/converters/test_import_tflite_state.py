"""Recurrent operators of TFLite, read and run by ONNX Runtime, against LiteRT on the file; state that stays."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.importers import import_model
from converters.importers.tflite.convert import to_onnx
from converters.tflite.model import Operator, Quantization, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file
from converters.tflite.versions import with_versions
from lepton_edge.errors import UnsupportedOperatorError
from tests.converters.test_import_tflite import run_onnx
from tests.converters.tflite_ops import run_litert

TIME, BATCH, INPUTS, CELLS = 5, 2, 4, 3
Parts = list[np.ndarray | None]


def weights(*shape: int) -> np.ndarray:
    return (np.random.default_rng(shape).normal(size=shape) * 0.5).astype(np.float32)


def cell(*, outputs: int = CELLS, coupled: bool = False, peep: bool = False) -> Parts:
    """Weights of one direction of an LSTM, as the operator lists them."""
    given: Parts = [weights(CELLS, INPUTS + gate)[:, :INPUTS] for gate in range(4)]
    given += [weights(CELLS, outputs + gate)[:, :outputs] for gate in range(4)]
    given += [weights(CELLS, 9 + gate)[:, 0] if peep else None for gate in range(3)]
    given += [weights(CELLS, 20 + gate)[:, 0] for gate in range(4)]
    given += [weights(outputs, CELLS), weights(outputs)] if outputs != CELLS else [None, None]
    for gate in (0, 4, 8, 11) if coupled else ():
        given[gate] = None
    return given


def model(
    code: str, parts: Parts, states: Sequence[int], options: Mapping[str, object], *, after: Parts = ()
) -> TfliteModel:
    """A file of one operator, batch first where the options do not say otherwise."""
    shape = (TIME, BATCH, INPUTS) if options.get("time_major") else (BATCH, TIME, INPUTS)
    tensors, places = [Tensor("x", shape, "float32")], [0]
    for number, one in enumerate((*parts, *states, *after)):
        if one is None:
            places.append(-1)
            continue
        places.append(len(tensors))
        if isinstance(one, np.ndarray):
            tensors.append(Tensor(f"w{number}", one.shape, "float32", data=one))
        else:
            tensors.append(Tensor(f"state{number}", (BATCH, one), "float32", variable=True))
    outputs = 1 if options.get("merge_outputs", True) else 2
    wide = (2 if options.get("merge_outputs") else 1) * states[0]
    made = tuple(len(tensors) + at for at in range(outputs))
    tensors += [Tensor(f"y{at}", (*shape[:2], wide), "float32") for at in range(outputs)]
    operator = Operator(code, tuple(places), made, {"fused_activation_function": "TANH", **options})
    return with_versions(TfliteModel([Subgraph("main", tensors, [operator], (0,), made)]))


LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
NORM: Parts = [weights(CELLS, 30 + gate)[:, 0] for gate in range(4)]
RNN: Parts = [weights(CELLS, INPUTS), weights(CELLS, CELLS), weights(CELLS)]
CASES: dict[str, TfliteModel] = {
    "LSTM": model(LSTM, cell(), [CELLS, CELLS], {}),
    "LSTM, time first": model(LSTM, cell(), [CELLS, CELLS], {"time_major": True}),
    "LSTM with peepholes": model(LSTM, cell(peep=True), [CELLS, CELLS], {}),
    "LSTM with coupled gates": model(LSTM, cell(coupled=True, peep=True), [CELLS, CELLS], {}),
    "LSTM with ReLU": model(LSTM, cell(), [CELLS, CELLS], {"fused_activation_function": "RELU"}),
    "LSTM with projection": model(LSTM, cell(outputs=2), [2, CELLS], {"proj_clip": 0.1}),
    "LSTM that is clipped": model(LSTM, cell(), [CELLS, CELLS], {"cell_clip": 0.2}),
    "LSTM with normalisation": model(LSTM, cell(peep=True), [CELLS, CELLS], {}, after=NORM),
    "LSTM, both ways": model(
        "BIDIRECTIONAL_SEQUENCE_LSTM", [*cell(), *cell()], [CELLS] * 4, {"merge_outputs": True, "time_major": True},
        after=[None] * 9,
    ),
    "LSTM, both ways, apart": model(
        "BIDIRECTIONAL_SEQUENCE_LSTM", [*cell(), *cell()], [CELLS] * 4, {"time_major": True, "merge_outputs": False},
        after=[None] * 9,
    ),
    "RNN": model("UNIDIRECTIONAL_SEQUENCE_RNN", RNN, [CELLS], {}),
    "RNN without activation": model("UNIDIRECTIONAL_SEQUENCE_RNN", RNN, [CELLS], {"fused_activation_function": "NONE"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_sequence_is_what_litert_computes_from_zero(name: str, tmp_path: Path) -> None:
    made = CASES[name]
    feeds = {"x": weights(*made.main.tensors[0].shape)}
    got = run_onnx(to_onnx(made, where=name), feeds)
    for mine, theirs in zip(got, run_litert(made, feeds, tmp_path), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6)


def test_a_file_that_keeps_state_is_read_with_a_note(tmp_path: Path) -> None:
    write_file(CASES["LSTM"], tmp_path / "net.tflite")
    source = import_model(tmp_path / "net.tflite")
    assert [note for note in source.notes if "state" in note]


def test_a_step_of_time_whose_state_stays_is_refused_by_name(tmp_path: Path) -> None:
    made = CASES["RNN"].main
    single = replace(made.operators[0], code="RNN", options={"fused_activation_function": "TANH"})
    first, *middle, last = made.tensors
    tensors = [replace(first, shape=(BATCH, INPUTS)), *middle, replace(last, shape=(BATCH, CELLS))]
    write_file(TfliteModel([replace(made, tensors=tensors, operators=[single])]), tmp_path / "net.tflite")
    with pytest.raises(UnsupportedOperatorError, match=r"operator 0 \(RNN, gives 'y0'\): state that stays"):
        import_model(tmp_path / "net.tflite")


def test_int8_weights_of_a_sequence_become_floats() -> None:
    made = CASES["RNN"].main
    scale = Quantization(np.array([0.01], np.float32), np.zeros(1, np.int64))
    steps = np.arange(-6, 6).reshape(CELLS, INPUTS).astype(np.int8)
    tensors = list(made.tensors)
    tensors[1] = Tensor("w", steps.shape, "int8", quantization=scale, data=steps)
    graph = to_onnx(TfliteModel([replace(made, tensors=tensors)]), where="net")
    assert {one.data_type for one in graph.graph.initializer} <= {1, 7}
