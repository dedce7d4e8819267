"""Every metric against a formula of its own, and against scikit-learn where it has it; intervals and directions."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.measure import ranking
from converters.measure.accuracy import Evaluation, Marks
from converters.measure.intervals import bootstrap
from converters.measure.metric import Answered, Metric, Row
from converters.measure.metrics import METRICS, class_scores, find_metric
from converters.measure.own import character_errors, user_metric
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec
from lepton_edge.errors import DataError, LeptonError, NotYetSupportedError, UsageError
from lepton_edge.preprocess.spec import Ctc


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def rows(
    metric: Metric, outputs: Sequence[Any], targets: Sequence[Any], floats: Sequence[Any] | None = None
) -> list[Row]:
    return [
        metric.row(
            Answered({"y": np.asarray(got)[np.newaxis]}, target, {"y": np.asarray(want)[np.newaxis]}, f"sample {i}")
        )
        for i, (got, target, want) in enumerate(
            zip(outputs, targets, outputs if floats is None else floats, strict=True)
        )
    ]


def value(metric: Metric, outputs: Sequence[Any], targets: Sequence[Any], floats: Sequence[Any] | None = None) -> float:
    found = rows(metric, outputs, targets, floats)
    return float(metric.values(found, np.ones((1, len(found))))[0])


def sample_of(classes: int, count: int = 60, *, ties: bool = False) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(classes)
    scores = rng.standard_normal((count, classes))
    labels = rng.integers(0, classes, count)
    scores[np.arange(count), labels] += 1.5
    return (np.round(scores) if ties else scores), labels.tolist()


def test_top1_and_top5_count_the_right_ones() -> None:
    scores, labels = sample_of(9)
    best = np.argsort(-scores, axis=1, kind="stable")
    assert value(METRICS["top1"], scores, labels) == np.mean(best[:, 0] == labels)
    assert value(METRICS["top5"], scores, labels) == np.mean(
        [y in row[:5] for y, row in zip(labels, best, strict=True)]
    )


def test_agreement_and_cosine_look_at_the_float_model_alone(rng: np.random.Generator) -> None:
    one, other = rng.standard_normal((2, 20, 6))
    agreed = np.mean(one.argmax(axis=1) == other.argmax(axis=1))
    assert value(METRICS["agreement"], one, [None] * 20, other) == agreed
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, other, strict=True)]
    assert value(METRICS["cosine"], one, [None] * 20, other) == pytest.approx(np.mean(cosines))
    zero = np.zeros(6)
    assert value(METRICS["cosine"], [zero, zero], [None] * 2, [zero, one[0]]) == 0.5


def test_f1_is_scikit_learns_macro_average() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = sample_of(6)
    want = sklearn.f1_score(labels, scores.argmax(axis=1), average="macro")
    assert value(METRICS["f1"], scores, labels) == pytest.approx(want)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_auc_and_map_are_scikit_learns(classes: int, ties: bool) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = sample_of(classes, ties=ties)
    truth = np.eye(classes)[labels]
    if classes == 2:
        want = sklearn.roc_auc_score(labels, scores[:, 1] - scores[:, 0])
    else:
        want = np.mean([sklearn.roc_auc_score(truth[:, c], scores[:, c]) for c in range(classes)])
    assert value(METRICS["auc"], scores, labels) == pytest.approx(want)
    precision = np.mean([sklearn.average_precision_score(truth[:, c], scores[:, c]) for c in range(classes)])
    assert value(METRICS["map"], scores, labels) == pytest.approx(precision)


def test_auc_of_one_score_and_of_several_classes_at_once(rng: np.random.Generator) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = rng.standard_normal((40, 1)), (rng.random(40) > 0.5).astype(int).tolist()
    assert value(METRICS["auc"], scores, labels) == pytest.approx(sklearn.roc_auc_score(labels, scores[:, 0]))
    many, truth = rng.standard_normal((40, 3)), (rng.random((40, 3)) > 0.4).astype(float)
    targets = [{"y": row[np.newaxis]} for row in truth]
    assert value(METRICS["auc"], many, targets) == pytest.approx(sklearn.roc_auc_score(truth, many))
    assert value(METRICS["map"], many, targets) == pytest.approx(sklearn.average_precision_score(truth, many))


def test_mse_and_mae_are_means_over_all_numbers_of_all_targets(rng: np.random.Generator) -> None:
    got, want = rng.standard_normal((2, 7, 2, 3))
    targets = [{"y": one[np.newaxis]} for one in want]
    assert value(METRICS["mse"], got, targets) == pytest.approx(np.mean((got - want) ** 2))
    assert value(METRICS["mae"], got, targets) == pytest.approx(np.mean(np.abs(got - want)))
    assert value(METRICS["mae"], [[3.5], [1.0]], [3, 2]) == pytest.approx(0.75)


counts_of = st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(lambda drawn: sum(drawn) > 0)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["top1", "f1", "auc", "map", "cosine"]), counts_of, st.integers(0, 5), st.booleans())
def test_a_sample_that_counts_twice_is_a_sample_that_is_there_twice(
    name: str, drawn: list[int], seed: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal((12, 3)), rng.integers(0, 3, 12).tolist()
    found = rows(METRICS[name], np.round(scores) if ties else scores, labels, list(rng.standard_normal((12, 3))))
    repeated = [row for row, count in zip(found, drawn, strict=True) for _ in range(count)]
    weighted = METRICS[name].values(found, np.array([drawn, drawn], np.float64))
    plain = METRICS[name].values(repeated, np.ones((1, len(repeated))))
    np.testing.assert_allclose(weighted, np.repeat(plain, 2))


def plain_distance(one: str, other: str) -> int:
    table = [[i + j if i * j == 0 else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            change = table[i - 1][j - 1] + (one[i - 1] != other[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, change)
    return table[-1][-1]


@given(st.text("abé\U0001f600", max_size=12), st.text("abé\U0001f600", max_size=12))
def test_the_edit_distance_is_the_tables_last_entry(one: str, other: str) -> None:
    assert ranking.edit_distance(one, other) == plain_distance(one, other)


def test_cer_counts_edits_over_characters_written() -> None:
    metric = character_errors(["a", "b", "c"], Ctc())
    paths = [[1, 1, 0, 2, 3], [0, 3, 3, 0, 0]]
    outputs = [np.eye(4)[path] for path in paths]  # "abc" and "c"
    assert value(metric, outputs, ["abc", "ab"]) == pytest.approx(2 / 5)
    with pytest.raises(DataError, match="metric cer: sample 0: 2 labels for 4 classes"):
        rows(character_errors(["a", "b"], Ctc()), outputs[:1], ["a"])


WRONG_ROWS: dict[str, tuple[str, Any, Any, type[LeptonError], str]] = {
    "no class": ("top1", [1.0, 2.0, 3.0], 3, DataError, r"sample 0: class 3, but the model has 3 classes \(0 to 2\)"),
    "one score": ("top1", [1.0], 0, NotYetSupportedError, "--no-evaluate"),
    "a class of a single score": ("auc", [1.0], 2, DataError, "class 2, but the model has 2 classes"),
    "no 0 or 1": ("auc", [1.0, 2.0], {"y": np.array([[0.5, 1.0]])}, DataError, "or 0 or 1 for each of 2 classes"),
    "another shape": ("mse", [1.0, 2.0], {"y": np.array([[1.0]])}, DataError, r"y for y has shape \[1, 1\]"),
    "another output": ("mse", [1.0], {"z": np.array([[1.0]])}, DataError, "y for z .* is absent"),
    "a text as number": ("mse", [1.0], "one", DataError, "its label is no number"),
}


@pytest.mark.parametrize(("name", "output", "target", "kind", "says"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_a_target_that_does_not_fit_the_output_is_named(
    name: str, output: Any, target: Any, kind: type[LeptonError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        rows(METRICS[name], [output], [target])


def signature(*shape: int | str) -> ModelSignature:
    spec = TensorSpec(name="y", dtype="float32", shape=["batch", *shape])
    return ModelSignature(inputs=[spec], outputs=[spec])


FOUND: dict[str, tuple[str | None, str, ModelSignature | None, str]] = {
    "classes": (None, "classes", signature(10), "top1"),
    "nothing": (None, "none", signature(10), "agreement"),
    "nothing, and a picture out": (None, "none", signature(3, 32, 32), "cosine"),
    "nothing, and scores with sides of 1": (None, "none", signature(10, 1, 1), "agreement"),
    "by name": ("mse", "classes", None, "mse"),
    "texts": (None, "texts", None, "cer"),
}


@pytest.mark.parametrize(("name", "targets", "of", "want"), FOUND.values(), ids=FOUND)
def test_the_metric_that_fits(name: str | None, targets: Any, of: ModelSignature | None, want: str) -> None:
    assert find_metric(name, targets=targets, signature=of, labels=["a"]).name == want


NOT_FOUND: dict[str, tuple[str | None, str, type[LeptonError], str]] = {
    "unknown": ("top2", "classes", UsageError, "unknown metric 'top2'; there are top1"),
    "needs labels": ("top1", "none", DataError, "needs class labels, and the data carry nothing"),
    "needs classes": ("f1", "values", DataError, "needs class labels, and the data carry numbers"),
    "needs numbers": ("mse", "texts", DataError, "needs numbers or class indices, and the data carry texts"),
    "needs texts": ("cer", "classes", DataError, "needs texts"),
    "numbers without a metric": (None, "values", UsageError, "--metric mse --budget"),
    "characters unknown": ("cer", "texts", UsageError, "needs --labels"),
    "classes or characters": (None, "texts", UsageError, "y holds texts, which need --labels: the class names"),
    "an absent function": ("absent_module:f", "none", DataError, "cannot be imported"),
}


@pytest.mark.parametrize(("name", "targets", "kind", "says"), NOT_FOUND.values(), ids=NOT_FOUND)
def test_a_metric_that_cannot_be_measured(name: str | None, targets: Any, kind: type[LeptonError], says: str) -> None:
    with pytest.raises(kind, match=says):
        find_metric(name, targets=targets, signature=signature(3))


@pytest.mark.parametrize("shape", [(1, 1), (1,), (), (1, 5, 7), (1, 3, 4, 4)])
def test_outputs_that_are_no_class_scores_say_so(shape: tuple[int, ...]) -> None:
    with pytest.raises(NotYetSupportedError, match="--no-evaluate"):
        class_scores(np.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 5), (5,), (1, 5, 1, 1)])
def test_outputs_that_are_class_scores(shape: tuple[int, ...]) -> None:
    assert class_scores(np.zeros(shape)).shape == (5,)


SOURCE = """
import numpy as np
def score(outputs, labels):
    return np.mean(outputs[:, 0] > labels)
