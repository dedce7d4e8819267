"""Reductions, and operators that look elements up or say where they are."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from converters.importers.tflite.op import ONNX_TYPES, Op, Rule
from converters.importers.tflite.scope import is_steps, plain


def _reduce(op_type: str, op: Op) -> None:
    """Without its axes the order of the others must still be the file's, else it starts from that."""
    keep, axes = op.flag("keep_dims"), op.constant(1)
    if op.code == "REDUCE_PROD" and op.tensor(0).dtype == "int16":
        raise op.refuse("products of 16 bits, which the kernel lets run over")
    if axes is None:
        op.out(op.add(op_type, op.real(0), op.ints(1), keepdims=int(keep)))
        return
    gone = [op.axis(axis, op.rank(0)) for axis in op.numbers(1, "axes")]
    if not gone:
        op.out(op.real(0))
        return
    perm = op.scope.orders(op.index(0))[0] if op.constant(0) is None else ()
    left = [axis for axis in perm if axis not in gone]
    after = perm if keep else plain(tuple(sorted(left).index(axis) for axis in left))
    moved = [perm.index(axis) if perm else axis for axis in gone]
    op.out(op.add(op_type, op.real(0, perm), op.ints_of(moved), keepdims=int(keep)), after)


def _any_all(op_type: str, op: Op) -> None:
    whole = op.add("Cast", op.stored(0), to=ONNX_TYPES["int32"])
    keep = int(op.flag("keep_dims"))
    op.out_stored(op.add("Cast", op.add(op_type, whole, op.ints(1), keepdims=keep), to=ONNX_TYPES["bool"]))


def _arg(op_type: str, op: Op) -> None:
    axis = op.axis(op.numbers(1, "axis")[0], op.rank(0))
    found = op.add(op_type, op.real(0), axis=axis, keepdims=0)
    kind = op.result().dtype
    op.out_stored(found if kind == "int64" else op.add("Cast", found, to=ONNX_TYPES[kind]))


def top_k(op: Op) -> None:
    """Along the last axis."""
    count = op.add("Reshape", op.ints(1), op.ints_of([1]))
    values, places = op.several("TopK", op.real(0), count, count=2, axis=-1)
    op.out(values)
    kind = op.result(1).dtype
    op.out_stored(places if kind == "int64" else op.add("Cast", places, to=ONNX_TYPES[kind]), at=1)


def gather(op: Op) -> None:
    axis = op.axis(op.option("axis", 0), op.rank(0))
    batches = op.option("batch_dims", 0)
    if not batches:
        op.out(op.add("Gather", op.real(0), op.ints(1), axis=axis))
        return
    if axis != batches:
        raise op.refuse(f"it gathers along axis {axis} behind {batches} axes of batches")
    places = op.add("Unsqueeze", op.ints(1), op.ints_of([op.rank(1)]))
    op.out(op.add("GatherND", op.real(0), places, batch_dims=batches))


def embedding_lookup(op: Op) -> None:
    if op.tensor(1).dtype not in {"int4", "int8"} and is_steps(op.tensor(1)) and not is_steps(op.result()):
        raise op.refuse(f"its kernel does not take steps of {op.tensor(1).dtype} for numbers")
    op.out(op.add("Gather", op.real(1), op.ints(0), axis=0))


def gather_nd(op: Op) -> None:
    op.out(op.add("GatherND", op.real(0), op.ints(1)))


def scatter_nd(op: Op) -> None:
    """Elements at one place are added up."""
    zero = np.zeros((), op.working(1))
    empty = op.add("Expand", op.scope.graph.constant(zero), op.ints(2))
    op.out(op.add("ScatterND", empty, op.ints(0), op.real(1), reduction="add"))


def where(op: Op) -> None:
    """Places of what is true, a row for each."""
    x = op.stored(0)
    if op.tensor(0).dtype not in {"bool", "float32", "int32", "int64"}:
        x = op.add("Cast", x, to=ONNX_TYPES["bool"])
    op.out_stored(op.add("Transpose", op.add("NonZero", x), perm=[1, 0]))


def one_hot(op: Op) -> None:
    """Indices outside of the range have no place that is on."""
    depth = op.numbers(1, "depth")[0]
    rank = len(op.result().shape)
    axis = op.axis(op.option("axis", -1), rank)
    shape = [1] * rank
    shape[axis] = depth
    places = op.scope.graph.constant(np.arange(depth).reshape(shape), "places")
    chosen = op.add("Equal", op.add("Unsqueeze", op.ints(0), op.ints_of([axis])), places)
    op.out(op.add("Where", chosen, op.real(2), op.real(3)))


def cumsum(op: Op) -> None:
    how = {"exclusive": int(op.flag("exclusive")), "reverse": int(op.flag("reverse"))}
    op.out(op.add("CumSum", op.real(0), op.number(op.numbers(1, "axis")[0], "int64"), **how))


def dynamic_update_slice(op: Op) -> None:
    """A part is put in at a place, which moves back where the part would not fit."""
    x, part, starts = op.real(0), op.real(1), op.ints(2)
    latest = op.add("Sub", op.add("Shape", x), op.add("Shape", part))
    start = op.add("Max", op.add("Min", starts, latest), op.ints_of([0]))
    ones = op.add("Expand", op.number(1.0), op.add("Shape", part))
    pads = op.add("Concat", start, op.add("Sub", latest, start), axis=0)
    covered = op.add("Greater", op.add("Pad", ones, pads), op.number(0.0))
    op.out(op.add("Where", covered, op.add("Pad", part, pads), x))


INDEX: Mapping[str, Rule] = {
    "ARG_MAX": partial(_arg, "ArgMax"),
    "ARG_MIN": partial(_arg, "ArgMin"),
    "CUMSUM": cumsum,
    "DYNAMIC_UPDATE_SLICE": dynamic_update_slice,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "MEAN": partial(_reduce, "ReduceMean"),
    "ONE_HOT": one_hot,
    "REDUCE_ALL": partial(_any_all, "ReduceMin"),
    "REDUCE_ANY": partial(_any_all, "ReduceMax"),
    "REDUCE_MAX": partial(_reduce, "ReduceMax"),
    "REDUCE_MIN": partial(_reduce, "ReduceMin"),
    "REDUCE_PROD": partial(_reduce, "ReduceProd"),
    "SCATTER_ND": scatter_nd,
    "SUM": partial(_reduce, "ReduceSum"),
    "TOPK_V2": top_k,
    "WHERE": where,
}
