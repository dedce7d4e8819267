"""What a lowering function sees of its node, and how it says what TFLite is to run."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.tflite.model import DType, Quantization
from converters.write.tflite.program import (
    PLAIN,
    Body,
    Input,
    OptionOrAxis,
    Order,
    Program,
    Reshaped,
    Rule,
    Size,
    Step,
    Transposed,
    Value,
)

Array = npt.NDArray[np.generic]


class CannotLowerError(Exception):
    """A node that TFLite cannot say; the message is the reason."""


class Lowering:
    """One node on its way into a program.

    Attributes:
        node: of the graph; attributes are read from it.
        inputs: its inputs as values; None where an optional one is absent. Those of an int8 unit are int8.
        outputs: what it must write; "" outputs are None.
        bodies: graph attributes, lowered, by name; what they capture from outside comes last among their inputs.
        captures: what that is out here, by the same names.
    """

    def __init__(
        self,
        node: ir.Node,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value | None],
        program: Program,
        bodies: Mapping[str, Program] | None = None,
    ) -> None:
        self.node = node
        self.inputs = inputs
        self.outputs = outputs
        self.bodies = bodies or {}
        self.captures: Mapping[str, Sequence[Value]] = {}
        self._program = program

    def refuse(self, reason: str) -> NoReturn:
        """TFLite has no way to say this node; `reason` ends up in the error that lists all such nodes."""
        raise CannotLowerError(reason)

    def input(self, index: int) -> Value:
        """An input that must be there."""
        value = self.optional(index)
        if value is None:
            self.refuse(f"input {index} is absent")
        return value

    def optional(self, index: int) -> Value | None:
        """An input that may be absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int = 0) -> Value:
        """An output that must be there."""
        value = self.optional_output(index)
        if value is None:
            self.refuse(f"output {index} is absent")
        return value

    def optional_output(self, index: int) -> Value | None:
        """An output that may be absent."""
        return self.outputs[index] if index < len(self.outputs) else None

    def array(self, index: int, what: str) -> Array:
        """The data of an input that must be constant; `what` names it in the message."""
        value = self.input(index)
        if not value.constant:
            self.refuse(f"its {what} ({value.name!r}) must be constant in TFLite, and is computed or fed")
        return value.array()

    def integer(self, name: str, default: int) -> int:
        """An attribute."""
        return self.node.attributes.get_int(name, default)

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """An attribute."""
        return list(self.node.attributes.get_ints(name, default))

    def number(self, name: str, default: float) -> float:
        """An attribute."""
        return self.node.attributes.get_float(name, default)

    def text(self, name: str, default: str) -> str:
        """An attribute."""
        return self.node.attributes.get_string(name, default)

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """An attribute that names an axis, counted from the front."""
        return self.integer(name, default) % rank if rank else 0

    def body(self, name: str) -> Body:
        """A subgraph."""
        return Body(self.bodies[name])

    def emit(
        self,
        code: str,
        inputs: Sequence[Input],
        outputs: Sequence[Value],
        options: Mapping[str, OptionOrAxis] | None = None,
        *,
        rule: Rule = PLAIN,
    ) -> None:
        """Add one operator."""
        step = Step(code, list(inputs), list(outputs), dict(options or {}), rule, self.node.name or self.node.op_type)
        self._program.steps.append(step)

    def reshape(self, value: Value, shape: Sequence[Size], output: Value | None = None) -> Value:
        """Read `value` in the graph's order with another shape; at most one size may be open."""
        made = output or self.like(value, shape)
        self.emit("RESHAPE", [value], [made], rule=Reshaped())
        return made

    def copy(self, value: Value, output: Value) -> Value:
        """Write a value as it is; RESHAPE finds out one open size alone."""
        if sum(isinstance(size, str) for size in output.shape) < 2:
            return self.reshape(value, output.shape, output)
        ends = [self.constant(np.full(value.rank, number, np.int32)) for number in (0, -1)]
        self.emit("SLICE", [value, *ends], [output])
        return output

    def transpose(self, value: Value, order: Order, output: Value | None = None) -> Value:
        """Give axes another order; costs nothing by itself. A scale per channel goes with its axis."""
        made = output or self.like(value, [value.shape[axis] for axis in order])
        if made.quantization and made.quantization.per_channel and value.quantization:
            old = value.quantization
            made.quantization = Quantization(old.scale, old.zero_point, order.index(old.axis))
        self.emit("TRANSPOSE", [value], [made], rule=Transposed(order))
        return made

    def like(self, value: Value, shape: Sequence[Size] | None = None, *, dtype: DType | None = None) -> Value:
        """A new activation; of `value`'s type and scales unless another type is given."""
        sizes = value.shape if shape is None else tuple(shape)
        kept = value.quantization if dtype in {None, value.dtype} else None
        return Value(self._name("tmp"), sizes, dtype or value.dtype, kept)

    def temp(self, shape: Sequence[Size], dtype: DType, quantization: Quantization | None = None) -> Value:
        """A new activation."""
        return Value(self._name("tmp"), tuple(shape), dtype, quantization)

    def constant(self, array: npt.ArrayLike, dtype: DType | None = None, what: str = "constant") -> Value:
        """A constant without scales."""
        data = np.asarray(array, dtype=None if dtype is None else np.dtype(dtype))
        return Value(self._name(what), data.shape, _dtype(data), data=data)

    def constant_like(self, array: npt.ArrayLike, value: Value, what: str = "constant") -> Value:
        """A constant that stands beside `value` in an operator: in its type, in its scale where it has one."""
        real = np.asarray(array, np.float64)
        if value.quantization is None:
            return self.constant(real.astype(np.dtype(value.dtype)), what=what)
        limits, scales = np.iinfo(np.dtype(value.dtype)), value.quantization
        steps = np.clip(np.rint(real / scales.scale[0]) + scales.zero_point[0], limits.min, limits.max)
        data = np.asarray(steps, np.dtype(value.dtype))  # numpy makes a bare number of an array without axes
        return Value(self._name(what), data.shape, value.dtype, scales, data)

    def _name(self, what: str) -> str:
        return f"{self.node.name or self.node.op_type}/{what}"


def _dtype(array: Array) -> DType:
    name: DType = "string" if array.dtype.kind in "OSU" else array.dtype.name  # type: ignore[assignment]
    return name
