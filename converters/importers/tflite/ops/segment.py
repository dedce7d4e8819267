"""Operators that gather elements under numbers: segments, distinct elements, boxes that stay."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from converters.importers.tflite.op import ONNX_TYPES, Op, Rule


def segment_sum(op: Op) -> None:
    """Rows with one number are added up; numbers ascend, so that the last one says how many there are."""
    numbers = op.ints(1)
    count = op.add("Add", op.add("ReduceMax", numbers, op.ints_of([0]), keepdims=1), op.ints_of([1]))
    places = op.add("Unsqueeze", numbers, op.ints_of([1]))
    op.out(op.add("ScatterND", _filled(op, count, 1, 0), places, op.real(0), reduction="add"))


def _unsorted(reduction: str, op: Op) -> None:
    """Rows with a negative number are left out: they go to a row of their own, which is cut off."""
    rank, count = op.rank(1), op.add("Reshape", op.ints(2), op.ints_of([1]))
    x, numbers = op.real(0), op.add("Reshape", op.ints(1), op.ints_of([-1]))
    if rank != 1:
        tail = op.add("Slice", op.add("Shape", x), op.ints_of([rank]), op.ints_of([op.rank(0)]))
        x = op.add("Reshape", x, op.add("Concat", op.ints_of([-1]), tail, axis=0))
    kept = op.add("Where", op.add("Less", numbers, op.ints_of([0])), count, numbers)
    more = op.add("Add", count, op.ints_of([1]))
    made = op.add(
        "ScatterND", _filled(op, more, rank, _START[reduction](op)), op.add("Unsqueeze", kept, op.ints_of([1])), x,
        reduction=reduction,
    )  # fmt: skip
    op.out(op.add("Slice", made, op.ints_of([0]), count, op.ints_of([0])))


def _filled(op: Op, count: str, skipped: int, value: float) -> str:
    """So many rows of one value; what follows the first `skipped` axes of input 0 is a row."""
    tail = op.add("Slice", op.add("Shape", op.real(0)), op.ints_of([skipped]), op.ints_of([max(op.rank(0), skipped)]))
    return op.add("Expand", op.number(value, op.working(0)), op.add("Concat", count, tail, axis=0))


def _bound(op: Op, *, low: bool) -> float:
    """The least or the largest number of the file's type, where a row without elements starts."""
    dtype = np.dtype(op.result().dtype)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return float(limits.min if low else limits.max) if dtype.kind == "f" else int(limits.min if low else limits.max)


_START: Mapping[str, Callable[[Op], float]] = {
    "add": lambda _: 0,
    "max": partial(_bound, low=True),
    "min": partial(_bound, low=False),
    "mul": lambda _: 1,
}


def unique(op: Op) -> None:
    """Each element once, in the order in which they come, and which of them each element is."""
    values, _, places = op.several("Unique", op.real(0), count=3, sorted=0)
    op.out(values)
    kind = op.result(1).dtype
    op.out_stored(places if kind == "int64" else op.add("Cast", places, to=ONNX_TYPES[kind]), at=1)


def sparse_to_dense(op: Op) -> None:
    """Values at places, and one value everywhere else."""
    places = op.ints(0)
    places = op.add("Reshape", places, op.ints_of([-1, op.shape(0)[1] if op.rank(0) == 2 else 1]))
    count = op.add("Slice", op.add("Shape", places), op.ints_of([0]), op.ints_of([1]))
    values = op.add("Expand", op.real(2), count)
    empty = op.add("Expand", op.add("Reshape", op.real(3), op.ints_of([])), op.ints(1))
    op.out(op.add("ScatterND", empty, places, values))


def non_max_suppression(op: Op) -> None:
    """Numbers of the boxes that stay, as many as are asked for with zeros at the end, and how many are meant.

    Source: LiteRT, kernels/non_max_suppression.cc; with scores that sink (soft suppression) ONNX has no form.
    """
    soft = op.code == "NON_MAX_SUPPRESSION_V5"
    if soft and float(op.array(5, "sigma").reshape(-1)[0]) != 0:
        raise op.refuse("its sigma lets scores sink, which ONNX has no operator for")
    scalar = op.ints_of([1])
    most = op.add("Reshape", op.ints(2), scalar)
    bounds = [op.add("Reshape", op.real(at), scalar) for at in (3, 4)]
    boxes, scores = (
        op.add("Unsqueeze", op.real(0), op.ints_of([0])),
        op.add("Unsqueeze", op.real(1), op.ints_of([0, 1])),
    )
    found = op.add("NonMaxSuppression", boxes, scores, most, *bounds)
    kept = op.add("Squeeze", op.add("Slice", found, op.ints_of([2]), op.ints_of([3]), op.ints_of([1])), op.ints_of([1]))
    count = op.add("Shape", kept)
    pads = op.add("Concat", op.ints_of([0]), op.add("Sub", most, count), axis=0)
    op.out_stored(op.add("Cast", op.add("Pad", kept, pads), to=ONNX_TYPES["int32"]))
    if soft:
        op.out_stored(op.add("Pad", op.add("Gather", op.real(1), kept), pads), at=1)
    number = op.add("Reshape", count, op.ints_of([]))
    op.out_stored(op.add("Cast", number, to=ONNX_TYPES["int32"]), at=1 + soft)


SEGMENT: Mapping[str, Rule] = {
    "NON_MAX_SUPPRESSION_V4": non_max_suppression,
    "NON_MAX_SUPPRESSION_V5": non_max_suppression,
    "SEGMENT_SUM": segment_sum,
    "SPARSE_TO_DENSE": sparse_to_dense,
    "UNIQUE": unique,
    "UNSORTED_SEGMENT_MAX": partial(_unsorted, "max"),
    "UNSORTED_SEGMENT_MIN": partial(_unsorted, "min"),
    "UNSORTED_SEGMENT_PROD": partial(_unsorted, "mul"),
    "UNSORTED_SEGMENT_SUM": partial(_unsorted, "add"),
}
