"""Operators on steps of quantised tensors: what they read dequantised, what they write quantised again.

Source: the operators' schemas (ONNX; com.microsoft of ONNX Runtime 1.32). Round half to even and saturation are
QuantizeLinear's own.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import onnx
from onnx import helper

from converters.importers.ml.steps import Steps
from converters.importers.rewriting import Context, attribute, changed, integer
from lepton_edge.bundle.binding import Array

_OWN = {"channels_last", "opset", "activation", "activation_params"}
"""Attributes that the plain operators do not have."""


Attributes = Mapping[str, int | float | str | Sequence[int]]


class Scaled(Steps):
    """Steps between quantised tensors; a scale and its zero point follow their tensor among the inputs."""

    def __init__(self, node: onnx.NodeProto, context: Context) -> None:
        super().__init__(node, context)
        self.node = node
        self._known = context

    def given(self, index: int) -> str:
        """An input's name, "" where it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def real(self, index: int, *, at: int | None = None, axis: int | None = None) -> str:
        """The numbers that input `index` stands for; its scale is input `at`, the next one without it."""
        first = index + 1 if at is None else at
        return self.dequantised(self.given(index), self.given(first), self.given(first + 1), axis=axis)

    def dequantised(self, steps: str, scale: str, zero: str, *, axis: int | None = None) -> str:
        along = {} if axis is None or self.is_single(scale) else {"axis": axis}
        scale, zero = self._bare(scale), self._bare(zero)
        return self.like("DequantizeLinear", [steps, scale, *([zero] if zero else [])], along)

    def quantise(self, value: str, index: int) -> None:
        """Write the node's output; its scale is input `index`, its zero point the next."""
        scale, zero = self._bare(self.given(index)), self._bare(self.given(index + 1))
        self.do("QuantizeLinear", value, scale, *([zero] if zero else []), to=self.node.output[0])

    def is_single(self, name: str) -> bool:
        """Whether a scale is one for its whole tensor."""
        known = self._known.types.get(name)
        return known is not None and known.shape is not None and all(size == 1 for size in known.shape)

    def _bare(self, name: str) -> str:
        """A number in a list of one as the number alone."""
        array = self._known.constants.get(name)
        if array is None or array.shape != (1,):
            return name
        return self.constant(array.reshape(()), name)

    def like(self, op_type: str, inputs: Sequence[str], attributes: Attributes, *, to: str = "") -> str:
        """Append a node with attributes by name; the name of its output."""
        output = self.do(op_type, *inputs, to=to)
        self.nodes[-1].attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        return output

    def target(self) -> str:
        """The name of the node's first output."""
        return str(self.node.output[0])

    def optional_target(self, index: int) -> str:
        """The name of a later output, "" where it is absent."""
        return self.node.output[index] if index < len(self.node.output) else ""

    def channels(self, value: str, *, first: bool) -> str:
        """Move the channels of a channels-last tensor to the front, or back; both images and volumes are 4-D here."""
        return self.do("Transpose", value, perm=[0, 3, 1, 2] if first else [0, 2, 3, 1])


def kept(node: onnx.NodeProto, *without: str) -> Attributes:
    """The attributes that the plain operator has too."""
    names = [entry.name for entry in node.attribute if entry.name not in _OWN | set(without)]
    return {name: attribute(node, name) for name in names}  # type: ignore[misc]  # numbers, text and lists of these


def ranks_alike(node: onnx.NodeProto, context: Context, *positions: int) -> bool:
    """Whether the scales at these inputs are known to be of rank 0 or 1, as DequantizeLinear takes them."""
    return all(
        (context.rank(node.input[at]) or 0) <= 1 and context.rank(node.input[at]) is not None for at in positions
    )


