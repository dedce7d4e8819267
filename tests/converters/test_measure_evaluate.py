"""Evaluation end to end with models that are plain functions: every metric, and what says that something is wrong."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from converters.data import open_data
from converters.measure import accuracy
from converters.measure.accuracy import Evaluation, evaluate
from converters.measure.metrics import METRICS, find_metric
from converters.measure.own import character_errors, user_metric
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import Binding, ModelSignature, TensorSpec, Variant
from lepton_edge.errors import DataError, ModelError, NotYetSupportedError
from lepton_edge.preprocess.spec import Ctc
from lepton_edge.runtimes import Session

Function = Callable[[Array], Mapping[str, Array]]


class Computed:
    """An executor that is a function of the one input."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def execute(self, inputs: Mapping[str, Array]) -> Arrays:
        return {name: np.asarray(one, np.float32) for name, one in self._function(inputs["x"]).items()}


def signature(*outputs: tuple[str, list[int | str]], width: int = 4) -> ModelSignature:
    return ModelSignature(
        inputs=[TensorSpec(name="x", dtype="float32", shape=["batch", width])],
        outputs=[TensorSpec(name=name, dtype="float32", shape=["batch", *shape]) for name, shape in outputs],
    )


def session(of: ModelSignature, function: Function) -> Session:
    inputs = [Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in of.inputs]
    outputs = [Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in of.outputs]
    variant = Variant(
        name="v", file="v", format="onnx", precision="float32", runtime="none", profile="none",
        inputs=inputs, outputs=outputs, rank=0, tolerance=0.1,
    )  # fmt: skip
    return Session(Computed(function), of, variant)


CLASSES = signature(("y", [4]))
TWO = signature(("a", [4]), ("b", [2]))
X = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
BEST = X.argmax(axis=1)


def same(x: Array) -> Mapping[str, Array]:
    return {"y": x}


def noisy(x: Array) -> Mapping[str, Array]:
    return {"y": x + 1.5 * np.sin(37 * x)}


def judged(
    metric: Any, data: dict[str, Any], source: Function, variant: Function, of: ModelSignature = CLASSES
) -> Evaluation:
    samples = open_data(data, of)
    metric = find_metric(metric, targets=samples.targets, signature=of) if isinstance(metric, str) else metric
    return evaluate(samples, session(of, source), {"v": session(of, variant)}, metric)


@pytest.mark.parametrize("name", ["top1", "f1", "auc", "map", "agreement", "cosine"])
def test_metrics_of_classes(name: str) -> None:
    got = judged(name, {"x": X, "y": BEST}, same, noisy)
    source, variant = got.value(got.source), got.value(got.variants["v"])
    # A ranking asks whether scores of one class can be compared between samples, which raw scores only partly can.
    assert source.value == 1.0 or name in {"auc", "map"}
    assert (source.n, source.unit) == (60, "fraction")
    assert got.drop("v").value == pytest.approx(100 * (source.value - variant.value))
    assert 0 < got.drop("v").value < 100
    agreement = got.agreement("v")
    assert agreement == np.mean(noisy(X)["y"].argmax(axis=1) == BEST)


def test_numbers_for_one_output_and_for_several() -> None:
    def both(x: Array) -> Mapping[str, Array]:
        return {"a": 2 * x, "b": x[:, :2]}

    def shifted(x: Array) -> Mapping[str, Array]:
        return {"a": 2 * x + 0.5, "b": x[:, :2]}

    got = judged("mae", {"x": X, "y_a": 2 * X, "y_b": X[:, :2] - 0.25}, both, shifted, TWO)
    assert got.value(got.source).value == pytest.approx(0.25 * 2 / 6, rel=1e-5)
    drop = got.drop("v")
    assert drop.value == pytest.approx(0.5 * 4 / 6, rel=1e-5)
    assert got.value(got.source).unit == "own"
    one = judged("mse", {"x": X, "y": 2 * X}, both, shifted, TWO)
    assert one.value(one.variants["v"]).value == pytest.approx(0.25, rel=1e-5)


