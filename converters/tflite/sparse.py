"""Sparse constants made dense.

Source of the form: schema.fbs (SparsityParameters, DimensionMetadata), after TACO (Kjolstad et al., "The Tensor Algebra
Compiler", 2017): axes are walked in a traversal order, each either dense, or compressed into segments and indices;
some axes may be split into blocks, whose inner parts are further axes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Axis(NamedTuple):
    """One level of the walk.

    Attributes:
        dense: its size where it is dense, else None.
        segments: where it is compressed: entry n of the level above owns the indices segments[n] to segments[n + 1].
        indices: along the axis.
    """

    dense: int | None
    segments: Ints
    indices: Ints


class Sparsity(NamedTuple):
    """How a constant is stored.

    Attributes:
        order: the tensor's axes (rank and above: inner parts of blocks) in the order of the walk.
        blocks: for each block axis the axis of the tensor that it divides.
        axes: of the walk, in its order.
    """

    order: Sequence[int]
    blocks: Sequence[int]
    axes: Sequence[Axis]


def places(sparsity: Sparsity, shape: Sequence[int]) -> Ints:
    """Where in the flat dense tensor each stored value belongs.

    Args:
        sparsity: as the file has it; nothing of it is believed.
        shape: of the dense tensor.

    Returns:
        Shape (values,).

    Raises:
        ValueError: it contradicts the shape or itself.
    """
    sizes = _sizes(sparsity, shape)
    count, found = 1, np.zeros((1, 0), np.int64)
    limit = math.prod(shape)
    for axis, size in zip(sparsity.axes, sizes, strict=True):
        values = count * size if axis.dense is not None else len(axis.indices)
        if values > limit:
            raise ValueError(f"{values} values in a tensor of {limit}")
        parents, indices = _level(axis, size, count)
        count = values
        found = np.concatenate([found[parents], indices[:, None]], axis=1)
    return _flat(found, sparsity, sizes, shape)


def _sizes(sparsity: Sparsity, shape: Sequence[int]) -> list[int]:
    """The size of each level."""
    rank, blocks = len(shape), sparsity.blocks
    if sorted(sparsity.order) != list(range(rank + len(blocks))) or len(sparsity.axes) != len(sparsity.order):
        raise ValueError("its axes are no order of the tensor's")
    if len(set(blocks)) != len(blocks) or any(not 0 <= axis < rank for axis in blocks):
        raise ValueError("its blocks divide no axes of the tensor")
    inner = [sparsity.axes[sparsity.order.index(rank + n)].dense for n in range(len(blocks))]
    sizes = [*shape, *(size or 0 for size in inner)]
    for axis, size in zip(blocks, inner, strict=True):
        if not size or shape[axis] % size:
            raise ValueError(f"blocks of {size} do not divide {shape[axis]}")
        sizes[axis] //= size
    return [sizes[axis] for axis in sparsity.order]


def _level(axis: Axis, size: int, count: int) -> tuple[Ints, Ints]:
    """For each entry of a level, the entry above it and its index along the axis."""
    if axis.dense is not None:
        if axis.dense != size:
            raise ValueError(f"a dense axis of {axis.dense}, not {size}")
        return np.repeat(np.arange(count), size), np.tile(np.arange(size), count)
    segments, indices = axis.segments, axis.indices
    lengths = np.diff(segments)
    whole = len(segments) == count + 1 and segments[0] == 0 and segments[-1] == len(indices)
    if not whole or np.any(lengths < 0) or np.any((indices < 0) | (indices >= size)):
        raise ValueError("segments and indices that do not fit")
    return np.repeat(np.arange(count), lengths), indices


def _flat(found: Ints, sparsity: Sparsity, sizes: Sequence[int], shape: Sequence[int]) -> Ints:
    columns = [found[:, sparsity.order.index(axis)] for axis in range(len(sparsity.order))]
    for number, axis in enumerate(sparsity.blocks):
        inner = len(shape) + number
        columns[axis] = columns[axis] * sizes[sparsity.order.index(inner)] + columns[inner]
    flat = np.zeros(len(found), np.int64)
    for size, column in zip(shape, columns, strict=False):
        flat = flat * size + column
    return flat