def error(outputs, labels):
    return np.abs(outputs[:, 0] - labels).mean()
error.higher_is_better = False
def broken(outputs, labels):
    raise ValueError("no idea")
def lengths(outputs, labels):
    assert labels is None
    return sum(len(one[0]) for one in outputs)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_metrics.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield "my_metrics"
    sys.modules.pop("my_metrics", None)


def test_a_function_of_ones_own_gets_outputs_and_labels(functions: str, rng: np.random.Generator) -> None:
    outputs, labels = rng.standard_normal((9, 2)), [0, 1, 0, 1, 0, 0, 1, 1, 0]
    metric = user_metric(f"{functions}:score")
    assert value(metric, outputs, labels) == np.mean(outputs[:, 0] > labels)
    assert (metric.unit, metric.higher_is_better) == ("own", True)
    assert not user_metric(f"{functions}:error").higher_is_better
    assert value(user_metric(f"{functions}:lengths"), [[1.0], [1.0, 2.0]], [None, None]) == 3
    with pytest.raises(DataError, match="metric my_metrics:broken: ValueError: no idea"):
        value(user_metric(f"{functions}:broken"), outputs, labels)


def evaluated(metric: Metric, source: list[Row], variant: list[Row]) -> Evaluation:
    return Evaluation(metric, Marks(rows=source), {"v": Marks(rows=variant)}, left_out=0)


