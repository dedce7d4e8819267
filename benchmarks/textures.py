"""Seeded images with labels for nets that were never trained: coloured textures with a natural image's spectrum.

A class is a random spectrum (slope of the 1/f fall, direction, stretch) and a random mix of colours; an image is one
draw of noise under its class's spectrum, with its own contrast, brightness and a fresh tint. Amplitudes of natural
images fall as about 1/f (Field 1987), so activations are spread over channels and space as photographs spread them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CLASSES = 20
SIDE = 224
SEED = 20_240

F32 = npt.NDArray[np.float32]


class Textures(NamedTuple):
    """`x` float32 (n, 3, side, side), about mean 0 and deviation 1; `y` int64 (n,), the class."""

    x: F32
    y: npt.NDArray[np.int64]


def textures(count: int, *, seed: int, classes: int = CLASSES, side: int = SIDE) -> Textures:
    """Draw images, the classes in turn; the classes are the same for every seed."""
    rng = np.random.default_rng([SEED, seed])
    labels = rng.permutation(np.arange(count) % classes).astype(np.int64)
    images = np.stack([_image(int(label), rng, side) for label in labels])
    return Textures(images, labels)


def _image(label: int, rng: np.random.Generator, side: int) -> F32:
    kind = np.random.default_rng([SEED, 7, label])
    spectrum = _spectrum(kind, side)
    mix = kind.normal(0, 1, (3, 3)) * np.array([1.2, 0.6, 0.4])[:, None]
    tint = kind.normal(0, 0.7, 3) + rng.normal(0, 0.1, 3)
    noise = np.fft.rfft2(rng.normal(0, 1, (3, side, side))) * spectrum
    planes = np.fft.irfft2(noise, s=(side, side))
    planes /= planes.std() + 1e-9
    pixels = np.einsum("ij,ihw->jhw", mix, planes) * rng.uniform(0.8, 1.1) + tint[:, None, None]
    return np.clip(pixels, -2.4, 2.6).astype(np.float32)


def _spectrum(kind: np.random.Generator, side: int) -> npt.NDArray[np.float64]:
    """Amplitude by frequency: 1/f to a power near 1, stretched along one direction, with a band that stands out."""
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    angle, stretch = kind.uniform(0, np.pi), kind.uniform(1, 4)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) * stretch
    radius = np.sqrt(along**2 + across**2)
    band = np.exp(-((np.log(radius + 1e-4) - np.log(kind.uniform(0.02, 0.3))) ** 2) / 0.1)
    fall = (radius + 6 / side) ** -kind.uniform(0.8, 1.4)
    return np.asarray(fall * (1 + kind.uniform(2, 12) * band))
