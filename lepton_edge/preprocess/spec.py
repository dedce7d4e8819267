"""The steps of preprocess.toml as typed data: they travel in the bundle's manifest.

A step that a program does not know, or a parameter that a step does not have, is an error: to leave it out would feed
the model something else in silence. What the steps do lies beside, one module a family (`pipeline` has the table).
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from lepton_edge.typed import Record

Pixels = Annotated[int, msgspec.Meta(ge=1, le=16_384)]
Size = tuple[Pixels, Pixels]
Samples = Annotated[int, msgspec.Meta(ge=1, le=1_048_576)]
Milliseconds = Annotated[float, msgspec.Meta(gt=0, le=600_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3_600)]
Hertz = Annotated[int, msgspec.Meta(ge=100, le=768_000)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Window = Literal["hann", "hamming", "blackman", "povey", "rectangular"]


class ImageMode(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="image.mode"):
    """Convert to "RGB" or "L" (one channel); without this step an image becomes RGB."""

    mode: Literal["RGB", "L"]


class ImageResize(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="image.resize"):
    """Resize: `short` keeps the aspect ratio with the short side at this many pixels; `size` is (height, width)."""

    short: Pixels | None = None
    size: Size | None = None
    filter: Literal["bilinear", "bicubic", "nearest", "lanczos", "box"] = "bilinear"

    def __post_init__(self) -> None:
        if (self.short is None) == (self.size is None):
            raise ValueError("image.resize takes either short or size")


class ImageCenterCrop(
    Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="image.center_crop"
):
    """Cut (height, width) out of the middle."""

    size: Size


class AudioResample(
    Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.resample"
):
    """Resample to `rate` hertz with libsamplerate; a sound that has this rate stays as it is."""

    rate: Hertz
    quality: Literal["QQ", "LQ", "MQ", "HQ", "VHQ"] = "HQ"


class AudioScale(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.scale"):
    """Multiply the samples, which are within -1..1 when they are read; 32768 gives what 16-bit files hold."""

    factor: float


class AudioPreemphasis(
    Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.preemphasis"
):
    """y[n] = x[n] - coefficient x[n - 1], and y[0] = x[0] - coefficient x[0] (HTK book, section 5.2)."""

    coefficient: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.97


class AudioFit(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.fit"):
    """Make the sound exactly `seconds` long: trimmed, or padded with zeros, behind ("end") or on both sides."""

    seconds: Seconds
    at: Literal["end", "both"] = "end"


class AudioFrame(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.frame"):
    """Cut into overlapping frames that lie within the sound, and multiply each by a window.

    Gives (frames, length). `length` and `hop` are in samples, `length_ms` and `hop_ms` in milliseconds; `seconds` pads
    with zeros or trims at the end first. `symmetric` windows end where they began; the others are periodic.
    """

    length: Samples | None = None
    length_ms: Milliseconds | None = None
    hop: Samples | None = None
    hop_ms: Milliseconds | None = None
    seconds: Seconds | None = None
    window: Window = "hann"
    symmetric: bool = False

    def __post_init__(self) -> None:
        _one_of("audio.frame", length=self.length, length_ms=self.length_ms)
        _one_of("audio.frame", hop=self.hop, hop_ms=self.hop_ms)


class _Spectral(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `audio.spectrogram` and `audio.log_mel` have in common; see docs/preprocess.md for the definitions.

    n_fft: size of the transform in samples. length, length_ms: of the window, n_fft where neither is given.
    hop, hop_ms: needed for a sound, refused behind `audio.frame`. pad: whether frames are centred on multiples of the
    hop, with n_fft // 2 samples of padding on each side.
    """

    n_fft: Samples
    length: Samples | None = None
    length_ms: Milliseconds | None = None
    hop: Samples | None = None
    hop_ms: Milliseconds | None = None
    window: Window = "hann"
    symmetric: bool = False
    pad: Literal["none", "reflect", "zero"] = "none"
    power: Positive = 2.0

    def __post_init__(self) -> None:
        if self.length is not None and self.length_ms is not None:
            raise ValueError("give either length or length_ms")
        if self.hop is not None and self.hop_ms is not None:
            raise ValueError("give either hop or hop_ms")


class AudioSpectrogram(
    _Spectral, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.spectrogram"
):
    """|FFT| to the `power`, shape (frames, n_fft // 2 + 1)."""


class AudioLogMel(
    _Spectral, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.log_mel"
):
    """A mel filterbank over the spectrogram, then a logarithm; shape (frames, n_mels).

    f_min, f_max: in hertz; f_max is half the sampling rate where it is not given. scale: of the mel axis. slopes:
    whether the triangles are straight in hertz or in mel. norm: "slaney" gives each filter an area of 1 in hertz.
    log: "db" is 10 log10, "none" leaves it out; it is taken of max(mel, floor) + offset. range: values more than this
    below the sample's highest are raised to that.
    """

    n_mels: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    f_min: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    f_max: Positive | None = None
    scale: Literal["htk", "slaney"] = "htk"
    slopes: Literal["hertz", "mel"] = "hertz"
    norm: Literal["none", "slaney"] = "none"
    log: Literal["ln", "log10", "log2", "db", "none"] = "ln"
    floor: Annotated[float, msgspec.Meta(ge=0)] = 1e-10
    offset: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    range: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.f_max is not None and self.f_max <= self.f_min:
            raise ValueError(f"f_max {self.f_max:g} is not above f_min {self.f_min:g}")
        if self.log != "none" and self.floor + self.offset <= 0:
            raise ValueError("floor + offset must be above 0, or silence has no logarithm")


