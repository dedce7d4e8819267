"""Shapes of a canonical graph's tensors; the batch, and every other axis of unknown size, is None."""

import re
from collections.abc import Sequence

import onnx_ir as ir

Shape = tuple[int | None, ...]
Dim = int | ir.SymbolicDim

_MULTIPLE = re.compile(r"(\d+)\*([^*+/() -]+)")


def shape_of(value: ir.Value) -> Shape | None:
    """The sizes of a tensor's axes, None for a symbolic one; None altogether where the rank is unknown."""
    if value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The sizes where every one is known, else None."""
    shape = shape_of(value)
    if shape is None:
        return None
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else None


def rank_of(value: ir.Value) -> int | None:
    """The number of axes, where it is known."""
    return None if value.shape is None else len(value.shape)


def with_batch(value: ir.Value, batch: int = 1) -> tuple[int, ...] | None:
    """The sizes with the batch put in; None where another axis, or the rank, is unknown.

    The batch is a symbolic first axis, and any axis with the symbol that a graph input has there. An axis that is a
    multiple of it (`4*batch`, after heads were folded into it) is multiplied out.
    """
    if value.shape is None:
        return None
    symbols = batch_symbols(value.graph)
    sizes: list[int] = []
    for axis, size in enumerate(value.shape):
        if isinstance(size, int):
            sizes.append(size)
        elif axis == 0 or factors(size)[1] in symbols:
            sizes.append(factors(size)[0] * batch)
        else:
            return None
    return tuple(sizes)


def batch_symbols(graph: ir.Graph | None) -> set[str]:
    """The names of the symbolic first axes of a graph's inputs."""
    if graph is None:
        return set()
    first = [value.shape[0] for value in graph.inputs if value.shape]
    return {size.value for size in first if not isinstance(size, int) and size.value}


def factors(size: Dim) -> tuple[int, str | None]:
    """An axis as count x symbol: (7, None) for 7, (1, "batch") for batch, (4, "batch") for 4*batch, (1, "") unnamed."""
    if isinstance(size, int):
        return size, None
    name = size.value or ""
    found = _MULTIPLE.fullmatch(name)
    return (int(found[1]), found[2]) if found else (1, name)


def multiple(count: int, symbol: str | None) -> Dim:
    """The inverse of `factors`."""
    if symbol is None:
        return count
    if not symbol:
        return ir.SymbolicDim(None)
    return ir.SymbolicDim(symbol if count == 1 else f"{count}*{symbol}")


def same_dims(first: ir.Value, second: ir.Value) -> bool:
    """Whether two tensors have the same shape for sure: equal sizes and equal symbols."""
    return first.shape is not None and second.shape is not None and dims_equal(first.shape.dims, second.shape.dims)


def dims_equal(first: Sequence[Dim], second: Sequence[Dim]) -> bool:
    """Whether two rows of sizes are equal for sure; an axis without size and name equals none."""
    return len(first) == len(second) and all(
        one == other and factors(one)[1] != "" for one, other in zip(first, second, strict=True)
    )
