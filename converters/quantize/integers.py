"""Integer tensors in a graph: steps of activations, weights and biases, each behind its DequantizeLinear."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.quantize.channels import nearest
from converters.quantize.encoding import SHIFT, STEPS, Encoding, encode
from converters.quantize.insert import Inserter
from converters.quantize.profiles import Profile, Sign
from converters.quantize.weights import (
    Floats,
    Known,
    correct_bias,
    quantize_activation,
    quantize_bias,
    quantize_weights,
)

Array = npt.NDArray[np.generic]


class Integers:
    """Adds integer tensors to a graph in the types that a profile wants."""

    def __init__(self, graph: ir.Graph, profile: Profile, known: Known) -> None:
        """known: of this graph; units go by their names."""
        self._graph = graph
        self._profile = profile
        self._known = known
        self.names = Inserter(graph)

    def quantise(self, value: ir.Value, name: str, encoding: Encoding) -> ir.Value:
        """The steps of `value`, right behind what makes it."""
        steps = self.node("QuantizeLinear", [value, *self._ends(name, encoding)], f"{name}_quantized", after=value)
        steps.type, steps.shape = ir.TensorType(_TYPES[self._profile.activations]), value.shape
        return steps

    def dequantise(self, steps: ir.Value, name: str, encoding: Encoding) -> ir.Value:
        """The numbers that steps stand for, right behind what makes them."""
        real = self.node("DequantizeLinear", [steps, *self._ends(name, encoding)], f"{name}_dequantized", after=steps)
        real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), steps.shape
        return real

    def dequantise_by_channel(self, steps: ir.Value, name: str, encoding: Encoding, *, channels: int) -> ir.Value:
        """The same numbers, the scale said for each channel of axis 1: ONNX Runtime fuses this with nothing."""
        ends = [
            self.names.constant(f"{name}_scales", np.full(channels, encoding.scale, np.float32)),
            self.names.constant(f"{name}_zero_points", np.full(channels, self._step(encoding.zero_point))),
        ]
        axis = {"axis": 1}
        real = self.node("DequantizeLinear", [steps, *ends], f"{name}_by_channel", after=steps, attributes=axis)
        real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), steps.shape
        return real

    def requantise(self, real: ir.Value, name: str, encoding: Encoding) -> ir.Value:
        """Numbers that went through the steps of another encoding."""
        return self.dequantise(self.quantise(real, name, encoding), name, encoding)

    def once(self, real: ir.Value, name: str) -> ir.Value:
        """`real` times 1, to be quantised in another scale or to be clipped.

        XNNPACK computes it as fast as a change of scale, which errs by a step in 2 of 100 places, and it has none.
        """
        one = self.constant(np.ones((), np.float32), f"{name}_one", encode(1.0, 1.0))
        made = self.node("Mul", [real, one], f"{name}_once", after=real)
        made.type, made.shape = real.type, real.shape
        return made

    def clip(self, steps: ir.Value, low: float, high: float, name: str, encoding: Encoding) -> ir.Value:
        """Steps clipped to those of low..high; `steps` itself where an encoding holds nothing beyond."""
        if encoding.within(low, high):
            return steps
        bounds = [0 if low == -np.inf else _step(low, encoding), STEPS if high == np.inf else _step(high, encoding)]
        ends = [
            self.names.constant(f"{name}_{end}", self._step(bound))
            for end, bound in zip(("lowest", "highest"), bounds, strict=True)
        ]
        clipped = self.node("Clip", [steps, *ends], f"{name}_clipped", after=steps)
        clipped.type, clipped.shape = steps.type, steps.shape
        return clipped

    def constant(self, values: Floats, name: str, encoding: Encoding) -> ir.Value:
        """A constant that stands where an activation could, read back from its steps."""
        steps = self._signed(quantize_activation(values, encoding), self._profile.activations)
        return self._stored(name, steps, [np.asarray(encoding.scale, np.float32), self._step(encoding.zero_point)])

    def weights(
        self,
        weights: Floats,
        bias: Floats | None,
        name: str,
        source: Encoding,
        *,
        axis: int,
        mean: Floats | None = None,
    ) -> tuple[ir.Value, ir.Value | None]:
        """Weights, and the bias that goes with them, read back from their steps.

        Args:
            weights: float32.
            bias: shape (channels,), or None.
            name: of the unit.
            source: the encoding of what they are multiplied with.
            axis: of the weights' channels.
            mean: of each channel that they are multiplied with, where it is known: the bias makes up for rounding.
        """
        found = self._known.steps((name, axis), lambda: nearest(weights, [axis]))
        quantised = quantize_weights(weights, axis=axis, input_scale=source.scale, bias=bias, found=found)
        steps, scale = quantised
        data: Array = steps if self._profile.weights == "S8" else steps.view(np.uint8) + np.uint8(SHIFT)
        zero = np.full(scale.shape, SHIFT if self._profile.weights == "U8" else 0, data.dtype)
        made = self._stored(f"{name}_weight", data, [scale, zero], axis=axis)
        if bias is None:
            return made, None
        if mean is not None:
            bias = correct_bias(bias, weights, quantised, mean, axis=axis)
        total = (scale.astype(np.float64) * source.scale).astype(np.float32)
        steps_of_bias = quantize_bias(bias, total)
        return made, self._stored(f"{name}_bias", steps_of_bias, [total], axis=0)

    def node(
        self,
        operator: str,
        inputs: Iterable[ir.Value],
        output: str,
        *,
        after: ir.Value | None,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        """A node of one output right behind the one that makes `after`; at the graph's start where nobody does."""
        name = self.names.free(output)
        node = ir.node(operator, list(inputs), attributes=attributes or {}, name=name)
        node.outputs[0].name = name
        maker = after.producer() if after is not None else None
        if maker is not None:
            maker.append(node)
        else:
            self._graph[0].prepend(node)
        return node.outputs[0]

    def _ends(self, name: str, encoding: Encoding) -> list[ir.Value]:
        """Scale and zero point of a tensor."""
        return [
            self.names.constant(f"{name}_scale", np.asarray(encoding.scale, np.float32)),
            self.names.constant(f"{name}_zero_point", self._step(encoding.zero_point)),
        ]

    def _stored(self, name: str, steps: Array, ends: list[Array], *, axis: int | None = None) -> ir.Value:
        held = [self.names.constant(f"{name}_quantized", steps)]
        for suffix, array in zip(("scale", "zero_point"), ends, strict=False):
            held.append(self.names.constant(f"{name}_{suffix}", array))
        attributes = {} if axis is None else {"axis": axis}
        real = self.node("DequantizeLinear", held, f"{name}_dequantized", after=None, attributes=attributes)
        real.type, real.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(steps.shape)
        return real

    def _step(self, step: int) -> Array:
        return self._signed(np.asarray(step, np.uint8), self._profile.activations)

    @staticmethod
    def _signed(steps: npt.NDArray[np.uint8], sign: Sign) -> Array:
        return steps if sign == "U8" else (steps.astype(np.int16) - SHIFT).astype(np.int8)


_TYPES: dict[Sign, ir.DataType] = {"U8": ir.DataType.UINT8, "S8": ir.DataType.INT8}


def _step(number: float, encoding: Encoding) -> int:
    return int(np.clip(np.rint(number / encoding.scale) + encoding.zero_point, 0, STEPS))
