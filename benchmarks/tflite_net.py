"""TFLite graphs of a few operators, in float or in int8, for profile_tflite.py."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from converters.tflite.model import DType, Operator, Option, Quantization, Subgraph, Tensor, TfliteModel
from converters.tflite.versions import needed_version

SCALE, WEIGHT_SCALE = 0.05, 0.002
Scale = tuple[float, int]
PLAIN: Scale = (SCALE, -10)
UNIT: Scale = (1 / 256, -128)


class Value(NamedTuple):
    """A tensor of a net: its index, and its shape (channels last)."""

    index: int
    shape: tuple[int, ...]


class Net:
    """A graph being built.

    Attributes:
        int8: its activations and weights; else float.
        x: its input.
        shared: what blocks have in common, by name.
    """

    def __init__(self, shape: tuple[int, ...], *, int8: bool) -> None:
        self.int8 = int8
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.shared: dict[str, Value] = {}
        self._fed: list[Value] = []
        self._rng = np.random.default_rng(0)
        self.x = self.value(shape)

    def model(self, outputs: Sequence[Value]) -> TfliteModel:
        ends = tuple(value.index for value in outputs)
        starts = (self.x.index, *(value.index for value in self._fed))
        return TfliteModel([Subgraph("main", self.tensors, self.operators, starts, ends)])

    def value(self, shape: tuple[int, ...], scale: Scale = PLAIN, *, int8: bool | None = None) -> Value:
        """An activation."""
        steps = self.int8 if int8 is None else int8
        return self._add(shape, "int8" if steps else "float32", _scales([scale[0]], scale[1]) if steps else None)

    def op(
        self,
        code: str,
        inputs: Sequence[Value],
        shape: tuple[int, ...] | None = None,
        scale: Scale = PLAIN,
        **options: Option,
    ) -> Value:
        """An operator of one output, by default of its first input's shape."""
        return self.into(code, inputs, self.value(shape or inputs[0].shape, scale), **options)

    def into(self, code: str, inputs: Sequence[Value], output: Value, **options: Option) -> Value:
        made = Operator(code, tuple(value.index for value in inputs), (output.index,), options)
        made = Operator(code, made.inputs, made.outputs, options, needed_version(made, self.tensors))
        self.operators.append(made)
        return output

    def number(self, number: float) -> Value:
        """A constant of rank 0."""
        if not self.int8:
            return self._add((), "float32", None, np.float32(number))
        scale = number / 255 if number else 1.0
        return self._add((), "int8", _scales([scale], -128), np.int8(127 if number else -128))

    def integers(self, *numbers: int) -> Value:
        """Axes, sizes, orders."""
        return self._add((len(numbers),), "int32", None, np.array(numbers, np.int32))

    def indices(self, count: int) -> Value:
        """A second input: what is picked is not known when the graph is prepared."""
        if "indices" not in self.shared:
            self.shared["indices"] = self._add((count,), "int32", None)
            self._fed.append(self.shared["indices"])
        return self.shared["indices"]

    def table(self, shape: tuple[int, ...]) -> Value:
        """A constant that stands where an activation could."""
        array = self._rng.normal(0, 50, shape)
        data = array.astype(np.int8) if self.int8 else array.astype(np.float32)
        return self._add(shape, "int8" if self.int8 else "float32", _scales([SCALE], -10) if self.int8 else None, data)

    def conv(
        self, x: Value, cout: int, *, k: int = 1, stride: int = 1, group: int = 1, activation: str = "RELU"
    ) -> Value:
        """Padded so that a stride of 1 keeps the size; group = channels is a depthwise convolution."""
        batch, height, width, cin = x.shape
        shape = (batch, -(-height // stride), -(-width // stride), cout)
        scale = (SCALE, -128) if activation == "RELU" else PLAIN
        options: dict[str, Option] = {
            "padding": "SAME", "stride_w": stride, "stride_h": stride, "fused_activation_function": activation,
            "dilation_w_factor": 1, "dilation_h_factor": 1,
        }  # fmt: skip
        depthwise = group == cin == cout
        if depthwise:
            weight = self._weight((1, k, k, cout), 3)
            return self.op(
                "DEPTHWISE_CONV_2D", [x, weight, self._bias(cout)], shape, scale, depth_multiplier=1, **options
            )
        weight = self._weight((cout, k, k, cin // group), 0)
        return self.op("CONV_2D", [x, weight, self._bias(cout)], shape, scale, **options)

    def transpose_conv(self, x: Value, cout: int, *, k: int, stride: int) -> Value:
        batch, height, width, cin = x.shape
        shape = (batch, height * stride, width * stride, cout)
        inputs = [self.integers(*shape), self._weight((cout, k, k, cin), 0), x, self._bias(cout)]
        return self.op("TRANSPOSE_CONV", inputs, shape, padding="SAME", stride_w=stride, stride_h=stride)

    def linear(self, x: Value, width: int) -> Value:
        weight = self._weight((width, x.shape[-1]), 0)
        inputs = [x, weight, self._bias(width)]
        shape = (*x.shape[:-1], width)
        return self.op("FULLY_CONNECTED", inputs, shape, keep_num_dims=len(shape) > 2)

    def _weight(self, shape: tuple[int, ...], axis: int | None) -> Value:
        if not self.int8:
            return self._add(shape, "float32", None, self._rng.normal(0, 0.05, shape).astype(np.float32))
        scales = [WEIGHT_SCALE] * (1 if axis is None else shape[axis])
        steps = self._rng.integers(-127, 128, shape).astype(np.int8)
        return self._add(shape, "int8", _scales(scales, 0, axis or 0), steps)

    def _bias(self, count: int) -> Value:
        if not self.int8:
            return self._add((count,), "float32", None, np.zeros(count, np.float32))
        scales = _scales([SCALE * WEIGHT_SCALE] * count, 0)
        return self._add((count,), "int32", scales, np.zeros(count, np.int32))

    def _add(
        self, shape: tuple[int, ...], dtype: DType, scales: Quantization | None, data: object | None = None
    ) -> Value:
        held = None if data is None else np.asarray(data).reshape(shape)
        index = len(self.tensors)
        self.tensors.append(Tensor(f"t{index}", shape, dtype, quantization=scales, data=held))
        return Value(index, shape)


def _scales(scales: Sequence[float], zero: int, axis: int = 0) -> Quantization:
    return Quantization(np.array(scales, np.float32), np.full(len(scales), zero, np.int64), axis)
