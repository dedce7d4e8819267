"""What stands for one network, and the samples that are fed to it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


class Feed(NamedTuple):
    """One input.

    Attributes:
        shape: of one sample.
        below: token ids lie below it; 0 for floats.
    """

    shape: tuple[int, ...]
    below: int = 0

    def samples(self, rng: np.random.Generator, count: int) -> Array:
        """Smooth noise: neighbours are alike, as in pictures and sounds, or random ids."""
        if self.below:
            return rng.integers(0, self.below, (count, *self.shape))
        noise = rng.standard_normal((count, *self.shape))
        for axis in range(1, noise.ndim):
            noise = noise + np.roll(noise, 1, axis)
        return (noise / 2 ** ((noise.ndim - 1) / 2)).astype(np.float32)


class Case(NamedTuple):
    """One network.

    Attributes:
        name: for tables.
        build: makes it; the caller has set the seed.
        feeds: its inputs in their order.
        open_shapes: what `load_model` is given as shapes.
    """

    name: str
    build: Callable[[], object]
    feeds: Sequence[Feed]
    open_shapes: dict[str, list[int | str]] | None = None

    def samples(self, count: int, seed: int = 0) -> list[Array]:
        """One array an input, the first axis the samples."""
        rng = np.random.default_rng(seed)
        return [feed.samples(rng, count) for feed in self.feeds]