def worse_and_better(name: str) -> tuple[Metric, list[Row], list[Row]]:
    scores, labels = sample_of(3, 200)
    if name in {"mse", "mae"}:
        truth: list[Any] = [{"y": row[np.newaxis]} for row in scores]
        good, bad = scores + 0.1, scores + 0.5
        return METRICS[name], rows(METRICS[name], good, truth), rows(METRICS[name], bad, truth)
    floats = list(scores)
    bad = scores + 4 * np.random.default_rng(9).standard_normal(scores.shape)
    return METRICS[name], rows(METRICS[name], scores, labels, floats), rows(METRICS[name], bad, labels, floats)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "top5"])
def test_a_positive_drop_is_worse_for_every_metric(name: str) -> None:
    metric, good, bad = worse_and_better(name)
    drop = evaluated(metric, good, bad).drop("v")
    assert drop.low <= drop.value <= drop.high
    assert drop.value > 0
    assert drop.low > 0  # a difference this large is seen with 200 samples
    same = evaluated(metric, good, good).drop("v")
    assert same.value == 0.0
    points = 100 if metric.unit == "fraction" else 1
    found = evaluated(metric, good, bad)
    values = [found.value(marks).value for marks in (found.source, found.variants["v"])]
    sign = 1 if metric.higher_is_better else -1
    assert drop.value == pytest.approx(points * sign * (values[0] - values[1]))


