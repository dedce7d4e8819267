"""Whole networks of known architectures as TFLite files, against ONNX Runtime; a few with int8 too."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the networks are torch's")

from converters.api import quantize_model
from lepton_edge.runtimes import installed
from tests.converters.tflite.zoo.case import Case
from tests.converters.tflite.zoo.check import built, float_check, native_operators
from tests.converters.tflite.zoo.dense import DENSE
from tests.converters.tflite.zoo.images import IMAGES
from tests.converters.tflite.zoo.sequences import SEQUENCES

pytestmark = pytest.mark.filterwarnings("ignore")

CASES = {case.name: case for case in (*IMAGES, *DENSE, *SEQUENCES)}
MOVES = {
    "deeplab": 0,
    "vae": 0,
    "centernet": 1,  # what the sizes are gathered from
    "encoder, mask": 8,  # four for each layer's attention
    "vit, patches of 16": 8,
    "bert, open length": 4,
    "tcn": 0,
}
"""Network -> transposes of its file where the borders are free."""
SHAPES = {"vae": 2, "centernet": 2, "encoder, mask": 2, "bert, open length": 4}
"""Network -> shapes that it asks for at most: transposed convolutions and masks of open size need them."""
WORST = 2e-5
DEVIATION = 0.05


@pytest.mark.parametrize("name", MOVES)
def test_a_net_computes_the_same_and_moves_no_more_than_it_must(name: str) -> None:
    model = built(CASES[name])
    assert float_check(model, CASES[name]) <= WORST
    operators = native_operators(model)
    assert operators["TRANSPOSE"] <= MOVES[name]
    assert operators["SHAPE"] <= SHAPES.get(name, 0)


@pytest.mark.parametrize("name", ["fsrcnn"])
def test_int8_of_both_formats_is_near_float(name: str) -> None:
    if "litert" not in installed():
        pytest.skip("LiteRT is not installed")
    case = CASES[name]
    model = built(case)
    (data,) = case.samples(12)
    quantised = quantize_model(model, data=data, budget=100.0)
    for wanted in ("onnx", "tflite"):
        assert any(name.startswith("int8") and wanted in name for name in quantised.variants)
    got, want = quantised.predict(data[:4]), model.predict(data[:4])
    assert isinstance(got, np.ndarray)
    assert isinstance(want, np.ndarray)
    assert np.sqrt(((got - want) ** 2).mean()) <= DEVIATION * want.std()


def test_every_network_has_a_name_of_its_own() -> None:
    assert len(CASES) == len(IMAGES) + len(DENSE) + len(SEQUENCES)
    assert all(isinstance(case, Case) for case in CASES.values())