def conv(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """The bias is stored at the scale of the input times that of the weights, without a zero point."""
    steps, last = Scaled(node, context), integer(node, "channels_last", 0)
    if not ranks_alike(node, context, 1, 4):
        return None
    x, w = steps.real(0), steps.real(3, axis=0)
    inputs = [steps.channels(x, first=True) if last else x, w]
    if steps.given(8):
        inputs.append(
            steps.dequantised(steps.given(8), _product(steps, context, node.input[1], node.input[4]), "", axis=0)
        )
    made = steps.like("Conv", inputs, kept(node))
    steps.quantise(steps.channels(made, first=False) if last else made, 6)
    return steps.nodes


def _product(steps: Scaled, context: Context, one: str, other: str) -> str:
    """The scale of a sum of products."""
    first, second = context.constants.get(one), context.constants.get(other)
    if first is None or second is None:
        return steps.do("Mul", one, other)
    made: Array = (first.astype(np.float32).reshape(-1) * second.astype(np.float32).reshape(-1)).reshape(
        () if second.size == 1 else -1
    )
    return steps.constant(made, "bias_scale")


def matmul(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Scales may be one a row of A, one a column of B; more axes of them are left alone."""
    if not ranks_alike(node, context, 1, 4):
        return None
    steps = Scaled(node, context)
    steps.quantise(steps.do("MatMul", steps.real(0, axis=-2), steps.real(3, axis=-1)), 6)
    return steps.nodes


def gemm(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """C is stored at alpha times both scales; without a scale the output is float."""
    if not ranks_alike(node, context, 1, 4):
        return None
    steps, alpha = Scaled(node, context), cast("float", attribute(node, "alpha", 1.0))
    turned, quantises = bool(integer(node, "transB", 0)), bool(steps.given(7))
    # Weights at a scale, beside float data, would be multiplied in steps by TFLite.
    weights = steps.real(3, axis=0 if turned else 1) if quantises else _computed(steps, turned=turned)
    inputs = [steps.real(0), weights]
    if steps.given(6):
        scale = _product(steps, context, node.input[1], node.input[4])
        if alpha != 1:
            scale = steps.do("Mul", scale, steps.scalar(alpha, "alpha"))
        inputs.append(steps.dequantised(steps.given(6), scale, "", axis=-1))
    made = steps.like("Gemm", inputs, kept(node), to="" if quantises else node.output[0])
    if quantises:
        steps.quantise(made, 7)
    return steps.nodes


def _computed(steps: Scaled, *, turned: bool) -> str:
    """The weights of a QGemm as plain numbers."""
    value, scale, zero = (steps.given(index) for index in (3, 4, 5))
    wide = steps.constant(np.array([-1, 1] if turned else [1, -1], np.int64), "shape")
    real = steps.cast(value, onnx.TensorProto.FLOAT)
    if zero:
        real = steps.do("Sub", real, steps.do("Reshape", steps.cast(zero, onnx.TensorProto.FLOAT), wide))
    return steps.do("Mul", real, steps.do("Reshape", scale, wide))


def binary(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """QLinearAdd, QLinearMul."""
    steps = Scaled(node, context)
    steps.quantise(steps.do(node.op_type.removeprefix("QLinear"), steps.real(0), steps.real(3)), 6)
    return steps.nodes


def unary(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """QLinearSigmoid, QLinearLeakyRelu."""
    steps = Scaled(node, context)
    steps.quantise(steps.like(node.op_type.removeprefix("QLinear"), [steps.real(0)], kept(node)), 3)
    return steps.nodes


def pool(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """QLinearAveragePool, QLinearGlobalAveragePool; channels may come last."""
    steps, last = Scaled(node, context), integer(node, "channels_last", 0)
    if last and context.rank(node.input[0]) != 4:
        return None
    x = steps.real(0)
    x = steps.channels(x, first=True) if last else x
    made = steps.like(node.op_type.removeprefix("QLinear"), [x], kept(node))
    steps.quantise(steps.channels(made, first=False) if last else made, 3)
    return steps.nodes


def softmax(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Before opset 13 all axes from `axis` on are one row."""
    steps, axis, rank = Scaled(node, context), integer(node, "axis", -1), context.rank(node.input[0])
    if rank is None or (integer(node, "opset", 13) < 13 and axis % rank != rank - 1):
        return None
    steps.quantise(steps.do("Softmax", steps.real(0), axis=axis), 3)
    return steps.nodes


def concat(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """The output's scale comes first, then each tensor with its own."""
    steps = Scaled(node, context)
    parts = [steps.real(index) for index in range(2, len(node.input), 3)]
    steps.quantise(steps.do("Concat", *parts, axis=integer(node, "axis", 0)), 0)
    return steps.nodes


def where(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    steps = Scaled(node, context)
    steps.quantise(steps.do("Where", node.input[0], steps.real(1), steps.real(4)), 7)
    return steps.nodes


def reduce_mean(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    axes = attribute(node, "axes")
    steps = Scaled(node, context)
    chosen = [] if axes is None else [steps.axes(*axes)]  # type: ignore[misc]  # a list of integers
    steps.quantise(steps.do("ReduceMean", steps.real(0), *chosen, keepdims=integer(node, "keepdims", 1)), 3)
    return steps.nodes


def plain(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """QuantizeLinear and DequantizeLinear of com.microsoft, of the types that ONNX's have in opset 20."""
    kinds = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32}
    typed = node.input[0] if node.op_type == "DequantizeLinear" else (*node.input, "", "")[2]
    known = context.types.get(typed)
    if known is None or known.elem_type not in kinds:
        return None
    made = changed(node)
    made.domain = ""
    return [made]
