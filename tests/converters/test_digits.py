"""The demo's data and committed models."""

import numpy as np
import pytest

import lepton_edge
from lepton_edge.demo import digits
from tests.converters.conftest import DEMO


def test_split_is_fixed_stratified_and_disjoint() -> None:
    labels = digits.load().labels
    train, held = digits.split(labels)
    assert len(train) == 3500
    assert len(held) == 1500
    assert not set(train) & set(held)
    assert set(np.bincount(labels[held])) == {150}
    again = digits.split(labels)
    assert (again[0] == train).all()
    assert (again[1] == held).all()


@pytest.mark.parametrize("name", ["digits", "parity"])
def test_committed_model_is_small_and_right_on_samples_it_never_saw(name: str) -> None:
    path = DEMO / f"{name}.onnx"
    data = digits.held_out() if name == "digits" else digits.held_out().parity()
    chosen = np.argmax(lepton_edge.load_model(path).predict(data.images), axis=1)
    assert path.stat().st_size <= 1_000_000
    assert np.mean(chosen == data.labels) >= 0.97
