"""One pipeline for all families: the same object on the host that converts and on the device that serves."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np

from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import DataError
from lepton_edge.preprocess import array as arrays
from lepton_edge.preprocess import audio, image, text
from lepton_edge.preprocess.spec import (
    AudioFit,
    AudioFrame,
    AudioLogMel,
    AudioMfcc,
    AudioPreemphasis,
    AudioResample,
    AudioScale,
    AudioSpectrogram,
    AudioStep,
    Cast,
    ImageCenterCrop,
    ImageMode,
    ImageResize,
    ImageStep,
    Layout,
    Normalize,
    Reshape,
    Step,
    TextTokenize,
    op_name,
)
from lepton_edge.preprocess.wav import Sound, load_sound

Source = Path | bytes | str
S = TypeVar("S", bound=Step)
_ANY = ("image", "sound", "frames", "array", "named arrays")


class Implementation(NamedTuple):
    """What a step does.

    Attributes:
        takes: kinds of value that it works on.
        gives: the kind that comes out.
        run: (value, step) -> value.
    """

    takes: tuple[str, ...]
    gives: str
    run: Callable[[Any, Any], Any]


def _each(change: Callable[[Array, S], Array]) -> Callable[[Any, Any], Array | Arrays]:
    """Let a step on one array work on each of several named ones, or on the one that it names."""

    def run(value: object, step: Any) -> Array | Arrays:
        ready = _as_arrays(value)
        if not isinstance(ready, dict):
            return change(ready, step)
        if step.tensor and step.tensor not in ready:
            raise DataError(f"there is no tensor {step.tensor!r}; there are {sorted(ready)}")
        return {name: change(one, step) if step.tensor in {"", name} else one for name, one in ready.items()}

    return run


TABLE: Mapping[type[Step], Implementation] = {
    ImageMode: Implementation(("image",), "image", image.convert),
    ImageResize: Implementation(("image",), "image", image.resize),
    ImageCenterCrop: Implementation(("image",), "image", image.center_crop),
    AudioResample: Implementation(("sound",), "sound", audio.resample),
    AudioScale: Implementation(("sound",), "sound", audio.scale),
    AudioPreemphasis: Implementation(("sound",), "sound", audio.preemphasis),
    AudioFit: Implementation(("sound",), "sound", audio.fit),
    AudioFrame: Implementation(("sound",), "frames", audio.frame),
    AudioSpectrogram: Implementation(("sound", "frames"), "array", audio.spectrogram),
    AudioLogMel: Implementation(("sound", "frames"), "array", audio.log_mel),
    AudioMfcc: Implementation(("array",), "array", audio.mfcc),
    TextTokenize: Implementation(("text",), "named arrays", text.tokenize),
    Normalize: Implementation(_ANY, "array", _each(arrays.normalize)),
    Layout: Implementation(_ANY, "array", _each(arrays.layout)),
    Reshape: Implementation(_ANY, "array", _each(arrays.reshape)),
    Cast: Implementation(_ANY, "array", _each(arrays.cast)),
}
"""Every step that can stand before a model."""


class Pipeline:
    """The steps from a sample to the model's inputs."""

    def __init__(
        self, steps: Sequence[Step], *, files: Mapping[str, bytes] | None = None, inputs: Sequence[str]
    ) -> None:
        """Make the steps ready.

        Args:
            steps: as in the manifest.
            files: the content of those that the steps name, by the name that they give.
            inputs: the names of the model's inputs.

        Raises:
            DataError: a step out of order, a file that is missing or wrong, or an input that would get nothing.
        """
        self._inputs = list(inputs)
        self.family = check_order(steps)
        self._mode = isinstance(steps[0], ImageMode) if steps else False
        self._steps = [(number, step, self._ready(number, step, files or {})) for number, step in enumerate(steps, 1)]

    def _ready(self, number: int, step: Step, files: Mapping[str, bytes]) -> object:
        if not isinstance(step, TextTokenize):
            return step
        try:
            return text.prepare(step, files, self._inputs)
        except DataError as error:
            raise DataError(f"{_named(number, step)}: {error}") from error

    def load(self, source: Source, *, name: str = "sample") -> Arrays:
        """From a sample to the model's inputs.

        Args:
            source: a file or its bytes; for text also the text itself, else a str is a path.
            name: of the sample in messages, where it is no file.

        Returns:
            By input name, without the batch axis.

        Raises:
            DataError: it cannot be read, or a step cannot work on it.
        """
        where = str(source) if isinstance(source, Path) else name
        family = self.family or _guess(source)
        return self.run(self._opened(source, family, where), name=where)

    def _opened(self, source: Source, family: str, where: str) -> object:
        if isinstance(source, str):
            if family == "text":
                return text.load_text(source.encode("utf-8", "replace"), name=where)
            source = Path(source)
        if family == "text":
            return text.load_text(source, name=where)
        if family == "audio":
            return load_sound(source, name=where)
        picture = image.load_image(source, name=where)
        return picture if self._mode else picture.convert("RGB")

    def run(self, value: object, *, name: str = "sample") -> Arrays:
        """As `load`, from an opened sample: an image of Pillow, a Sound, a text, or an array.

        Raises:
            DataError: a step cannot work on it.
        """
        for number, step, ready in self._steps:
            kind = _kind(value)
            if kind not in TABLE[type(step)].takes:
                raise DataError(f"{name}: {_named(number, step)} cannot work on {kind}")
            try:
                value = TABLE[type(step)].run(value, ready)
            except DataError as error:
                raise DataError(f"{name}: {_named(number, step)}: {error}") from error
        return self._by_input(value, name)

    def _by_input(self, value: object, name: str) -> Arrays:
        if isinstance(value, str):
            raise DataError(f"{name}: a text without a text.tokenize step: give --preprocess P.toml")
        ready = _as_arrays(value)
        if isinstance(ready, dict):
            return {key: np.ascontiguousarray(one) for key, one in ready.items()}
        if len(self._inputs) != 1:
            raise DataError(f"{name}: the steps give one array, the model takes {self._inputs}: give an .npz")
        return {self._inputs[0]: np.ascontiguousarray(ready)}


