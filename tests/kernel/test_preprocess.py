"""preprocess.toml and the image steps, against Pillow and numpy done by hand."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError
from lepton_edge.preprocess import image as image_steps
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.recipe import load_preprocess
from lepton_edge.preprocess.spec import Step

TOML = """
[[step]]
op = "image.resize"
short = 32
[[step]]
op = "image.center_crop"
size = [24, 28]
[[step]]
op = "normalize"
mean = [127.0, 100.0, 90.0]
std = [128.0, 64.0, 32.0]
[[step]]
op = "layout"
to = "NCHW"
"""


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _load(tmp_path: Path, text: str) -> Sequence[Step]:
    (tmp_path / "p.toml").write_text(text)
    return load_preprocess(tmp_path / "p.toml").steps


def _run(picture: Image.Image, steps: Sequence[Step]) -> Array:
    return Pipeline(steps, inputs=["x"]).run(picture)["x"]


def test_the_steps_are_what_they_say(tmp_path: Path, picture: Image.Image) -> None:
    got = _run(picture, _load(tmp_path, TOML))
    resized = np.asarray(picture.resize((43, 32), Image.Resampling.BILINEAR), np.float32)
    cropped = resized[4:28, 7:35]
    want = ((cropped - np.float32([127, 100, 90])) / np.float32([128, 64, 32])).transpose(2, 0, 1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_one_channel_and_a_cast(tmp_path: Path, picture: Image.Image) -> None:
    steps = _load(tmp_path, '[[step]]\nop = "image.mode"\nmode = "L"\n[[step]]\nop = "cast"\nto = "uint8"\n')
    got = _run(picture, steps)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[:, :, 0], np.asarray(picture.convert("L")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[step]\n", "line 1"),
        ('[[step]]\nop = "image.spin"\n', "image.spin"),
        ('[[step]]\nop = "image.resize"\n', "short or size"),
        ('[[step]]\nop = "normalize"\nmean = [1]\nstd = [0]\n', "std"),
        ('[[step]]\nop = "layout"\nto = "CHWN"\n', "CHWN"),
    ],
)
def test_a_wrong_file_is_named_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _load(tmp_path, text)
    assert "p.toml" in str(caught.value)


def test_an_image_step_after_the_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"step 2 \(image\.resize\) works on image, but gets array"):
        _load(tmp_path, '[[step]]\nop = "cast"\nto = "uint8"\n[[step]]\nop = "image.resize"\nshort = 8\n')


def test_truncated_foreign_and_giant_images_are_refused(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    picture.save(out, "PNG")
    for data in (b"", b"no image", out.getvalue()[:2000]):
        with pytest.raises(DataError, match=r"photo\.png"):
            image_steps.load_image(data, name="photo.png")
    monkeypatch.setattr(image_steps, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="64 x 48"):
        image_steps.load_image(out.getvalue(), name="photo.png")
