"""Random inputs that fit a signature: for golden.npz without data, and to hold an import against its source."""

import numpy as np

from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec

OPEN_SIZE = 8
"""Of an open axis, a sequence's length mostly: short enough for every table of positions, and more than one step."""
OPEN_SIDE = 64
"""Of an open axis of an input with four axes or more, a picture's side mostly: the usual five halvings leave two."""


def random_inputs(signature: ModelSignature, count: int, rng: np.random.Generator) -> Arrays:
    """`count` samples in one array per input, the first axis the samples; open axes of one name get one size."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        size = OPEN_SIDE if len(spec.shape) > 3 else OPEN_SIZE
        for axis in spec.shape[1:]:
            if isinstance(axis, str):
                sizes[axis] = min(size, sizes.get(axis, size))
    return {spec.name: _random(spec, [count, *_fixed(spec, sizes)], rng) for spec in signature.inputs}


def _fixed(spec: TensorSpec, sizes: dict[str, int]) -> list[int]:
    return [sizes[size] if isinstance(size, str) else size for size in spec.shape[1:]]


def _random(spec: TensorSpec, shape: list[int], rng: np.random.Generator) -> Array:
    if spec.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(spec.dtype)
    if spec.dtype in {"uint8", "int8"}:
        limits = np.iinfo(spec.dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=spec.dtype, endpoint=True)
    # Wider integers are mostly indices (tokens): 0 and 1 lie in every table.
    return rng.integers(0, 2, shape).astype(spec.dtype)
