"""Frames, spectra, mel filterbanks and cepstra as plain formulas over arrays; computed in float64.

Sources: S. Young et al., The HTK Book 3.4 (2006), sections 5.2 to 5.4 (mel scale, triangles, lifter); M. Slaney,
Auditory Toolbox, Interval Research TR 1998-010 (his mel scale and filters of equal area); the windows are textbook
ones, `povey` is Kaldi's.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from lepton_edge.preprocess.spec import Window

F64 = npt.NDArray[np.float64]
Scale = Literal["htk", "slaney"]
_BREAK_HZ, _BREAK_MEL, _HZ_A_MEL = 1000.0, 15.0, 200.0 / 3.0
_LOG_STEP = np.log(6.4) / 27.0
"""Slaney: 66.7 Hz a mel below 1000 Hz, 27 mel a factor of 6.4 above."""


def window(kind: Window, length: int, *, symmetric: bool) -> F64:
    """A window, shape (length,).

    Args:
        kind: which; "povey" is a symmetric Hann window to the power 0.85 whatever `symmetric` says.
        length: in samples.
        symmetric: whether the last value mirrors the first; else the window repeats after `length` samples.
    """
    if kind == "rectangular" or length == 1:
        return np.ones(length)
    period = length - 1 if symmetric or kind == "povey" else length
    turn = 2 * np.pi * np.arange(length) / period
    if kind == "hamming":
        return np.asarray(0.54 - 0.46 * np.cos(turn), np.float64)
    if kind == "blackman":
        return np.asarray(0.42 - 0.5 * np.cos(turn) + 0.08 * np.cos(2 * turn), np.float64)
    hann = 0.5 - 0.5 * np.cos(turn)
    return np.asarray(hann**0.85 if kind == "povey" else hann, np.float64)


def frame_count(samples: int, length: int, hop: int) -> int:
    """How many frames of `length` samples lie within the sound."""
    return 0 if samples < length else 1 + (samples - length) // hop


def frames(samples: npt.NDArray[np.floating], length: int, hop: int) -> npt.NDArray[np.floating]:
    """Overlapping frames as a view, shape (frames, length); samples behind the last whole frame are left out."""
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]


def to_mel(hertz: npt.ArrayLike, scale: Scale) -> F64:
    """Frequencies on the mel scale: HTK's 2595 log10(1 + f / 700), or Slaney's."""
    hertz = np.asarray(hertz, np.float64)
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hertz / 700.0), np.float64)
    above = _BREAK_MEL + np.log(np.maximum(hertz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hertz < _BREAK_HZ, hertz / _HZ_A_MEL, above)


def to_hertz(mel: npt.ArrayLike, scale: Scale) -> F64:
    """The inverse of `to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0), np.float64)
    return np.where(mel < _BREAK_MEL, mel * _HZ_A_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


def mel_filters(
    *,
    rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    scale: Scale,
    slopes: Literal["hertz", "mel"],
    norm: Literal["none", "slaney"],
) -> F64:
    """Triangles whose n_mels + 2 corners are equally spaced in mel, shape (n_fft // 2 + 1, n_mels).

    Filter m rises from corner m to 1 at corner m + 1 and falls to 0 at corner m + 2, in a straight line over hertz or
    over mel; `norm` "slaney" multiplies it by 2 / (width in hertz).
    """
    corners_mel = np.linspace(to_mel(f_min, scale), to_mel(f_max, scale), n_mels + 2)
    corners_hz = to_hertz(corners_mel, scale)
    bins_hz = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    corners, bins = (corners_hz, bins_hz) if slopes == "hertz" else (corners_mel, to_mel(bins_hz, scale))
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, np.newaxis] - left) / (centre - left)
    falling = (right - bins[:, np.newaxis]) / (right - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        filters = filters * (2.0 / (corners_hz[2:] - corners_hz[:-2]))
    return np.asarray(filters, np.float64)


def dct_matrix(size: int, count: int) -> F64:
    """The first `count` rows of the orthonormal DCT-II of `size` values, as columns: shape (size, count)."""
    places, orders = np.arange(size)[:, np.newaxis], np.arange(count)
    matrix = np.sqrt(2.0 / size) * np.cos(np.pi * orders * (places + 0.5) / size)
    matrix[:, 0] = np.sqrt(1.0 / size)
    return np.asarray(matrix, np.float64)


def lifter(count: int, strength: float) -> F64:
    """HTK's liftering weights of coefficients 0..count-1; all 1 where strength is 0 (HTK book, section 5.3)."""
    if strength == 0:
        return np.ones(count)
    return np.asarray(1.0 + strength / 2.0 * np.sin(np.pi * np.arange(count) / strength), np.float64)
