"""Scales and shifts of a float input: what is rounded before them, and what only after."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from converters.quantize.profiles import X86_VNNI, Profile, load_profile
from tests.converters.quantised import CHANNELS, Case, conv, net, run

SPREAD = np.geomspace(0.05, 20.0, CHANNELS).astype(np.float32).reshape(-1, 1, 1)
EVEN = np.linspace(0.9, 1.1, CHANNELS).astype(np.float32).reshape(-1, 1, 1)


def normalised(scale: np.ndarray, shift: np.ndarray, *, between: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    """x * scale + shift, and convolutions wide enough that int8 pays."""
    rng = np.random.default_rng(0)
    nodes = [
        *(between or (helper.make_node("Mul", ["x", "scale"], ["scaled"], "scaled"),)),
        helper.make_node("Add", ["scaled", "shift"], ["fed"], "shifted"),
        conv("fed", "a", "w1"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        conv("r", "y", "w2"),
    ]
    weights = {
        "w1": rng.normal(0, 0.3, (64, CHANNELS, 1, 1)).astype(np.float32),
        "w2": rng.normal(0, 0.3, (8, 64, 1, 1)).astype(np.float32),
        "w3": np.float32([1.5]),
        "w4": np.float32([0.0]),
    }
    return net(nodes, {"scale": scale, "shift": shift, **weights})


ZERO, ONE = np.full((CHANNELS, 1, 1), 0.1, np.float32), np.ones((CHANNELS, 1, 1), np.float32)


@dataclass(frozen=True)
class Form:
    """size: of the input's channels. floats: what is not rounded to int8."""

    model: onnx.ModelProto
    size: np.ndarray | float
    floats: set[str]


FORMS = {
    "channels of one size": Form(normalised(1 / EVEN, ZERO), EVEN, set()),
    "channels of all sizes": Form(normalised(1 / SPREAD, ZERO), SPREAD, {"x", "scale"}),
    "one scale for all": Form(normalised(np.float32([[[20.0]]]), ZERO), 0.05, set()),
    "sizes that the scale leaves as they are": Form(normalised(EVEN, ZERO), SPREAD, set()),
    "sizes that the scale widens": Form(normalised(SPREAD, ZERO), 1.0, set()),
    "picked between two scales": Form(
        normalised(
            1 / SPREAD,
            ZERO,
            between=(
                helper.make_node("Mul", ["x", "w3"], ["positive"], "positive"),
                helper.make_node("Less", ["x", "w4"], ["below"], "below"),
                helper.make_node("Where", ["below", "x", "positive"], ["picked"], "picked"),
                helper.make_node("Mul", ["picked", "scale"], ["scaled"], "scaled"),
            ),
        ),
        SPREAD,
        {"x", "positive", "picked", "scale"},
    ),
    "moved, then scaled": Form(
        normalised(
            1 / SPREAD,
            ZERO,
            between=(
                helper.make_node("Transpose", ["x"], ["t"], "turned", perm=[0, 1, 3, 2]),
                helper.make_node("Mul", ["t", "scale"], ["scaled"], "scaled"),
            ),
        ),
        SPREAD,
        {"x", "scale"},
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_a_scale_would_magnify_is_not_rounded_before_it(form: Form) -> None:
    refused = Case(form.model, scale=form.size).encodings.refused
    kept = {name for name in refused if "scales its rounding" in refused[name]}
    assert {name.partition("/")[0] for name in kept if name != "t"} == form.floats


def test_a_shift_that_takes_nearly_all_away_is_not_rounded_before_it() -> None:
    model = normalised(ONE, np.full((CHANNELS, 1, 1), -100, np.float32))
    assert "scales its rounding" not in str(Case(model, scale=20).encodings.refused)
    assert "scales its rounding" in Case(model, shift=100).encodings.refused["x"]


@pytest.mark.parametrize("profile", [X86_VNNI, load_profile("litert-xnnpack")], ids=lambda profile: profile.name)
def test_int8_is_as_near_whatever_the_sizes_of_the_channels(profile: Profile, tmp_path: Path) -> None:
    errors = []
    for size in (EVEN, SPREAD):
        case = Case(normalised(1 / size, ZERO), scale=size)
        made = case.plan(profile)
        assert {"Conv"} <= case.names(made)
        assert size is EVEN or "Mul" not in case.names(made)
        exact, rough = (run(path, case.x)[0] for path in (case.float_file(tmp_path), case.written(made, tmp_path)))
        errors.append(float(np.sqrt(np.mean((rough - exact) ** 2)) / exact.std()))
    assert errors[1] < 1.2 * errors[0] < 0.05
