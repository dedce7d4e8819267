"""preprocess.toml: the steps from a sample to the model's input, as typed data that travel in the bundle."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from lepton_edge.errors import DataError
from lepton_edge.typed import Record

Pixels = Annotated[int, msgspec.Meta(ge=1, le=16_384)]
Size = tuple[Pixels, Pixels]


class ImageMode(Record, frozen=True, kw_only=True, tag_field="op", tag="image.mode"):
    """Convert to "RGB" or "L" (one channel); without this step an image becomes RGB."""

    mode: Literal["RGB", "L"]


class ImageResize(Record, frozen=True, kw_only=True, tag_field="op", tag="image.resize"):
    """Resize: `short` keeps the aspect ratio with the short side at this many pixels; `size` is (height, width)."""

    short: Pixels | None = None
    size: Size | None = None
    filter: Literal["bilinear", "bicubic", "nearest", "lanczos", "box"] = "bilinear"

    def __post_init__(self) -> None:
        if (self.short is None) == (self.size is None):
            raise ValueError("image.resize takes either short or size")


class ImageCenterCrop(Record, frozen=True, kw_only=True, tag_field="op", tag="image.center_crop"):
    """Cut (height, width) out of the middle."""

    size: Size


class Normalize(Record, frozen=True, kw_only=True, tag_field="op", tag="normalize"):
    """(x - mean) / std on the last axis of HWC; one value, or one a channel."""

    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(self.std):
            raise ValueError("normalize takes as many means as stds, one or more, and no std of 0")


class Layout(Record, frozen=True, kw_only=True, tag_field="op", tag="layout"):
    """Axis order of the model's input: NCHW or NHWC (the batch axis is added when samples are stacked)."""

    to: Literal["NCHW", "NHWC"]


class Cast(Record, frozen=True, kw_only=True, tag_field="op", tag="cast"):
    to: Literal["float32", "float16", "uint8", "int8", "int32", "int64"]


class Softmax(Record, frozen=True, kw_only=True, tag_field="op", tag="softmax"):
    """Postprocess: scores to probabilities along the last axis."""


class Argmax(Record, frozen=True, kw_only=True, tag_field="op", tag="argmax"):
    """Postprocess: the index of the highest score."""


class TopK(Record, frozen=True, kw_only=True, tag_field="op", tag="topk"):
    """Postprocess: the k highest scores with their indices."""

    k: Annotated[int, msgspec.Meta(ge=1)] = 5


class Labels(Record, frozen=True, kw_only=True, tag_field="op", tag="labels"):
    """Postprocess: class indices to the bundle's labels."""


Step = ImageMode | ImageResize | ImageCenterCrop | Normalize | Layout | Cast | Softmax | Argmax | TopK | Labels


class _File(Record, frozen=True, kw_only=True):
    step: list[Step] = []
    postprocess: list[Step] = []


def load_preprocess(path: Path) -> tuple[list[Step], list[Step]]:
    """Read a preprocess.toml: (steps, postprocess steps).

    Raises:
        DataError: unreadable, no TOML, an unknown step or a wrong parameter.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        parsed = msgspec.convert(document, _File, strict=False)
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as cause:
        raise DataError(f"{path}: {cause}") from cause
    return parsed.step, parsed.postprocess
