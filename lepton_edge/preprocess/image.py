"""The image steps (Pillow)."""

import io
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from lepton_edge.errors import DataError
from lepton_edge.preprocess.extras import library
from lepton_edge.preprocess.spec import ImageCenterCrop, ImageMode, ImageResize

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64 * 1024 * 1024


def load_image(source: Path | bytes, *, name: str = "image") -> "Image":
    """Decode an image with a limit on its pixels.

    Raises:
        DataError: unreadable, no image, truncated, or larger than MAX_PIXELS; or Pillow is not installed.
    """
    pillow = library("PIL.Image", extra="image")
    where = str(source) if isinstance(source, Path) else name
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            return _decoded(pillow, file, where)
    except (pillow.UnidentifiedImageError, pillow.DecompressionBombError) as cause:
        raise DataError(f"{where}: no image that Pillow knows") from cause
    except (OSError, SyntaxError, ValueError) as cause:
        raise DataError(f"{where}: unreadable or truncated ({cause})") from cause


def _decoded(pillow: ModuleType, file: BinaryIO, where: str) -> "Image":
    image: Image = pillow.open(file)
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{where}: {image.width} x {image.height} pixels, at most {MAX_PIXELS} are accepted")
    image.load()
    return image


def convert(picture: "Image", step: ImageMode) -> "Image":
    return picture.convert(step.mode)


def resize(picture: "Image", step: ImageResize) -> "Image":
    """Resize; a side of the other length is rounded to whole pixels."""
    resampling = library("PIL.Image", extra="image").Resampling
    return picture.resize(_target_size(picture, step), resampling[step.filter.upper()])


def _target_size(picture: "Image", step: ImageResize) -> tuple[int, int]:
    """Pillow's (width, height)."""
    if step.size is not None:
        return step.size[1], step.size[0]
    ratio = (step.short or 1) / min(picture.size)
    return max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))


def center_crop(picture: "Image", step: ImageCenterCrop) -> "Image":
    """Cut out the middle; where a margin is odd, the smaller part is left or above."""
    height, width = step.size
    if picture.height < height or picture.width < width:
        raise DataError(f"{width} x {height} does not fit in {picture.width} x {picture.height}")
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def to_array(picture: "Image") -> npt.NDArray[np.float32]:
    """Shape (height, width, channels), float32, values as stored (0..255)."""
    array = np.asarray(picture, dtype=np.float32)
    return array if array.ndim == 3 else array[:, :, np.newaxis]
