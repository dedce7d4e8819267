"""Products of matrices: FULLY_CONNECTED with constant weights, else BATCH_MATMUL."""

from collections.abc import Sequence

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.channels import kernel_weights, zero_bias
from converters.write.tflite.ops.formula import Formula, broadcast
from converters.write.tflite.program import Choice, Fixed, Order, Size, Value
from converters.write.tflite.table import lowers

_FLOAT_OR_INT8 = {"float32", "int8"}
_MOST_RANK = 5
"""Axes that BATCH_MATMUL takes."""


@lowers("Gemm", int8=True, hybrid=True)
def gemm(low: Lowering) -> None:
    """Canonical ones have no attributes; transposed weights are taken as they are."""
    x, weights, bias, out = low.input(0), low.input(1), low.optional(2), low.output()
    if low.number("alpha", 1) != 1 or (bias is not None and low.number("beta", 1) != 1):
        low.refuse("alpha or beta other than 1")
    if low.integer("transA", 0):
        x = low.transpose(x, (1, 0))
    turned = bool(low.integer("transB", 0))
    if x.dtype not in _FLOAT_OR_INT8:
        product = whole_number_product(low, x, low.transpose(weights, (1, 0)) if turned else weights)
        Formula(low).same(product, out) if bias is None else Formula(low).add(product, bias, out)
    elif bias is not None and (bias.rank != 1 or bias.shape[0] != out.shape[1] or out.shape[1] == 0):
        made = low.like(out)
        fully_connected(low, x, weights, None, made, turned=turned)
        Formula(low).add(made, bias, out)
    else:
        fully_connected(low, x, weights, bias, out, turned=turned)


def fully_connected(
    low: Lowering, x: Value, weights: Value, bias: Value | None, out: Value, *, turned: bool = False
) -> None:
    """X (.., in) times weights (in, out), or (out, in) where they are turned; bias (out,)."""
    inner, outer = (1, 0) if turned else (0, 1)
    bias = bias or zero_bias(low, x, weights, outer)
    last = x.rank - 1
    ties = (((0, last), (1, inner)), ((1, outer), (2, 0), (-1, last)))
    weights = kernel_weights(low, x, weights)
    rule = Fixed({1: (outer, inner)}, ties=ties)
    low.emit("FULLY_CONNECTED", [x, weights, bias], [out], {"keep_num_dims": x.rank != 2}, rule=rule)


@lowers("MatMul", int8=True, hybrid=True)
def matmul(low: Lowering) -> None:
    """Input 2, where there is one, is a bias along the last axis."""
    x, y, out = low.input(0), low.input(1), low.output()
    bias = low.optional(2)
    if min(x.rank, y.rank) == 0:
        low.refuse("a product with a scalar")
    if x.dtype not in _FLOAT_OR_INT8:
        _integers(low, x, y, bias, out)
    elif y.rank == 2 and y.constant and x.rank > 1 and 0 not in (*x.shape, *y.shape):
        fully_connected(low, x, y, bias, out)
    elif bias is None:
        _product(low, x, y, out)
    else:
        made = low.like(out)
        _product(low, x, y, made)
        Formula(low).add(made, bias, out)


def _product(low: Lowering, x: Value, y: Value, out: Value) -> None:
    """Vectors stand as matrices of one row or column."""
    left = x if x.rank > 1 else low_shaped(low, x, (1, *x.shape))
    right = y if y.rank > 1 else low_shaped(low, y, (*y.shape, 1))
    shape = (*broadcast(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    if 0 in (*left.shape, *right.shape):
        low.refuse("a product over no entries")
    made = out if out.rank == len(shape) else low.like(out, shape)
    batch_matmul(low, left, right, made)
    if made is not out:
        low.reshape(made, out.shape, out)


def low_shaped(low: Lowering, value: Value, shape: Sequence[Size]) -> Value:
    """A constant or activation of another shape, scales kept (one for the whole tensor)."""
    if not value.constant:
        return low.reshape(value, shape)
    sizes = tuple(int(size) for size in shape)
    return Value(value.name, sizes, value.dtype, value.quantization, value.array().reshape(sizes))


def batch_matmul(low: Lowering, left: Value, right: Value, out: Value) -> None:
    """Of rank 2 or more, batches broadcast; either may lie transposed."""
    rank = max(left.rank, right.rank)
    if rank > _MOST_RANK:
        low.refuse(f"a product of {rank} axes")
    left, right = (
        one if one.rank == rank else low_shaped(low, one, (1,) * (rank - one.rank) + one.shape) for one in (left, right)
    )
    if any(one.quantization is not None and one.quantization.per_channel for one in (left, right)):
        low.refuse("a scale per channel")
    plain: Order = tuple(range(rank))
    swapped = (*plain[:-2], rank - 1, rank - 2)
    ways = [
        Fixed({0: swapped if x else plain, 1: swapped if y else plain}, options={"adj_x": x, "adj_y": y})
        for x in (False, True)
        for y in (False, True)
    ]
    low.emit("BATCH_MATMUL", [left, right], [out], rule=Choice(tuple(ways)))


def _integers(low: Lowering, x: Value, y: Value, bias: Value | None, out: Value) -> None:
    made = whole_number_product(low, x, y)
    made = made if made.shape == out.shape else low.reshape(made, out.shape)
    Formula(low).same(made, out) if bias is None else Formula(low).add(made, bias, out)


def whole_number_product(low: Lowering, x: Value, y: Value) -> Value:
    """Products summed: BATCH_MATMUL takes no int32 and no int64."""
    if x.dtype not in {"int32", "int64"}:
        low.refuse(f"a product of {x.dtype}")
    left = x if x.rank > 1 else low_shaped(low, x, (1, *x.shape))
    right = y if y.rank > 1 else low_shaped(low, y, (*y.shape, 1))
    if max(left.rank, right.rank) > 3:
        low.refuse(f"a product of {x.dtype} with {max(left.rank, right.rank)} axes")
    formula = Formula(low)
    wide = formula.mul(
        low_shaped(low, left, (*left.shape, 1)),
        low_shaped(low, right, (*right.shape[:-2], 1, *right.shape[-2:])),
    )
    summed = formula.reduce("SUM", wide, [wide.rank - 2])
    return low.reshape(summed, (*summed.shape[:-2], summed.shape[-1]))
