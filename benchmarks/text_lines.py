"""Lines of text rendered with Pillow, half of them upside down, as the text-direction net of PaddleOCR wants them.

Its input: height 48, aspect kept up to a width of 192, padded with zeros on the right, BGR, (value / 255 - 0.5) / 0.5.
Class 0 is upright, class 1 turned by 180 degrees.
"""

import string
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HIGH, WIDE = 48, 192
FONTS = Path("/usr/share/fonts")
LETTERS = string.ascii_lowercase * 4 + string.ascii_uppercase * 2 + string.digits
SEED = 11

F32 = npt.NDArray[np.float32]


def rendered(count: int, *, seed: int) -> tuple[F32, npt.NDArray[np.int64]]:
    """Images (n, 3, 48, 192) and their direction."""
    rng = np.random.default_rng([SEED, seed])
    labels = rng.integers(0, 2, count)
    return np.stack([_as_input(_line(rng), turned=bool(label), rng=rng) for label in labels]), labels.astype(np.int64)


@cache
def _fonts() -> list[str]:
    """The machine's fonts; none where it has none, and then Pillow's own is used."""
    return [str(path) for path in sorted(FONTS.rglob("*.ttf")) if "Math" not in path.name][:12]


def _font(rng: np.random.Generator) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    size = int(rng.integers(18, 44))
    fonts = [*_fonts(), ""]
    name = fonts[int(rng.integers(len(fonts)))]
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def _line(rng: np.random.Generator) -> Image.Image:
    words = ["".join(rng.choice(list(LETTERS), int(rng.integers(3, 8)))) for _ in range(int(rng.integers(1, 3)))]
    text, font = " ".join(words), _font(rng)
    left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).textbbox((0, 0), text, font=font)
    edge = int(rng.integers(2, 9))
    paper = rng.integers(120, 256, 3)
    ink = np.clip(paper - rng.integers(60, 200), 0, 255)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    size = (int(right - left) + 2 * edge, int(bottom - top) + 2 * edge)
    image = Image.new("RGB", size, tuple(map(int, paper)))
    ImageDraw.Draw(image).text((edge - left, edge - top), text, font=font, fill=tuple(map(int, ink)))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.0))))


def _as_input(image: Image.Image, *, turned: bool, rng: np.random.Generator) -> F32:
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_180)
    wide = min(WIDE, -(-HIGH * image.width // image.height))
    pixels = np.asarray(image.resize((wide, HIGH), Image.Resampling.BILINEAR), np.float32)
    pixels = np.clip(pixels + rng.normal(0, rng.uniform(0, 14), pixels.shape), 0, 255)
    whole = np.zeros((3, HIGH, WIDE), np.float32)
    whole[:, :, :wide] = (pixels[:, :, ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return whole
