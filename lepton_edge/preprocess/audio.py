"""The audio steps: from a WAV file to frames, spectra, log-mel values or MFCCs, as float32.

Transforms run block by block, so that memory holds the result and a few frames. The definitions, and how they compare
with those of librosa, TensorFlow and Kaldi, are in docs/preprocess.md.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_edge.errors import DataError
from lepton_edge.preprocess.extras import library
from lepton_edge.preprocess.spec import (
    AudioFit,
    AudioFrame,
    AudioLogMel,
    AudioMfcc,
    AudioPreemphasis,
    AudioResample,
    AudioScale,
    AudioSpectrogram,
)
from lepton_edge.preprocess.spectral import F64, dct_matrix, frame_count, frames, lifter, mel_filters, window
from lepton_edge.preprocess.wav import Signal, Sound

MAX_VALUES = 64 * 1024 * 1024
"""Numbers in one sample's features: 256 MB of float32."""
_BLOCK_VALUES = 1024 * 1024
_MOST_RATIO = 256
"""Between two rates: libsamplerate's own limit."""
_CONVERTERS = {
    "QQ": "sinc_fastest",
    "LQ": "sinc_fastest",
    "MQ": "sinc_fastest",
    "HQ": "sinc_medium",
    "VHQ": "sinc_best",
}
"""By the noise that each keeps below: 97, 121 and 144 dB. Its linear converter, faster still, delays by a sample."""
Features = npt.NDArray[np.float32]


class Frames(NamedTuple):
    """Windowed pieces of a sound: values of shape (frames, length), rate in hertz."""

    values: Features
    rate: int


