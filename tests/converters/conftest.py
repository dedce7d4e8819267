"""What the converters' tests share: the demo's model and data, and one finished conversion of them."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from converters.convert import convert
from converters.outcome import Outcome
from converters.request import Request
from lepton_edge.bundle import Bundle
from lepton_edge.demo import digits
from tests.converters import models

DEMO = Path(digits.__file__).parent


@pytest.fixture(scope="session")
def digits_onnx() -> Path:
    return DEMO / "digits.onnx"


@pytest.fixture(scope="session")
def held_out() -> digits.Digits:
    return digits.held_out()


@pytest.fixture(scope="session")
def digits_npz(held_out: digits.Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x=held_out.images, y=held_out.labels)
    return path


@pytest.fixture(scope="session")
def converted(
    digits_onnx: Path, digits_npz: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outcome, Bundle, Path]:
    """The demo's model, converted as the demo does; a busy machine must not decide what is in it."""
    out = tmp_path_factory.mktemp("converted") / "digits.lep"
    outcome = convert(Request(model=digits_onnx, out=out, data=digits_npz, budget=0.5, keep_all=True))
    return outcome, Bundle.open(out).verify(), out


@pytest.fixture
def conv_onnx(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(models.conv_net(), path)
    return path
