"""The audio steps, against formulas written out here one number at a time."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_edge.errors import DataError
from lepton_edge.preprocess import audio
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.spec import (
    AudioFit,
    AudioFrame,
    AudioLogMel,
    AudioMfcc,
    AudioPreemphasis,
    AudioResample,
    AudioScale,
    AudioSpectrogram,
    Cast,
    Layout,
    Normalize,
    Step,
)
from lepton_edge.preprocess.spectral import dct_matrix, mel_filters, to_hertz, to_mel, window
from lepton_edge.preprocess.wav import Sound

RATE = 8000


def noise(samples: int, seed: int = 0) -> Sound:
    return Sound(np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32), RATE)


def run(sound: Sound, *steps: Step) -> np.ndarray:
    return Pipeline(steps, inputs=["x"]).run(sound)["x"]


def plain_power(samples: Sequence[float], shape: Sequence[float], start: int, n_fft: int, power: float) -> list[float]:
    """|DFT|^power of one windowed frame, by its definition."""
    frame = [float(samples[start + i]) * shape[i] for i in range(len(shape))]
    found = []
    for k in range(n_fft // 2 + 1):
        real = sum(x * math.cos(2 * math.pi * k * i / n_fft) for i, x in enumerate(frame))
        imaginary = sum(x * math.sin(2 * math.pi * k * i / n_fft) for i, x in enumerate(frame))
        found.append(math.hypot(real, imaginary) ** power)
    return found


def plain_hann(length: int, period: int) -> list[float]:
    return [0.5 - 0.5 * math.cos(2 * math.pi * i / period) for i in range(length)]


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_spectrogram_is_the_windowed_transform(power: float) -> None:
    sound = noise(100)
    got = run(sound, AudioSpectrogram(n_fft=32, length=24, hop=10, power=power))
    shape = plain_hann(24, 24)
    want = [plain_power(sound.samples, shape, start, 32, power) for start in range(0, 100 - 24 + 1, 10)]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pad", ["reflect", "zero"])
def test_padded_frames_are_centred_with_the_window_in_the_middle_of_n_fft(pad: str) -> None:
    sound = noise(64)
    got = run(sound, AudioSpectrogram(n_fft=16, length=12, hop=8, pad=pad))
    around = list(sound.samples[8:0:-1]) if pad == "reflect" else [0.0] * 8
    behind = list(sound.samples[-2:-10:-1]) if pad == "reflect" else [0.0] * 8
    samples = [*around, *sound.samples, *behind]
    shape = [0.0, 0.0, *plain_hann(12, 12), 0.0, 0.0]
    want = [plain_power(samples, shape, start, 16, 2.0) for start in range(0, 64 + 1, 8)]
    assert got.shape == (9, 9)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


WINDOWS: dict[str, tuple[str, bool, Any]] = {
    "periodic hann": ("hann", False, lambda i, n: 0.5 - 0.5 * math.cos(2 * math.pi * i / n)),
    "symmetric hann": ("hann", True, lambda i, n: 0.5 - 0.5 * math.cos(2 * math.pi * i / (n - 1))),
    "hamming": ("hamming", False, lambda i, n: 0.54 - 0.46 * math.cos(2 * math.pi * i / n)),
    "symmetric blackman": (
        "blackman",
        True,
        lambda i, n: 0.42 - 0.5 * math.cos(2 * math.pi * i / (n - 1)) + 0.08 * math.cos(4 * math.pi * i / (n - 1)),
    ),
    "povey": ("povey", False, lambda i, n: (0.5 - 0.5 * math.cos(2 * math.pi * i / (n - 1))) ** 0.85),
    "rectangular": ("rectangular", False, lambda i, n: 1.0),
}


@pytest.mark.parametrize(("kind", "symmetric", "formula"), WINDOWS.values(), ids=WINDOWS)
def test_windows(kind: Any, symmetric: bool, formula: Any) -> None:
    np.testing.assert_allclose(window(kind, 9, symmetric=symmetric), [formula(i, 9) for i in range(9)], atol=1e-12)


def test_mel_scales_have_their_fixed_points() -> None:
    assert to_mel(1000.0, "htk") == pytest.approx(999.9855, abs=1e-3)  # the scale is made for 1000 at 1000 Hz
    assert to_mel(700.0, "htk") == pytest.approx(2595 * math.log10(2))
    assert to_mel(200.0, "slaney") == pytest.approx(3.0)
    assert to_mel(1000.0, "slaney") == pytest.approx(15.0)
    assert to_mel(6400.0, "slaney") == pytest.approx(42.0)


@given(st.floats(0, 20_000), st.sampled_from(["htk", "slaney"]))
def test_mel_and_hertz_are_inverse(hertz: float, scale: Any) -> None:
    assert float(to_hertz(to_mel(hertz, scale), scale)) == pytest.approx(hertz, rel=1e-9, abs=1e-6)


def plain_triangles(n_mels: int, scale: str, slopes: str, norm: str) -> list[list[float]]:
    """Filters for RATE, n_fft 64, 100 to 3800 Hz: one value at a time."""

    def mel(hertz: float) -> float:
        if scale == "htk":
            return 2595 * math.log10(1 + hertz / 700)
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    def hertz(value: float) -> float:
        if scale == "htk":
            return 700 * (10 ** (value / 2595) - 1)
        return value * 200 / 3 if value < 15 else 1000 * 6.4 ** ((value - 15) / 27)

    corners = [mel(100) + i * (mel(3800) - mel(100)) / (n_mels + 1) for i in range(n_mels + 2)]
    rows = []
    for k in range(33):
        at = k * RATE / 64
        row = []
        for left, centre, right in zip(corners, corners[1:], corners[2:], strict=False):
            a, b, c, x = (left, centre, right, mel(at)) if slopes == "mel" else (*map(hertz, (left, centre, right)), at)
            value = max(0.0, min((x - a) / (b - a), (c - x) / (c - b)))
            row.append(value * 2 / (hertz(right) - hertz(left)) if norm == "slaney" else value)
        rows.append(row)
    return rows


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("slopes", ["hertz", "mel"])
@pytest.mark.parametrize("norm", ["none", "slaney"])
def test_mel_filters(scale: Any, slopes: Any, norm: Any) -> None:
    got = mel_filters(rate=RATE, n_fft=64, n_mels=7, f_min=100, f_max=3800, scale=scale, slopes=slopes, norm=norm)
    np.testing.assert_allclose(got, plain_triangles(7, scale, slopes, norm), atol=1e-12)


LOGS: dict[str, tuple[dict[str, Any], Any]] = {
    "ln with an offset": ({"log": "ln", "floor": 0.0, "offset": 1e-6}, lambda x: math.log(x + 1e-6)),
    "log10 with a floor": ({"log": "log10", "floor": 0.5}, lambda x: math.log10(max(x, 0.5))),
    "db": ({"log": "db"}, lambda x: 10 * math.log10(max(x, 1e-10))),
    "log2": ({"log": "log2"}, lambda x: math.log2(max(x, 1e-10))),
    "none": ({"log": "none"}, lambda x: x),
}


@pytest.mark.parametrize(("setting", "formula"), LOGS.values(), ids=LOGS)
def test_log_mel_is_the_logarithm_of_the_filtered_spectrum(setting: dict[str, Any], formula: Any) -> None:
    sound = noise(200)
    got = run(sound, AudioLogMel(n_fft=64, hop_ms=5, n_mels=7, f_min=100, f_max=3800, slopes="mel", **setting))
    spectrum = run(sound, AudioSpectrogram(n_fft=64, hop=40)).astype(np.float64)
    mel = spectrum @ np.array(plain_triangles(7, "htk", "mel", "none"))
    np.testing.assert_allclose(got, np.vectorize(formula)(mel), rtol=2e-5, atol=2e-5)


def test_a_range_lifts_what_is_far_below_the_loudest() -> None:
    silence = Sound(np.concatenate([noise(256).samples, np.zeros(256, np.float32)]), RATE)
    step = AudioLogMel(n_fft=64, hop=64, n_mels=5, log="db", range=30.0)
    got = run(silence, step)
    assert got.max() - got.min() == pytest.approx(30.0, abs=1e-4)


def test_mfcc_is_the_orthonormal_cosine_transform() -> None:
    fft = pytest.importorskip("scipy.fft")
    values = np.random.default_rng(1).standard_normal((6, 20)).astype(np.float32)
    want = fft.dct(values.astype(np.float64), type=2, norm="ortho", axis=1)[:, :13]
    np.testing.assert_allclose(audio.mfcc(values, AudioMfcc(n_mfcc=13)), want, atol=1e-5)
    square = dct_matrix(20, 20)
    np.testing.assert_allclose(square.T @ square, np.eye(20), atol=1e-12)


def test_mfcc_of_a_bare_sound_is_out_of_order() -> None:
    with pytest.raises(DataError, match=r"step 1 \(audio\.mfcc\) works on array, but gets sound"):
        Pipeline([AudioMfcc(n_mfcc=13)], inputs=["x"])


def test_the_lifter_is_htks() -> None:
    values = np.random.default_rng(1).standard_normal((3, 12)).astype(np.float32)
    plain, lifted = (audio.mfcc(values, AudioMfcc(n_mfcc=8, lifter=lifter)) for lifter in (0.0, 22.0))
    weights = [1 + 11 * math.sin(math.pi * n / 22) for n in range(8)]
    np.testing.assert_allclose(lifted, plain * np.array(weights), rtol=1e-5)


def test_frames_and_their_transform_equal_the_transform_of_the_sound() -> None:
    sound = noise(400)
    framed = run(sound, AudioFrame(length=64, hop_ms=4), AudioLogMel(n_fft=64, n_mels=8))
    direct = run(sound, AudioLogMel(n_fft=64, hop=32, n_mels=8))
    np.testing.assert_allclose(framed, direct, atol=1e-4)


def test_frames_are_padded_or_trimmed_to_a_length() -> None:
    step = AudioFrame(length=4, hop=2, seconds=0.001, window="rectangular")
    ramp = np.arange(1, 21, dtype=np.float32)
    want = [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 8]]
    np.testing.assert_array_equal(run(Sound(ramp, RATE), step), want)
    short = [[1, 2, 3, 4], [3, 4, 5, 0], [5, 0, 0, 0]]
    np.testing.assert_array_equal(run(Sound(ramp[:5], RATE), step), short)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["end", "both"]))
def test_fit_keeps_what_fits(samples: int, want: int, at: Any) -> None:
    sound = noise(samples)
    got = run(sound, AudioFit(seconds=want / RATE, at=at))
    assert got.shape == (want,)
    kept = min(samples, want)
    front = (want - samples) // 2 if at == "both" and want > samples else 0
    start = (samples - want) // 2 if at == "both" and samples > want else 0
    np.testing.assert_array_equal(got[front : front + kept], sound.samples[start : start + kept])
    assert not got[:front].any()
    assert not got[front + kept :].any()


def test_scale_and_preemphasis() -> None:
    sound = Sound(np.array([0.5, 0.25, -1.0], np.float32), RATE)
    np.testing.assert_array_equal(run(sound, AudioScale(factor=32768)), [16384, 8192, -32768])
    want = [0.5 - 0.97 * 0.5, 0.25 - 0.97 * 0.5, -1 - 0.97 * 0.25]
    np.testing.assert_allclose(run(sound, AudioPreemphasis(coefficient=0.97)), want, rtol=1e-6)


def test_resampling_keeps_a_tone_and_its_length() -> None:
    pytest.importorskip("samplerate")
    time = np.arange(16_000) / 16_000
    tone = Sound(np.sin(2 * np.pi * 440 * time).astype(np.float32), 16_000)
    got = run(tone, AudioResample(rate=RATE))
    want = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert got.shape == (RATE,)
    np.testing.assert_allclose(got[200:-200], want[200:-200], atol=1e-3)
    np.testing.assert_array_equal(got, run(tone, AudioResample(rate=RATE)))


@pytest.mark.parametrize("quality", ["QQ", "LQ", "MQ", "HQ", "VHQ"])
@pytest.mark.parametrize(("before", "after"), [(44_100, 16_000), (16_000, 44_100), (22_050, 8_000), (100, 25_600)])
def test_resampled_length_is_the_ratio_rounded(quality: Any, before: int, after: int) -> None:
    pytest.importorskip("samplerate")
    for count in (0, 1, 2, 3, 7, 100, 441):
        got = run(Sound(np.ones(count, np.float32), before), AudioResample(rate=after, quality=quality))
        assert got.shape == (round(count * after / before),)
        assert got.dtype == np.float32


def test_rates_too_far_apart_are_refused() -> None:
    pytest.importorskip("samplerate")
    with pytest.raises(DataError, match="1 : 256"):
        run(Sound(np.zeros(10_000, np.float32), 100), AudioResample(rate=25_700))


def test_a_sound_of_the_right_rate_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "samplerate", None)
    sound = noise(50)
    np.testing.assert_array_equal(run(sound, AudioResample(rate=RATE)), sound.samples)
    with pytest.raises(DataError, match=r"samplerate, which is not installed: pip install 'lepton-edge\[audio\]'"):
        run(sound, AudioResample(rate=16_000))


def test_layouts_of_features_add_or_move_the_channel_axis() -> None:
    step = AudioLogMel(n_fft=64, hop=32, n_mels=8)
    features = run(noise(160), step)
    np.testing.assert_array_equal(run(noise(160), step, Layout(to="NHWC"))[..., 0], features)
    np.testing.assert_array_equal(run(noise(160), step, Layout(to="NCHW"))[0], features)
    np.testing.assert_array_equal(run(noise(160), step, Layout(to="NCW")), features.T)
    np.testing.assert_array_equal(run(noise(160), step, Layout(to="NWC")), features)
    normal = run(noise(160), step, Normalize(mean=[0.0] * 8, std=[2.0] * 8), Cast(to="float16"))
    np.testing.assert_array_equal(normal, (features / 2).astype(np.float16))


def test_long_sounds_are_transformed_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    step = AudioLogMel(n_fft=64, hop=16, n_mels=8)
    whole = run(noise(2000), step)
    monkeypatch.setattr(audio, "_BLOCK_VALUES", 64 * 3)
    np.testing.assert_array_equal(run(noise(2000), step), whole)


REFUSED: dict[str, tuple[tuple[Step, ...], str]] = {
    "too short": ((AudioSpectrogram(n_fft=512, hop=10),), "a frame has 512 samples, the sound 100: pad it"),
    "no hop": ((AudioSpectrogram(n_fft=32),), "hop or hop_ms is missing"),
    "a hop after frames": ((AudioFrame(length=8, hop=4), AudioSpectrogram(n_fft=8, hop=4)), "no meaning behind"),
    "frames longer than n_fft": ((AudioFrame(length=16, hop=4), AudioSpectrogram(n_fft=8)), "do not fit in n_fft = 8"),
    "a window longer than n_fft": ((AudioSpectrogram(n_fft=8, length=16, hop=4),), "does not fit in n_fft = 8"),
    "above half the rate": ((AudioLogMel(n_fft=32, hop=8, n_mels=4, f_max=4001.0),), "within 0 to 4000 Hz"),
    "more coefficients than mels": ((AudioLogMel(n_fft=32, hop=8, n_mels=4), AudioMfcc(n_mfcc=5)), "4 mel values"),
    "reflecting more than there is": ((AudioSpectrogram(n_fft=256, hop=8, pad="reflect"),), "more than 128 samples"),
    "an hour of zeros": ((AudioFit(seconds=3600.0), AudioFrame(length=4000, hop=1)), "at most 67108864"),
    "giant filters": ((AudioFit(seconds=200.0), AudioLogMel(n_fft=1_000_000, hop=8, n_mels=4096)), "at most 67108864"),
}


@pytest.mark.parametrize(("steps", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_named(steps: tuple[Step, ...], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        run(noise(100), *steps)
    assert "step " in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 64), st.integers(1, 40))
def test_any_setting_gives_finite_features_or_is_refused(samples: int, n_fft: int, length: int, hop: int) -> None:
    step = AudioLogMel(n_fft=n_fft, length=length, hop=hop, n_mels=5)
    try:
        got = run(noise(samples), step)
    except DataError:
        assert length > n_fft or samples < length
        return
    assert got.shape == (1 + (samples - length) // hop, 5)
    assert np.isfinite(got).all()
