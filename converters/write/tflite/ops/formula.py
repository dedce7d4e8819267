"""Arithmetic on values, for operators that TFLite has no word for."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from converters.tflite.model import DType
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.program import Axes, OptionOrAxis, Size, Together, Value

Operand = Value | float


class Formula:
    """Writes a formula as steps. Operands are values or numbers; each result is a new value, or `out` where given."""

    def __init__(self, low: Lowering) -> None:
        self._low = low

    def unary(self, code: str, x: Value, out: Value | None = None, **options: OptionOrAxis) -> Value:
        """An operator that keeps shape and type."""
        made = out or self._low.like(x)
        self._low.emit(code, [x], [made], options, rule=Together())
        return made

    def binary(
        self, code: str, x: Operand, y: Operand, out: Value | None = None, *, dtype: DType | None = None
    ) -> Value:
        """An operator that broadcasts; `dtype` of the result where it is not the operands'."""
        like = x if isinstance(x, Value) and not (x.constant and isinstance(y, Value)) else y
        if not isinstance(like, Value):
            raise TypeError(f"{code} of two numbers")
        rank = max(operand.rank for operand in (x, y) if isinstance(operand, Value))
        left, right = (self._aligned(operand, like, rank) for operand in (x, y))
        shape = broadcast(left.shape, right.shape)
        made = out or self._low.temp(shape, dtype or like.dtype)
        self._low.emit(code, [left, right], [made], rule=Together())
        return made

    def _aligned(self, operand: Operand, like: Value, rank: int) -> Value:
        """Numbers become constants; activations of a lower rank get axes in front."""
        if not isinstance(operand, Value):
            return self._low.constant(np.array(operand, np.dtype(like.dtype)))
        if operand.constant or operand.rank == rank:
            return operand
        return self._low.reshape(operand, (1,) * (rank - operand.rank) + operand.shape)

    def add(self, x: Operand, y: Operand, out: Value | None = None) -> Value:
        return self.binary("ADD", x, y, out)

    def sub(self, x: Operand, y: Operand, out: Value | None = None) -> Value:
        return self.binary("SUB", x, y, out)

    def mul(self, x: Operand, y: Operand, out: Value | None = None) -> Value:
        return self.binary("MUL", x, y, out)

    def div(self, x: Operand, y: Operand, out: Value | None = None) -> Value:
        return self.binary("DIV", x, y, out)

    def maximum(self, x: Operand, y: Operand, out: Value | None = None) -> Value:
        return self.binary("MAXIMUM", x, y, out)

    def minimum(self, x: Operand, y: Operand, out: Value | None = None) -> Value:
        return self.binary("MINIMUM", x, y, out)

    def power(self, x: Value, exponent: float, out: Value | None = None) -> Value:
        """|x| ** exponent for a non-negative x, by the cheapest operator."""
        if exponent == 1:
            return self.same(x, out)
        if exponent in {2, 0.5}:
            return self.mul(x, x, out) if exponent == 2 else self.unary("SQRT", x, out)
        return self.binary("POW", x, exponent, out)

    def same(self, x: Value, out: Value | None = None) -> Value:
        """X itself, written to `out` where that is given."""
        return x if out is None else self._low.reshape(x, x.shape, out)

    def reduce(self, code: str, x: Value, axes: Sequence[int], out: Value | None = None) -> Value:
        """MEAN, SUM, REDUCE_MAX, ... over axes that stay with size 1."""
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        made = out or self._low.like(x, kept)
        self._low.emit(code, [x, Axes(tuple(sorted(axes)))], [made], {"keep_dims": True}, rule=Together())
        return made

    def select(self, condition: Value, x: Operand, y: Operand, out: Value | None = None) -> Value:
        """X where the condition holds, else y; operands of the condition's shape, or numbers (float32)."""
        operands = [
            operand if isinstance(operand, Value) else self._low.constant(np.float32(operand)) for operand in (x, y)
        ]
        dtype = next((one.dtype for one in operands if not one.constant), operands[0].dtype)
        made = out or self._low.temp(condition.shape, dtype)
        self._low.emit("SELECT_V2", [condition, *operands], [made], rule=Together())
        return made

    def row(self, value: Value, rank: int, axis: int = 1) -> Value:
        """A vector laid along one axis of a tensor of some rank."""
        return self.shaped(value, [value.shape[0] if at == axis else 1 for at in range(rank)])

    def shaped(self, value: Value, shape: Sequence[Size]) -> Value:
        """A constant or an activation of another shape; constants without a step."""
        if value.shape == tuple(shape):
            return value
        if not value.constant:
            return self._low.reshape(value, shape)
        return self._low.constant(value.array().reshape([int(size) for size in shape]))


def broadcast(one: Sequence[Size], other: Sequence[Size]) -> tuple[Size, ...]:
    """The shape of two operands together; of an open and a known size above 1, the known one."""
    rank = max(len(one), len(other))
    left, right = ((1,) * (rank - len(shape)) + tuple(shape) for shape in (one, other))
    return tuple(_wider(x, y) for x, y in zip(left, right, strict=True))


def _wider(one: Size, other: Size) -> Size:
    if one == 1 or (isinstance(one, str) and isinstance(other, int) and other != 1):
        return other
    return one


def known(shape: Sequence[Size]) -> tuple[int, ...] | None:
    """The sizes, where none is open."""
    sizes = tuple(size for size in shape if isinstance(size, int))
    return sizes if len(sizes) == len(shape) else None


def product(sizes: Sequence[Size], low: Lowering) -> Size:
    """The size of several axes read as one; at most one of them may be open."""
    open_sizes = [size for size in sizes if isinstance(size, str)]
    if len(open_sizes) > 1:
        low.refuse(f"the sizes {list(sizes)} of two axes are open")
    count = int(np.prod([size for size in sizes if isinstance(size, int)], dtype=np.int64))
    if not open_sizes:
        return count
    return open_sizes[0] if count == 1 else f"{count}*{open_sizes[0]}"


def real(low: Lowering, index: int) -> npt.NDArray[np.float64]:
    """A constant input as numbers of double precision."""
    return low.array(index, "parameter").astype(np.float64)


def scalar(value: Value) -> float | None:
    """The number that a constant of one element is."""
    if not value.constant or any(size != 1 for size in value.shape):
        return None
    return float(value.array().reshape(-1)[0])


Options = Mapping[str, OptionOrAxis]
