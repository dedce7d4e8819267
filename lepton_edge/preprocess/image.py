"""Image steps (Pillow) and the array steps that follow them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lepton_edge.errors import DataError
from lepton_edge.preprocess.spec import Cast, ImageCenterCrop, ImageMode, ImageResize, Layout, Normalize, Step

MAX_PIXELS = 64 * 1024 * 1024
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}

Array = npt.NDArray[np.generic]


def load_image(source: Path | bytes, *, name: str = "image") -> Image.Image:
    """Decode an image with a limit on its pixels.

    Raises:
        DataError: unreadable, no image, truncated, or larger than MAX_PIXELS.
    """
    where = str(source) if isinstance(source, Path) else name
    try:
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(source))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{where}: {image.width} x {image.height} pixels, at most {MAX_PIXELS} are accepted")
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError) as cause:
        raise DataError(f"{where}: no image that Pillow knows") from cause
    except (OSError, SyntaxError, ValueError) as cause:
        raise DataError(f"{where}: unreadable or truncated ({cause})") from cause
    return image


def preprocess_image(image: Image.Image, steps: Sequence[Step]) -> Array:
    """Run the steps: one sample without the batch axis, float32 HWC unless a step says otherwise.

    Raises:
        DataError: a step that images do not have, or one out of order.
    """
    mode = next((step.mode for step in steps if isinstance(step, ImageMode)), "RGB")
    picture = image.convert(mode)
    index = 0
    while index < len(steps) and isinstance(steps[index], ImageMode | ImageResize | ImageCenterCrop):
        picture = _image_step(picture, steps[index])
        index += 1
    array: Array = np.asarray(picture, dtype=np.float32)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    for step in steps[index:]:
        array = _array_step(array, step)
    return np.ascontiguousarray(array)


def _image_step(picture: Image.Image, step: Step) -> Image.Image:
    if isinstance(step, ImageResize):
        return picture.resize(_target_size(picture, step), _FILTERS[step.filter])
    if isinstance(step, ImageCenterCrop):
        return _center_crop(picture, *step.size)
    return picture


def _target_size(picture: Image.Image, step: ImageResize) -> tuple[int, int]:
    """Pillow's (width, height)."""
    if step.size is not None:
        return step.size[1], step.size[0]
    ratio = (step.short or 1) / min(picture.size)
    return max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))


def _center_crop(picture: Image.Image, height: int, width: int) -> Image.Image:
    if picture.height < height or picture.width < width:
        raise DataError(f"image.center_crop: {width} x {height} does not fit in {picture.width} x {picture.height}")
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _array_step(array: Array, step: Step) -> Array:
    if isinstance(step, Normalize):
        return _normalize(array, step)
    if isinstance(step, Layout):
        return array.transpose(2, 0, 1) if step.to == "NCHW" else array
    if isinstance(step, Cast):
        return array.astype(step.to)
    raise DataError(f"preprocess: {type(step).__name__} cannot stand after the image has become an array")


def _normalize(array: Array, step: Normalize) -> Array:
    if len(step.mean) not in {1, array.shape[-1]}:
        raise DataError(f"normalize: {len(step.mean)} means for {array.shape[-1]} channels; put it before layout")
    mean, std = np.asarray(step.mean, np.float32), np.asarray(step.std, np.float32)
    return np.asarray((array.astype(np.float32) - mean) / std, np.float32)