def test_pictures_out_are_compared_with_the_float_models() -> None:
    of = signature(("y", [2, 2, 3]))

    def picture(x: Array) -> Mapping[str, Array]:
        return {"y": np.broadcast_to(x[:, :3], (1, 2, 2, 3))}

    def mirrored(x: Array) -> Mapping[str, Array]:
        return {"y": -np.broadcast_to(x[:, :3], (1, 2, 2, 3))}

    got = judged(find_metric(None, targets="none", signature=of), {"x": X}, picture, mirrored, of)
    assert got.metric.name == "cosine"
    assert got.value(got.variants["v"]).value == pytest.approx(-1.0)
    assert got.drop("v").value == pytest.approx(200.0)
    assert got.agreement("v") is None
    with pytest.raises(NotYetSupportedError, match="--metric cosine"):
        judged("agreement", {"x": X}, picture, mirrored, of)


def test_texts_are_read_by_ctc() -> None:
    of = signature(("y", [4, 3]))
    paths = np.array([[1, 0, 1, 2], [2, 2, 0, 1]])
    data = {"x": paths.astype(np.float32), "y": np.array(["aab", "ba"])}

    def read(x: Array) -> Mapping[str, Array]:
        return {"y": np.eye(3)[x.astype(int)]}

    def misread(x: Array) -> Mapping[str, Array]:
        return {"y": np.eye(3)[np.where(x == 2, 1, x).astype(int)]}

    got = judged(character_errors(["a", "b"], Ctc()), data, read, misread, of)
    assert got.value(got.source).value == 0.0
    # "aa" and "a" for "aab" and "ba": one edit each, of five characters
    assert got.value(got.variants["v"]).value == pytest.approx(2 / 5)
    assert got.drop("v").value == pytest.approx(40.0)


def test_a_source_below_chance_says_that_the_labels_do_not_fit() -> None:
    with pytest.raises(
        DataError, match=r"worse than guessing: top1 0\.0 % .*guessing gives 25\.0 %.*order of the classes"
    ):
        judged("top1", {"x": X, "y": (BEST + 1) % 4}, same, noisy)
    with pytest.raises(DataError, match="worse than guessing: auc"):
        judged("auc", {"x": X, "y": X.argmin(axis=1)}, same, noisy)
    random = np.random.default_rng(1).integers(0, 4, 60)
    assert judged("top1", {"x": X, "y": random}, same, noisy).value is not None  # as good as guessing is no proof


def test_labels_are_checked_before_the_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def counted(x: Array) -> Mapping[str, Array]:
        ran.append(1)
        return {"y": x}

    wrong = BEST.copy()
    wrong[50] = 4
    with pytest.raises(DataError, match=r"sample 50: class 4, but the model has 4 classes"):
        judged("top1", {"x": X, "y": wrong}, counted, noisy)
    assert len(ran) == 1


def broken_at_seven(x: Array) -> Mapping[str, Array]:
    return {"y": x * np.float32(np.nan) if np.array_equal(x[0], X[7]) else x}


@pytest.mark.parametrize("name", ["top1", "mse", "cosine", "auc"])
def test_a_variant_with_nan_is_counted_and_never_looks_right(name: str) -> None:
    targets = X if name == "mse" else BEST
    got = judged(name, {"x": X, "y": targets}, same, broken_at_seven)
    assert got.variants["v"].not_finite == 1
    assert got.drop("v").value > 0
    assert all(np.isfinite(got.drop("v")))
    with pytest.raises(ModelError, match="the source model itself gives NaN or Inf on sample 7"):
        judged(name, {"x": X, "y": targets}, broken_at_seven, same)


def test_too_little_to_measure_is_named() -> None:
    with pytest.raises(DataError, match="metric f1 needs two evaluation samples or more, there is 1"):
        judged("f1", {"x": X[:1], "y": BEST[:1]}, same, noisy)
    with pytest.raises(DataError, match="metric auc has no value on these samples"):
        judged("auc", {"x": X[:5], "y": np.zeros(5, int)}, same, noisy)


def test_what_a_users_function_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "MAX_KEPT_BYTES", 100)
    with pytest.raises(DataError, match="keeps 16 bytes a sample and file, and 4 samples of 2 files are more than 100"):
        judged(user_metric("numpy:shape"), {"x": X}, same, noisy)


def test_metrics_that_judge_classes_make_a_classifier() -> None:
    assert {name for name, metric in METRICS.items() if metric.needs_labels} == {
        "top1", "top5", "f1", "auc", "map",
    }  # fmt: skip
