"""WAV files, against the standard library's reader and written out by hand."""

import io
import struct
import wave
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_edge.errors import DataError
from lepton_edge.preprocess import wav
from lepton_edge.preprocess.wav import load_sound


def pcm(values: np.ndarray, *, width: int, rate: int = 8000) -> bytes:
    """Whole numbers of shape (n, channels), as the standard library writes them."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        offset = 128 if width == 1 else 0
        data = b"".join(int(v + offset).to_bytes(width, "little", signed=width > 1) for v in values.ravel())
        file.writeframes(data)
    return out.getvalue()


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(code: int, channels: int, rate: int, bits: int, *, block: int | None = None) -> bytes:
    block = channels * bits // 8 if block is None else block
    return struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits)


@given(
    st.sampled_from([1, 2, 3, 4]),
    st.integers(1, 3),
    st.lists(st.floats(-1, 0.999), min_size=1, max_size=20),
)
def test_whole_numbers_of_every_width_and_any_channels(width: int, channels: int, levels: list[float]) -> None:
    scale = 2 ** (8 * width - 1)
    values = np.floor(np.array(levels)[:, np.newaxis] * scale * np.ones(channels)).astype(np.int64)
    values[:, 0] = np.clip(values[:, 0] // 2, -scale, scale - 1)
    got = load_sound(pcm(values, width=width))
    assert got.rate == 8000
    assert got.samples.dtype == np.float32
    np.testing.assert_allclose(got.samples, values.mean(axis=1) / scale, atol=1e-7)


@pytest.mark.parametrize(("code", "bits", "kind"), [(3, 32, "<f4"), (3, 64, "<f8")])
def test_float_files(code: int, bits: int, kind: str) -> None:
    values = np.array([0.0, 0.5, -1.5], kind)
    got = load_sound(riff((b"fmt ", fmt(code, 1, 16_000, bits)), (b"fact", b"\0\0\0\0"), (b"data", values.tobytes())))
    assert got.rate == 16_000
    np.testing.assert_array_equal(got.samples, [0.0, 0.5, -1.5])


def test_extensible_files_and_chunks_of_odd_size_are_read() -> None:
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    extended = fmt(0xFFFE, 1, 48_000, 24) + struct.pack("<HHI", 22, 24, 4) + guid
    got = load_sound(riff((b"LIST", b"odd"), (b"fmt ", extended), (b"data", b"\x00\x00\x40\x00\x00\xc0")))
    np.testing.assert_array_equal(got.samples, [0.5, -0.5])


def test_a_length_that_was_never_filled_in_reaches_to_the_end() -> None:
    data = bytearray(riff((b"fmt ", fmt(1, 1, 8000, 16)), (b"data", struct.pack("<3h", 1, 2, 3))))
    data[40:44] = b"\xff\xff\xff\xff"
    np.testing.assert_array_equal(load_sound(bytes(data)).samples * 32768, [1, 2, 3])


GOOD = riff((b"fmt ", fmt(1, 1, 8000, 16)), (b"data", struct.pack("<3h", 1, 2, 3)))
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no WAV file"),
    "an mp3": (b"ID3\x03" + bytes(100), "no WAV file"),
    "truncated": (GOOD[:-2], "truncated: a chunk of 6 bytes begins 4 before the end"),
    "no samples": (GOOD[:36], "truncated: no samples"),
    "empty": (riff((b"fmt ", fmt(1, 1, 8000, 16)), (b"data", b"")), "0 bytes of sound"),
    "half a sample": (riff((b"fmt ", fmt(1, 1, 8000, 16)), (b"data", b"abc")), "3 bytes of sound"),
    "samples first": (riff((b"data", b"ab"), (b"fmt ", fmt(1, 1, 8000, 16))), "before their format"),
    "a short format": (riff((b"fmt ", b"short"), (b"data", b"ab")), "its format chunk has 5 bytes"),
    "compressed": (riff((b"fmt ", fmt(2, 1, 8000, 4)), (b"data", b"ab")), "WAV format 2 with 4 bits is not read"),
    "no channels": (riff((b"fmt ", fmt(1, 0, 8000, 16)), (b"data", b"ab")), "make no sense"),
    "many channels": (riff((b"fmt ", fmt(1, 65_535, 8000, 16, block=0)), (b"data", b"ab")), "make no sense"),
    "no rate": (riff((b"fmt ", fmt(1, 1, 0, 16)), (b"data", b"ab")), "make no sense"),
    "NaN": (riff((b"fmt ", fmt(3, 1, 8000, 32)), (b"data", struct.pack("<f", float("nan")))), "holds NaN"),
}


@pytest.mark.parametrize(("data", "says"), BAD.values(), ids=BAD)
def test_what_is_no_sound_is_refused_by_name(data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        load_sound(tmp_path / "a.wav")
    assert "a.wav" in str(caught.value)


def test_a_giant_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav, "MAX_BYTES", 20)
    with pytest.raises(DataError, match="more than 20 bytes"):
        load_sound(GOOD)
    with pytest.raises(DataError, match="No such file"):
        load_sound(tmp_path / "absent.wav")


@given(st.binary(max_size=80), st.integers(0, 50))
def test_any_bytes_give_a_sound_or_a_data_error(noise: bytes, place: int) -> None:
    for data in (noise, GOOD[:place] + noise + GOOD[place:], b"RIFF\0\0\0\0WAVE" + noise):
        with suppress(DataError):
            sound = load_sound(data)
            assert np.isfinite(sound.samples).all()
            assert len(sound.samples) > 0
