"""Samples that a function gives: read once, kept on disk, each refused by its number."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.data import call, open_data, spool
from converters.data.split import split_samples
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec
from lepton_edge.errors import DataError, UsageError

SIGNATURE = ModelSignature(
    inputs=[TensorSpec(name="x", dtype="float32", shape=["batch", "n"])],
    outputs=[TensorSpec(name="y", dtype="float32", shape=["batch", 2])],
)
TWO = ModelSignature(
    inputs=[
        TensorSpec(name="a", dtype="float32", shape=["batch", 2]),
        TensorSpec(name="b", dtype="int64", shape=["batch", "n"]),
    ],
    outputs=SIGNATURE.outputs,
)
SOURCE = """
import numpy as np
calls = []
def samples():
    calls.append(1)
    for index in range(6):
        yield np.full(index + 1, index, np.float64), index % 2
def raises():
    yield np.zeros(3), 0
    raise KeyError("the camera")
number = 5
def no_iterable():
    return 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_samples.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield "my_samples"
    sys.modules.pop("my_samples", None)


def test_samples_of_different_lengths_can_be_had_in_any_order(module: str) -> None:
    data = open_data(f"{module}:samples", SIGNATURE)
    assert len(data) == 6
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1]
    for index in (5, 0, 5, 2):
        got = data.inputs(index)["x"]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.full((1, index + 1), index))
    assert len(sys.modules[module].calls) == 1
    split = split_samples(data, calibration=2, seed=0)
    assert len(split.evaluation) == 4
    assert split.evaluation.targets == "classes"
    assert isinstance(split.evaluation.target(0), int)


BAD_CALLS: dict[str, tuple[str, str]] = {
    "no module": ("absent_module:f", "cannot be imported: ModuleNotFoundError"),
    "no function": ("my_samples:absent", "cannot be imported: AttributeError"),
    "no callable": ("my_samples:number", "is a int, no function"),
    "no iterable": ("my_samples:no_iterable", "returned a int; it must return an iterable"),
    "raises": ("my_samples:raises", "failed after 1 samples: KeyError"),
}


@pytest.mark.parametrize(("name", "says"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_function_that_cannot_be_used_is_named(name: str, says: str, module: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        open_data(name, SIGNATURE)
    assert name in str(caught.value)
    assert module


def given(*samples: object, signature: ModelSignature = SIGNATURE, names: tuple[str, ...] = ()) -> call.CallDataset:
    return call.take_samples(iter(samples), signature, where="here", class_names=names)


X = np.zeros(3, np.float32)


def test_several_inputs_come_by_name_with_or_without_the_batch_axis() -> None:
    data = given(({"a": [1.0, 2.0], "b": [1, 2, 3]}, None), ({"b": [[7]], "a": [[3.0, 4.0]]}, None), signature=TWO)
    assert data.targets == "none"
    assert data.inputs(0)["b"].tolist() == [[1, 2, 3]]
    assert data.inputs(1)["a"].tolist() == [[3.0, 4.0]]


LABELS: dict[str, tuple[list[Any], tuple[str, ...], str, list[Any]]] = {
    "indices": ([1, np.int64(0)], (), "classes", [1, 0]),
    "names": (["dog", "ant"], ("ant", "bee", "dog"), "classes", [2, 0]),
    "texts": (["one", "two"], (), "texts", ["one", "two"]),
    "none": ([None, None], (), "none", [None, None]),
    "true and false": ([True, False], (), "classes", [1, 0]),
}


@pytest.mark.parametrize(("labels", "names", "kind", "want"), LABELS.values(), ids=LABELS)
def test_labels_of_every_kind(labels: list[Any], names: tuple[str, ...], kind: str, want: list[Any]) -> None:
    data = given(*((X, label) for label in labels), names=names)
    assert data.targets == kind
    assert [data.target(index) for index in range(2)] == want


def test_labels_that_are_numbers_or_arrays_are_values() -> None:
    numbers = given((X, 0.5), (X, -1.0))
    assert numbers.targets == "values"
    assert numbers.labels is None
    assert [t["y"].tolist() for t in map(numbers.target, range(2)) if isinstance(t, dict)] == [[0.5], [-1.0]]
    arrays = given((X, np.array([1.0, 2.0])), (X, {"y": np.array([3.0])}))
    assert [t["y"].tolist() for t in map(arrays.target, range(2)) if isinstance(t, dict)] == [[[1.0, 2.0]], [[3.0]]]


BAD: dict[str, tuple[tuple[object, ...], str]] = {
    "nothing": ((), "here: no samples"),
    "no pair": ((X,), "sample 0: is a ndarray, it must be a pair"),
    "a triple": (((X, 0, 0),), "must be a pair"),
    "another shape": (((X, 0), (np.zeros((2, 2, 2)), 0)), "sample 1: input 'x' has shape"),
    "text as input": ((("hello", 0),), "sample 0"),
    "objects": (((np.array([object()]), 0),), "sample 0: x: is a ndarray, which is no array of numbers"),
    "ragged": ((([[1.0], [1.0, 2.0]], 0),), "sample 0: x: is no array"),
    "NaN": (((X, 0), (np.array([np.nan]), 0)), "sample 1: x: holds NaN"),
    "a batch": (((np.zeros((4, 3)), 0),), "holds 4 samples; give them one by one"),
    "a name too many": ((({"x": X, "z": X}, 0),), "sample 0: inputs are"),
    "labels of two kinds": (((X, 0), (X, "cat")), "sample 1: its label is of another kind"),
    "a label missing": (((X, 0), (X, None)), "sample 1: its label is of another kind"),
    "a number, then an array": (((X, 0), (X, [1.0, 2.0])), "sample 1: its label is of another kind"),
    "a label that is NaN": (((X, float("nan")),), "holds NaN"),
    "an object as label": (((X, object()),), "which is no array of numbers"),
}


@pytest.mark.parametrize(("samples", "says"), BAD.values(), ids=BAD)
def test_a_sample_that_does_not_fit_is_named(samples: tuple[object, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        given(*samples)


def test_a_function_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[tuple[np.ndarray, int]]:
        while True:
            yield X, 0

    monkeypatch.setattr(spool, "MAX_SAMPLES", 100)
    with pytest.raises(DataError, match=r"more than 100 samples .* does it ever end"):
        open_data(endless, SIGNATURE)
    monkeypatch.setattr(spool, "MAX_BYTES", 24)
    with pytest.raises(DataError, match="or 24 bytes"):
        open_data(endless, SIGNATURE)


def test_ones_own_errors_pass_unchanged() -> None:
    def refuses() -> Iterator[tuple[np.ndarray, int]]:
        raise UsageError("not like this")
        yield X, 0

    with pytest.raises(UsageError, match="not like this"):
        open_data(refuses, SIGNATURE)


@pytest.mark.parametrize(
    ("text", "yes"), [("a.b:c", True), ("a:b", True), ("a", False), ("a b:c", False), ("C:\\x", False)]
)
def test_what_reads_as_a_function(text: str, yes: bool) -> None:
    assert call.is_call(text) is yes