def resample(sound: Sound, step: AudioResample) -> Sound:
    """Resample with libsamplerate, without delay; the length is that of the sound times the ratio, rounded.

    Raises:
        DataError: too many samples, rates further apart than 1 : 256, or the library is not installed.
    """
    if sound.rate == step.rate:
        return sound
    want = round(len(sound.samples) * step.rate / sound.rate)
    _check_size(want, "audio.resample")
    if max(sound.rate, step.rate) > _MOST_RATIO * min(sound.rate, step.rate):
        raise DataError(f"audio.resample: {sound.rate} to {step.rate} Hz is more than 1 : {_MOST_RATIO}")
    samplerate = library("samplerate", extra="audio")
    # The library rounds the length as its phase falls; with silence behind it never gives fewer samples than wanted.
    silence = 2 * -(-sound.rate // step.rate) + 1
    longer = np.pad(sound.samples, (0, silence))
    samples = samplerate.resample(longer, step.rate / sound.rate, _CONVERTERS[step.quality])
    return Sound(_fitted(np.asarray(samples, np.float32), want), step.rate)


def scale(sound: Sound, step: AudioScale) -> Sound:
    return Sound(sound.samples * np.float32(step.factor), sound.rate)


def preemphasis(sound: Sound, step: AudioPreemphasis) -> Sound:
    before = np.concatenate([sound.samples[:1], sound.samples[:-1]])
    return Sound(np.asarray(sound.samples - np.float32(step.coefficient) * before, np.float32), sound.rate)


def fit(sound: Sound, step: AudioFit) -> Sound:
    return Sound(_fitted(sound.samples, round(step.seconds * sound.rate), both=step.at == "both"), sound.rate)


def _fitted(samples: Signal, want: int, *, both: bool = False) -> Signal:
    """Pad with zeros or trim to `want` samples; `both`: the middle stays, an odd sample goes behind."""
    _check_size(want, "seconds")
    surplus = len(samples) - want
    if surplus >= 0:
        start = surplus // 2 if both else 0
        return samples[start : start + want]
    front = -surplus // 2 if both else 0
    return np.pad(samples, (front, -surplus - front))


def frame(sound: Sound, step: AudioFrame) -> Frames:
    length = _in_samples(step.length, step.length_ms, sound.rate) or 0
    hop = _in_samples(step.hop, step.hop_ms, sound.rate) or 0
    samples = sound.samples if step.seconds is None else _fitted(sound.samples, round(step.seconds * sound.rate))
    count = _check_frames(len(samples), length, hop, "audio.frame")
    _check_size(count * length, "audio.frame")
    shape = window(step.window, length, symmetric=step.symmetric).astype(np.float32)
    return Frames(np.asarray(frames(samples, length, hop) * shape, np.float32), sound.rate)


def spectrogram(value: Sound | Frames, step: AudioSpectrogram) -> Features:
    """Shape (frames, n_fft // 2 + 1)."""
    return _transformed(value, step, filters=None)


def log_mel(value: Sound | Frames, step: AudioLogMel) -> Features:
    """Shape (frames, n_mels)."""
    mel = _transformed(value, step, filters=_filters(step, value.rate)).astype(np.float64)
    if step.log != "none":
        values = np.maximum(mel, step.floor) + step.offset
        mel = 10.0 * np.log10(values) if step.log == "db" else _LOGS[step.log](values)
    if step.range is not None and mel.size:
        mel = np.maximum(mel, mel.max() - step.range)
    return mel.astype(np.float32)


_LOGS = {"ln": np.log, "log10": np.log10, "log2": np.log2}


def mfcc(values: Features, step: AudioMfcc) -> Features:
    """From log-mel values of shape (..., n_mels): shape (..., n_mfcc)."""
    mels = values.shape[-1] if values.ndim else 0
    if step.n_mfcc > mels:
        raise DataError(f"audio.mfcc: n_mfcc is {step.n_mfcc}, but there are {mels} mel values a frame")
    weights = dct_matrix(mels, step.n_mfcc) * lifter(step.n_mfcc, step.lifter)
    return np.asarray(values.astype(np.float64) @ weights, np.float32)


def _transformed(value: Sound | Frames, step: AudioSpectrogram | AudioLogMel, *, filters: F64 | None) -> Features:
    """|FFT|^power of each frame, through the filters where there are any."""
    bins = step.n_fft // 2 + 1
    width = bins if filters is None else filters.shape[1]
    parts: list[Features] = []
    for block, count in _blocks(value, step):
        if not parts:
            _check_size(count * width, "the spectrum")
        spectrum = np.abs(np.fft.rfft(block, step.n_fft, axis=1)) ** step.power
        parts.append((spectrum if filters is None else spectrum @ filters).astype(np.float32))
    return np.concatenate(parts)


def _blocks(value: Sound | Frames, step: AudioSpectrogram | AudioLogMel) -> Iterator[tuple[F64, int]]:
    """Windowed frames in float64, some at a time, each with the number of all frames."""
    if isinstance(value, Frames):
        pieces = _given_frames(value, step)
        shape: F64 | None = None
    else:
        pieces, shape = _cut(value, step)
    rows = max(1, _BLOCK_VALUES // step.n_fft)
    for start in range(0, len(pieces), rows):
        block = pieces[start : start + rows].astype(np.float64)
        yield (block if shape is None else block * shape), len(pieces)


def _given_frames(value: Frames, step: AudioSpectrogram | AudioLogMel) -> Features:
    given = {"hop": step.hop, "hop_ms": step.hop_ms, "length": step.length, "length_ms": step.length_ms}
    extra = [name for name, setting in given.items() if setting is not None]
    if extra or step.pad != "none":
        raise DataError(f"{extra[0] if extra else 'pad'} has no meaning behind audio.frame, which has cut the frames")
    if value.values.shape[1] > step.n_fft:
        raise DataError(f"frames of {value.values.shape[1]} samples do not fit in n_fft = {step.n_fft}")
    return value.values


def _cut(sound: Sound, step: AudioSpectrogram | AudioLogMel) -> tuple[npt.NDArray[np.floating], F64]:
    """Frames of a sound as a view, and their window.

    Without padding a frame is the window's length, and the transform sees zeros behind it. With padding it is n_fft
    samples, the window in their middle, so that frame i is centred on sample i x hop.
    """
    hop = _in_samples(step.hop, step.hop_ms, sound.rate)
    if hop is None:
        raise DataError("hop or hop_ms is missing")
    length = _in_samples(step.length, step.length_ms, sound.rate) or step.n_fft
    if length > step.n_fft:
        raise DataError(f"a window of {length} samples does not fit in n_fft = {step.n_fft}")
    shape = window(step.window, length, symmetric=step.symmetric)
    if step.pad == "none":
        _check_frames(len(sound.samples), length, hop, "the spectrum")
        return frames(sound.samples, length, hop), shape
    half, left = step.n_fft // 2, (step.n_fft - length) // 2
    if step.pad == "reflect" and len(sound.samples) <= half:
        raise DataError(f'pad = "reflect" needs more than {half} samples, the sound has {len(sound.samples)}')
    padded = np.pad(sound.samples, half, mode="reflect" if step.pad == "reflect" else "constant")
    _check_frames(len(padded), step.n_fft, hop, "the spectrum")
    return frames(padded, step.n_fft, hop), np.pad(shape, (left, step.n_fft - length - left))


def _filters(step: AudioLogMel, rate: int) -> F64:
    f_max = step.f_max if step.f_max is not None else rate / 2
    if f_max > rate / 2 or step.f_min >= f_max:
        raise DataError(f"audio.log_mel: {step.f_min:g} to {f_max:g} Hz do not lie within 0 to {rate / 2:g} Hz")
    _check_size((step.n_fft // 2 + 1) * step.n_mels, "the mel filters")
    return _cached_filters(step, rate, f_max)


@lru_cache(maxsize=8)
def _cached_filters(step: AudioLogMel, rate: int, f_max: float) -> F64:
    filters = mel_filters(
        rate=rate,
        n_fft=step.n_fft,
        n_mels=step.n_mels,
        f_min=step.f_min,
        f_max=f_max,
        scale=step.scale,
        slopes=step.slopes,
        norm=step.norm,
    )
    filters.flags.writeable = False
    return filters


def _in_samples(samples: int | None, milliseconds: float | None, rate: int) -> int | None:
    return samples if milliseconds is None else max(1, round(milliseconds * rate / 1000))


def _check_frames(samples: int, length: int, hop: int, what: str) -> int:
    count = frame_count(samples, length, hop)
    if not count:
        raise DataError(
            f"{what}: a frame has {length} samples, the sound {samples}: pad it with audio.fit, or leave it out"
        )
    return count


def _check_size(values: int, what: str) -> None:
    if values > MAX_VALUES:
        raise DataError(f"{what}: {values} numbers from one sound, at most {MAX_VALUES} are accepted")