def test_values_and_drops_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    metric, good, bad = worse_and_better("auc")
    found = evaluated(metric, good, bad)
    first = found.drop("v"), found.value(found.source)
    monkeypatch.setattr("converters.measure.accuracy.bootstrap", None)
    assert (found.drop("v"), found.value(found.source)) == first
    assert evaluated(*worse_and_better("top1")).drop("v") is not None  # rates need no bootstrap


def mean_of(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda counts: counts @ values / counts.sum(axis=1)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        found = bootstrap(mean_of(rng.exponential(1.0, 60)), 60)
        inside += found.low <= 1.0 <= found.high
    assert 175 <= inside <= 198  # 95 % of 200 are 190; skewed and small samples cover a little less


def test_the_bootstrap_is_the_same_every_time_and_close_to_the_formula() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    first, again = bootstrap(mean_of(values), 400), bootstrap(mean_of(values), 400)
    assert first == again
    half = 1.96 * values.std(ddof=1) / 20
    assert first.value == pytest.approx(values.mean())
    assert first.high - first.low == pytest.approx(2 * half, rel=0.15)
    few = bootstrap(mean_of(values), 400, resamples=200)
    assert few.high - few.value == pytest.approx(half, rel=0.2)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_an_interval_holds_its_value(values: list[float], resamples: int) -> None:
    found = bootstrap(mean_of(np.array(values)), len(values), resamples=resamples)
    assert found.low <= found.value <= found.high


def test_draws_that_say_nothing_are_left_out() -> None:
    def only_with_the_first(counts: np.ndarray) -> np.ndarray:
        return np.where(counts[:, 0] > 0, counts[:, 0] * 0 + 5.0, np.nan)

    assert bootstrap(only_with_the_first, 4) == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("name", ["f1", "map", "cosine"])
def test_that_nothing_went_wrong_does_not_prove_that_nothing_will(name: str) -> None:
    metric, scores = METRICS[name], np.eye(3)[[0, 1, 2] * 20]
    right = rows(metric, scores, [0, 1, 2] * 20)
    found = evaluated(metric, right, right)
    drop, score = found.drop("v"), found.value(found.variants["v"])
    assert (drop.value, drop.low, drop.high) == (0.0, pytest.approx(-5.0), pytest.approx(5.0))
    assert (score.value, score.low, score.high) == (1.0, pytest.approx(0.95), 1.0)
    source = found.value(found.source)
    assert source.low == (1.0 if name == "cosine" else pytest.approx(0.95))  # the float model is itself by definition