class AudioMfcc(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="audio.mfcc"):
    """The first n_mfcc coefficients of the orthonormal DCT-II of log-mel values, from coefficient 0 on.

    lifter: HTK's L, coefficient n times 1 + L/2 sin(pi n / L); 0 does nothing.
    """

    n_mfcc: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    lifter: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class TextTokenize(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="text.tokenize"):
    """Tokenize with Hugging Face's `tokenizers`; int64 arrays of shape (tokens,), one a model input.

    file: a tokenizer.json, beside preprocess.toml or in the bundle. max_length: truncates (with special tokens);
    the tokenizer's own rule where it is not given. padding: "none" leaves each text its own length, "max_length" pads
    to it, "tokenizer" follows tokenizer.json. outputs: the model's input -> which of the tokenizer's outputs it takes;
    where empty, inputs are matched by name, and a single one takes input_ids.
    """

    file: str
    max_length: Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] | None = None
    padding: Literal["none", "max_length", "tokenizer"] = "tokenizer"
    special_tokens: bool = True
    outputs: dict[str, Literal["input_ids", "attention_mask", "token_type_ids"]] = {}

    def __post_init__(self) -> None:
        if self.padding == "max_length" and self.max_length is None:
            raise ValueError('padding = "max_length" needs max_length')
        if not self.file:
            raise ValueError("file is empty: name a tokenizer.json")


class Normalize(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="normalize"):
    """(x - mean) / std in float32; one value, or one for each place of the last axis.

    tensor: which of several named tensors; all where it is not given (so in the steps below).
    """

    mean: list[float]
    std: list[float]
    tensor: str = ""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(self.std):
            raise ValueError("normalize takes as many means as stds, one or more, and no std of 0")


class Layout(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="layout"):
    """Axis order of the model's input (the batch axis N is added when samples are stacked).

    Arrays are channels-last, or have no channel axis, which is then added with size 1.
    """

    to: Literal["NCHW", "NHWC", "NCW", "NWC"]
    tensor: str = ""


class Reshape(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="reshape"):
    """Give a sample another shape (without the batch axis); one size may be -1."""

    shape: list[Annotated[int, msgspec.Meta(ge=-1)]]
    tensor: str = ""


class Cast(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="cast"):
    """Change the type; to whole numbers: rounded towards zero, and clipped to what the type holds."""

    to: Literal["float32", "float16", "uint8", "int8", "int32", "int64"]
    tensor: str = ""


class Softmax(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="softmax"):
    """Postprocess: scores to probabilities along the last axis."""


class Argmax(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="argmax"):
    """Postprocess: the index of the highest score."""


class TopK(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="topk"):
    """Postprocess: the k highest scores with their indices."""

    k: Annotated[int, msgspec.Meta(ge=1)] = 5


class Labels(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="labels"):
    """Postprocess: class indices to the bundle's labels."""


class Ctc(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="ctc"):
    """Postprocess: greedy CTC decoding to text: best class a step, repeats merged, blanks dropped, labels joined.

    blank: the blank's class index; -1 is the last class. joiner: between two labels.
    """

    blank: Annotated[int, msgspec.Meta(ge=-1)] = 0
    joiner: str = ""


ImageStep = ImageMode | ImageResize | ImageCenterCrop
AudioStep = (
    AudioResample | AudioScale | AudioPreemphasis | AudioFit | AudioFrame | AudioSpectrogram | AudioLogMel | AudioMfcc
)
Step = (
    ImageMode
    | ImageResize
    | ImageCenterCrop
    | AudioResample
    | AudioScale
    | AudioPreemphasis
    | AudioFit
    | AudioFrame
    | AudioSpectrogram
    | AudioLogMel
    | AudioMfcc
    | TextTokenize
    | Normalize
    | Layout
    | Reshape
    | Cast
    | Softmax
    | Argmax
    | TopK
    | Labels
    | Ctc
)


def op_name(step: Step) -> str:
    """The step's name in preprocess.toml."""
    return str(step.__struct_config__.tag)


def files_of(steps: Sequence[Step]) -> list[str]:
    """The files that the steps name, each once, in their order."""
    return list(dict.fromkeys(step.file for step in steps if isinstance(step, TextTokenize)))


def _one_of(op: str, **values: float | None) -> None:
    if sum(value is not None for value in values.values()) != 1:
        raise ValueError(f"{op} takes either {' or '.join(values)}")
