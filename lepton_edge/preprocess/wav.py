"""WAV files: integer PCM of 8, 16, 24 and 32 bits and IEEE float of 32 and 64, any channels, mixed to one.

The standard library's `wave` reads neither float nor, before Python 3.12, the extensible form in which 24-bit files
mostly come; one reader for all of them is smaller than two.

Source: Microsoft, Multimedia Programming Interface and Data Specifications 1.0 (1991), RIFF WAVE; Multiple channel
audio data and WAVE files (2001), WAVEFORMATEXTENSIBLE.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_edge.errors import DataError

MAX_BYTES = 512 * 1024 * 1024
MAX_CHANNELS = 64
MAX_RATE = 768_000
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF
"""What a program writes that could not go back and fill in the length: the data reach to the end of the file."""

Signal = npt.NDArray[np.float32]


class Sound(NamedTuple):
    """One channel.

    Attributes:
        samples: shape (n,); within -1..1 as read.
        rate: in hertz.
    """

    samples: Signal
    rate: int


class _Format(NamedTuple):
    code: int
    channels: int
    rate: int
    bits: int

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8


def load_sound(source: Path | bytes, *, name: str = "sound") -> Sound:
    """Read a WAV file; several channels become their mean.

    Raises:
        DataError: unreadable, no WAV file, truncated, of a kind that is not read, empty, too long, or with NaN or Inf.
    """
    where = str(source) if isinstance(source, Path) else name
    data = _read(source, where)
    form, body = _chunks(data, where)
    if not body or len(body) % form.frame_bytes:
        raise DataError(f"{where}: {len(body)} bytes of sound are no whole, positive number of samples")
    channels = _decode(body, form).reshape(-1, form.channels)
    if not np.isfinite(channels).all():
        raise DataError(f"{where}: holds NaN or Inf")
    mono = channels[:, 0] if form.channels == 1 else channels.mean(axis=1, dtype=np.float64)
    return Sound(np.ascontiguousarray(mono, np.float32), form.rate)


def _read(source: Path | bytes, where: str) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with source.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as cause:
            raise DataError(f"{where}: {cause.strerror or cause}") from cause
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: more than {MAX_BYTES} bytes; cut it into shorter sounds")
    return data


def _chunks(data: bytes, where: str) -> tuple[_Format, memoryview]:
    """The format and the samples' bytes. Chunks start at even places; those of other kinds are passed over."""
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise DataError(f"{where}: no WAV file (RIFF WAVE); other kinds of sound must be converted to WAV first")
    form, place, view = None, 12, memoryview(data)
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if kind == b"data" and size == _UNKNOWN_SIZE:
            size = len(data) - place
        if size > len(data) - place:
            raise DataError(f"{where}: truncated: a chunk of {size} bytes begins {len(data) - place} before the end")
        if kind == b"fmt ":
            form = _format(view[place : place + size], where)
        if kind == b"data":
            if form is None:
                raise DataError(f"{where}: its samples come before their format")
            return form, view[place : place + size]
        place += size + size % 2
    raise DataError(f"{where}: truncated: no samples in it")


def _format(chunk: memoryview, where: str) -> _Format:
    if len(chunk) < 16:
        raise DataError(f"{where}: truncated: its format chunk has {len(chunk)} bytes")
    code, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 40:
        (code,) = struct.unpack_from("<H", chunk, 24)
    form = _Format(code, channels, rate, bits)
    if (code, bits) not in _DECODERS:
        raise DataError(
            f"{where}: WAV format {code} with {bits} bits is not read; save it as PCM of 8, 16, 24 or 32 bits, or float"
        )
    if not 1 <= channels <= MAX_CHANNELS or not 1 <= rate <= MAX_RATE or block != form.frame_bytes:
        raise DataError(f"{where}: {channels} channels at {rate} Hz with {block} bytes a step make no sense")
    return form


_DECODERS = {
    (_PCM, 8): "u1",
    (_PCM, 16): "<i2",
    (_PCM, 24): "<i3",
    (_PCM, 32): "<i4",
    (_FLOAT, 32): "<f4",
    (_FLOAT, 64): "<f8",
}


def _decode(body: memoryview, form: _Format) -> Signal:
    """Samples with whole numbers divided by their largest magnitude, a power of two; 8 bits are stored from 0 on."""
    kind = _DECODERS[form.code, form.bits]
    if kind == "<i3":
        # The three bytes become the upper ones of four: the sign comes for free.
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        kind, raw = "<i4", wide.reshape(-1).view("<i4")
    else:
        raw = np.frombuffer(body, kind)
    if form.code == _FLOAT:
        return raw.astype(np.float32)
    if kind == "u1":
        return (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
    return (raw / float(-np.iinfo(raw.dtype).min)).astype(np.float32)
