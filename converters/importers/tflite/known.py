"""What is known of whole numbers that a file computes: most of a shape is, where only the batch is open.

Files of open sizes compute shapes: SHAPE, a few elements of it, arithmetic on them, PACK. An element that depends on an
open size is not a number here, and whatever is computed with it is none either.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt

from converters.tflite.model import Operator, Subgraph, Tensor

Known = npt.NDArray[np.float64]
"""Elements of a tensor; NaN for those that are not known. Float64 holds all whole numbers below 2^53."""
_Find = Callable[[int], Known]
_MOST = 64
"""Elements: more are no shape."""
_DEEP = 64
"""Operators on the way from a constant or a shape."""
_WHOLE = {"int32", "int64"}


def known_numbers(subgraph: Subgraph, index: int) -> list[int | None]:
    """The elements of a tensor of whole numbers, None for each that is not known before the file runs.

    Args:
        subgraph: where it is.
        index: of the tensor.
    """
    makers = {output: one for one in subgraph.operators for output in one.outputs}
    found: dict[int, Known] = {}

    def find(at: int, depth: int) -> Known:
        if at not in found:
            found[at] = _found(subgraph.tensors[at], makers.get(at), lambda one: find(one, depth + 1), depth, subgraph)
        return found[at]

    return [int(one) if np.isfinite(one) else None for one in find(index, 0).reshape(-1).tolist()]


def _found(tensor: Tensor, maker: Operator | None, find: _Find, depth: int, subgraph: Subgraph) -> Known:
    small = math.prod(tensor.shape) <= _MOST
    unknown = np.full(tensor.shape if small else (0,), np.nan)
    if tensor.dtype not in _WHOLE or not small:
        return unknown
    if tensor.data is not None:
        return (tensor.data if isinstance(tensor.data, np.ndarray) else tensor.data.numpy()).astype(np.float64)
    made = _made(maker, find, subgraph) if maker is not None and depth < _DEEP else unknown
    return made.reshape(unknown.shape) if made.size == unknown.size else unknown


def _made(maker: Operator, find: _Find, subgraph: Subgraph) -> Known:
    nothing = np.zeros(0)
    if maker.code == "SHAPE":
        source = subgraph.tensors[maker.inputs[0]]
        return np.array([np.nan if one == -1 else one for one in source.signature or source.shape], np.float64)
    rule = _RULES.get(maker.code)
    if rule is None or min(maker.inputs, default=-1) < 0:
        return nothing
    try:
        with np.errstate(all="ignore"):
            return rule(maker, [find(one) for one in maker.inputs])
    except (ValueError, IndexError, TypeError, OverflowError):  # no number where a place is asked for, or odd shapes
        return nothing


def _whole(values: Known) -> list[int]:
    """Raises ValueError where one is not known."""
    return [int(one) for one in values.reshape(-1).tolist()]


def _option(operator: Operator, name: str) -> int:
    value = operator.options.get(name, 0)
    return value if isinstance(value, int) else 0


def _gather(operator: Operator, given: Sequence[Known]) -> Known:
    places = np.array(_whole(given[1]), np.int64).reshape(given[1].shape)
    return np.take(given[0], places, axis=_option(operator, "axis"))


def _strided(operator: Operator, given: Sequence[Known]) -> Known:
    """Of a list, by one entry: all that files do to shapes."""
    values, (begin, end, step) = given[0], (_whole(one)[0] for one in given[1:4])
    if _option(operator, "ellipsis_mask") or _option(operator, "new_axis_mask") or values.ndim != 1:
        raise ValueError
    if _option(operator, "shrink_axis_mask") & 1:
        return np.asarray(values[begin])
    first = None if _option(operator, "begin_mask") & 1 else begin
    last = None if _option(operator, "end_mask") & 1 else end
    return values[first:last:step]


def _slice(_: Operator, given: Sequence[Known]) -> Known:
    (begin,), (size,) = _whole(given[1]), _whole(given[2])
    return given[0][begin:] if size < 0 else given[0][begin : begin + size]


def _concatenation(operator: Operator, given: Sequence[Known]) -> Known:
    return np.concatenate(given, axis=_option(operator, "axis"))


def _pack(operator: Operator, given: Sequence[Known]) -> Known:
    return np.stack(given, axis=_option(operator, "axis"))


def _same(_: Operator, given: Sequence[Known]) -> Known:
    return given[0]


def _binary(function: Callable[[Known, Known], Known]) -> Callable[[Operator, Sequence[Known]], Known]:
    return lambda _, given: np.asarray(function(given[0], given[1]))


def _product(_: Operator, given: Sequence[Known]) -> Known:
    return np.asarray(reduce(np.multiply, given[0].reshape(-1), np.float64(1)))


_RULES: Mapping[str, Callable[[Operator, Sequence[Known]], Known]] = {
    "ADD": _binary(np.add),
    "CAST": _same,
    "CONCATENATION": _concatenation,
    "EXPAND_DIMS": _same,
    "FLOOR_DIV": _binary(np.floor_divide),
    "FLOOR_MOD": _binary(np.mod),
    "GATHER": _gather,
    "MAXIMUM": _binary(np.maximum),
    "MINIMUM": _binary(np.minimum),
    "MUL": _binary(np.multiply),
    "PACK": _pack,
    "REDUCE_PROD": _product,
    "RESHAPE": _same,
    "SLICE": _slice,
    "SQUEEZE": _same,
    "STRIDED_SLICE": _strided,
    "SUB": _binary(np.subtract),
}
"""Operators of shapes. Elements keep their order where only axes of size 1 come and go."""
