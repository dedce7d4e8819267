"""Metrics, evaluation, blame, and the rules that keep or refuse."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from converters.artifact import source_artifact
from converters.data.npz import from_arrays
from converters.decide import Facts, judge, not_proven
from converters.importers import import_model
from converters.measure.accuracy import evaluate, fingerprint
from converters.measure.blame import blame_layers
from converters.measure.latency import measure_latency
from converters.measure.memory import measure_memory
from converters.measure.metrics import METRICS, class_scores
from converters.quantize.artifacts import make_artifacts
from converters.source import Source
from lepton_edge.errors import DataError, ModelError, NotYetSupportedError
from lepton_edge.runtimes import Session
from tests.converters import models


@pytest.fixture(scope="module")
def source() -> Source:
    return import_model(models.conv_net())


@pytest.fixture
def session(source: Source, tmp_path: Path) -> Session:
    return source_artifact(source, tmp_path).open(source.signature)


def labelled(source: Source, session: Session, *, wrong: int) -> dict[str, np.ndarray]:
    """Samples with the source's own answers as labels, `wrong` of them moved to the next class."""
    x = models.samples(40)["x"]
    y = np.argmax(session.run_samples({"x": x})["y"], axis=1)
    y[:wrong] = (y[:wrong] + 1) % 4
    return {"x": x, "y": y}


def test_the_source_against_itself_loses_nothing(source: Source, session: Session) -> None:
    data = from_arrays(labelled(source, session, wrong=10), source.signature, where="data")
    got = evaluate(data, session, {"twin": session}, METRICS["top1"])
    assert got.value(got.source).value == 0.75
    assert got.drop("twin").value == 0.0
    assert got.agreement("twin") == 1.0


def test_another_model_loses_what_it_gets_wrong(source: Source, session: Session, tmp_path: Path) -> None:
    other_source = import_model(models.conv_net(seed=7))
    (tmp_path / "other").mkdir()
    other = source_artifact(other_source, tmp_path / "other").open(source.signature)
    arrays = labelled(source, session, wrong=0)
    got = evaluate(from_arrays(arrays, source.signature, where="data"), session, {"other": other}, METRICS["top1"])
    chosen = np.argmax(other.run_samples({"x": arrays["x"]})["y"], axis=1)
    right = float(np.mean(chosen == arrays["y"]))
    assert got.value(got.variants["other"]).value == pytest.approx(right)
    assert got.drop("other").value == pytest.approx(100 * (1 - right))
    assert got.agreement("other") == pytest.approx(right)
    assert got.variants["other"].examples[0].float_class != got.variants["other"].examples[0].variant_class


def test_agreement_needs_no_labels(source: Source, session: Session) -> None:
    data = from_arrays(models.samples(20), source.signature, where="data")
    got = evaluate(data, session, {"twin": session}, METRICS["agreement"])
    assert got.drop("twin").value == 0.0
    assert got.drop("twin").high > 0


def test_calibration_samples_are_left_out_wherever_they_come_from(source: Source, session: Session) -> None:
    data = from_arrays(models.samples(20), source.signature, where="data")
    known = {fingerprint(data.inputs(index)) for index in (3, 4)}
    got = evaluate(data, session, {}, METRICS["agreement"], exclude=known)
    assert (got.count, got.left_out) == (18, 2)
    with pytest.raises(DataError, match="every evaluation sample is a calibration sample"):
        evaluate(data, session, {}, METRICS["agreement"], exclude={fingerprint(data.inputs(i)) for i in range(20)})


def test_a_label_without_a_class_is_named(source: Source, session: Session) -> None:
    arrays = {"x": models.samples(3)["x"], "y": np.array([0, 1, 4])}
    data = from_arrays(arrays, source.signature, where="data")
    with pytest.raises(DataError, match=r"sample 2: class 4, but the model has 4 classes \(0 to 3\)"):
        evaluate(data, session, {}, METRICS["top1"])