def check_order(steps: Sequence[Step]) -> str | None:
    """The family that the steps begin with: "image", "audio" or "text"; None where any would do.

    Raises:
        DataError: a step that cannot work on what comes out of the one before.
    """
    family = next((found for step in steps if (found := _family(step))), None)
    kind = {"image": "image", "audio": "sound", "text": "text", None: "array"}[family]
    for number, step in enumerate(steps, start=1):
        work = TABLE.get(type(step))
        if work is None:
            raise DataError(f"{_named(number, step)} works on the model's outputs: it belongs under [[postprocess]]")
        if kind not in work.takes:
            raise DataError(f"{_named(number, step)} works on {' or '.join(work.takes)}, but gets {kind}")
        kind = kind if kind == "named arrays" else work.gives
    return family


def _family(step: Step) -> str | None:
    if isinstance(step, get_args(ImageStep)):
        return "image"
    if isinstance(step, get_args(AudioStep)):
        return "audio"
    return "text" if isinstance(step, TextTokenize) else None


def _named(number: int, step: Step) -> str:
    return f"step {number} ({op_name(step)})"


def _guess(source: Source) -> str:
    """What a sample is where no step says so: by its name, or by its first bytes."""
    if isinstance(source, bytes):
        return "audio" if source[:4] == b"RIFF" and source[8:12] == b"WAVE" else "image"
    return {".wav": "audio", ".txt": "text"}.get(Path(source).suffix.lower(), "image")


def _kind(value: object) -> str:
    if isinstance(value, Sound):
        return "sound"
    if isinstance(value, audio.Frames):
        return "frames"
    if isinstance(value, np.ndarray):
        return "array"
    if isinstance(value, dict):
        return "named arrays"
    return "text" if isinstance(value, str) else "image"


def _as_arrays(value: Any) -> Array | Arrays:
    """What array steps, and the model, see of a value."""
    kind = _kind(value)
    if kind == "sound":
        samples: Array = value.samples
        return samples
    if kind == "frames":
        cut: Array = value.values
        return cut
    if kind == "image":
        return image.to_array(value)
    given: Array | Arrays = value
    return given
