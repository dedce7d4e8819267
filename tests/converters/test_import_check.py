"""Imports are held against their source; random inputs fit their signature."""

from dataclasses import replace

import numpy as np
import pytest

from converters.api import Model, quantize_model
from converters.data.open import open_data
from converters.data.random import random_inputs
from converters.importers import import_model
from converters.importers.check import SAMPLES, check_import, check_on_data
from converters.pack import Card
from converters.source import Source
from lepton_edge.bundle.binding import Arrays, check_inputs
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec
from lepton_edge.errors import ModelError
from tests.converters import models
from tests.converters.canonical_graphs import graph

X = np.array([[0.1, 0.2, 0.3, 0.4], [4.0, 3.0, 2.0, 1.0]], np.float32)


def softmax(inputs: Arrays) -> Arrays:
    x = inputs["x"].astype(np.float64)
    parts = np.exp(x - x.max(-1, keepdims=True))
    return {"y": (parts / parts.sum(-1, keepdims=True)).astype(np.float32)}


def claimed(**changed: object) -> Source:
    """Softmax, whose reference is Softmax with something changed."""

    def reference(inputs: Arrays) -> Arrays:
        y = softmax(inputs)["y"].copy()
        if "add" in changed:
            y += changed["add"]
        if "at" in changed:
            y[changed["at"]] = changed["value"]
        return {"y": y.reshape(changed.get("shape", y.shape))}

    return replace(import_model(models.no_weights_net()), reference=reference)


def test_equal_but_for_rounding() -> None:
    check_import(claimed(), [{"x": X}, {"x": X[:1]}])
    check_import(claimed(add=1e-6), [{"x": X}])


def steep(times: float, add: float = 0.0) -> Source:
    """A sine that turns `times` faster, whose reference computes in float64 and adds `add`."""
    made = import_model(graph("(float[N,4] x) => (float[N,4] y) { a = Mul(x, times) y = Sin(a) }", {"times": times}))
    return replace(made, reference=lambda inputs: {"y": np.sin(inputs["x"].astype(np.float64) * times) + add})


def test_a_source_that_blows_up_rounding_is_no_witness_on_made_up_inputs() -> None:
    with pytest.raises(ModelError, match="differs by"):
        check_import(steep(1e6), [{"x": X}])
    (note,) = check_import(steep(1e6), [{"x": X}], nudge=True).notes
    assert "output 'y'" in note
    assert "only your data can show" in note
    with pytest.raises(ModelError, match="differs by"):
        check_import(steep(1.0, add=0.02), [{"x": X}], nudge=True)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"add": 0.01}, r"output 'y' differs by 0.01. of its largest value, at most 0.001"),
        ({"at": (1, 2), "value": np.nan}, "output 'y' differs by nan"),
        ({"at": (0, 0), "value": np.inf}, "output 'y' differs by inf"),
        ({"shape": (4, 2)}, r"output 'y' has shape \[2, 4\], not \[4, 2\]"),
    ],
)
def test_unequal(changed: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError, match=says) as error:
        check_import(claimed(**changed), [{"x": X}])
    assert str(error.value).startswith("the model: the exported graph is not the model")


def test_the_users_own_samples_are_compared() -> None:
    """A branch that random samples do not reach."""
    good = claimed()
    asked: list[Arrays] = []

    def reference(inputs: Arrays) -> Arrays:
        asked.append(inputs)
        y = softmax(inputs)
        return {"y": y["y"] + (inputs["x"][:, :1] > 100)}

    rows = np.zeros((20, 4), np.float32)
    data = open_data({"x": rows}, good.signature)
    check_on_data(replace(good, reference=reference), data)
    assert len(asked) == SAMPLES
    rows[2] = 101
    with pytest.raises(ModelError, match="output 'y' differs"):
        check_on_data(replace(good, reference=reference), open_data({"x": rows}, good.signature))


def test_quantising_begins_with_the_users_samples() -> None:
    net = import_model(models.conv_net())
    wrong = replace(net, reference=lambda inputs: {"y": np.zeros((len(inputs["x"]), 4), np.float32)})
    with pytest.raises(ModelError, match="the exported graph is not the model"):
        quantize_model(Model(wrong, card=Card("", "")), data=models.samples())


def test_random_inputs_fit_a_signature_with_open_axes() -> None:
    signature = ModelSignature(
        inputs=[
            TensorSpec(name="ids", dtype="int64", shape=["batch", "length"]),
            TensorSpec(name="mask", dtype="bool", shape=["batch", "length"]),
            TensorSpec(name="image", dtype="float32", shape=["batch", 3, "height", "width"]),
            TensorSpec(name="byte", dtype="uint8", shape=[1, 5]),
        ],
        outputs=[],
    )
    made = random_inputs(signature, 4, np.random.default_rng(0))
    assert {name: array.shape for name, array in made.items()} == {
        "ids": (4, 8), "mask": (4, 8), "image": (4, 3, 64, 64), "byte": (4, 5)
    }  # fmt: skip
    check_inputs(signature, {name: array[:1] for name, array in made.items()})
    assert set(np.unique(made["ids"])) == {0, 1}
    again = random_inputs(signature, 4, np.random.default_rng(0))
    assert all(np.array_equal(made[name], again[name]) for name in made)