def test_a_source_that_gives_nan_is_an_error(source: Source, session: Session) -> None:
    data = from_arrays({"x": models.samples(2)["x"] * np.float32(1e38)}, source.signature, where="data")
    with pytest.raises(ModelError, match="the source model itself gives NaN or Inf on sample 0"):
        evaluate(data, session, {}, METRICS["agreement"])


@pytest.mark.parametrize("shape", [(1, 1), (1,), (), (1, 5, 7), (1, 3, 4, 4)])
def test_outputs_that_are_no_class_scores_say_so(shape: tuple[int, ...]) -> None:
    with pytest.raises(NotYetSupportedError, match="--no-evaluate"):
        class_scores(np.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 5), (5,), (1, 5, 1, 1)])
def test_outputs_that_are_class_scores(shape: tuple[int, ...]) -> None:
    assert class_scores(np.zeros(shape)).shape == (5,)


def facts(**changes: float | bool | None) -> Facts:
    return Facts(**{"drop": 0.2, "finite": True, "tolerance": 0.05, "p50_ms": 1.0, "float_p50_ms": 2.0, **changes})


VERDICTS: dict[str, tuple[Facts, bool, bool, str]] = {
    "all well": (facts(), True, False, ""),
    "just within": (facts(drop=0.5), True, False, ""),
    "better than float": (facts(drop=-3.0), True, False, ""),
    "over the budget": (facts(drop=0.51), False, True, "over the budget: 0.51 points"),
    "not finite": (facts(finite=False), False, True, "NaN"),
    "untestable": (facts(tolerance=0.31), False, False, "could not tell a broken file"),
    "slow": (facts(p50_ms=2.0), False, False, "not faster than float here"),
    "slow on another profile's host": (facts(p50_ms=None), True, False, ""),
    "over the budget and slow": (facts(drop=9.0, p50_ms=9.0), False, True, "over the budget"),
}


@pytest.mark.parametrize(("given", "kept", "over", "says"), VERDICTS.values(), ids=VERDICTS)
def test_verdicts(given: Facts, kept: bool, over: bool, says: str) -> None:
    got = judge(given, budget=0.5, keep_all=False)
    assert (got.kept, got.over_budget) == (kept, over)
    assert says in got.reason
    assert bool(got.reason) is not kept


def test_keep_all_keeps_the_slow_and_never_the_wrong() -> None:
    assert judge(facts(p50_ms=3.0), budget=0.5, keep_all=True).kept
    assert not judge(facts(drop=9.0), budget=0.5, keep_all=True).kept
    assert judge(facts(drop=9.0), budget=None, keep_all=False).kept  # nothing was promised


def test_a_drop_that_may_be_over_the_budget_is_said() -> None:
    assert not_proven("v", drop_high=0.9, budget=1.0, count=50) is None
    assert "not proven with n=50" in (not_proven("v", drop_high=1.1, budget=1.0, count=50) or "")


def test_blame_names_the_layer_that_breaks(tmp_path: Path) -> None:
    fragile = import_model(models.fragile_net())
    data = models.fragile_data()
    made = make_artifacts(fragile, from_arrays({"x": data["x"]}, fragile.signature, where="data"), tmp_path)
    assert made.prepared is not None
    blamed = blame_layers(onnx.load(made.prepared), made.artifacts[1].read(), {"x": data["x"][:16]})
    assert "thin" in blamed[0].layer
    assert blamed[0].error > 0


def test_latency_times_every_file_in_every_round(source: Source, session: Session) -> None:
    times = measure_latency({"a": session, "b": session}, {"x": models.samples(3)["x"]}, budget_s=0.05)
    assert len(times["a"]) == len(times["b"]) >= 20
    assert min(times["a"]) > 0


def test_memory_of_a_loaded_model_is_measured_apart_from_this_process(source: Source, tmp_path: Path) -> None:
    ballast = np.ones(50_000_000, np.uint8)  # a process inherits nothing of its parent's peak
    file = source_artifact(source, tmp_path).path
    used, again, absent = measure_memory([file, file, tmp_path / "absent.onnx"])
    assert 0 < used < ballast.nbytes
    assert 0.5 < again / used < 2
    assert absent == 0
