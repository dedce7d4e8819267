"""A plan written into the graph: QuantizeLinear and DequantizeLinear around what is int8, integer constants inside.

What runtimes turn into an integer kernel is an operator between DequantizeLinear and QuantizeLinear. Three points are
ours: an activation needs no operator where the output's steps end at its bounds anyway; elsewhere, and for the hard
sigmoid and hard swish, it is a Clip of the steps themselves; and a linear operator whose readers are all float gives
float at once, where the profile says that its kernel can.
"""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.quantize.constraints import ACTIVATIONS
from converters.quantize.cost import kind
from converters.quantize.encoding import SHIFT, STEPS, Encoding
from converters.quantize.encodings import hard_sigmoid_encoding
from converters.quantize.plan import Plan
from converters.quantize.units import Unit, clip_bounds, constant
from converters.quantize.weights import quantize_activation, quantize_bias, quantize_weights

Array = npt.NDArray[np.generic]


def write_qdq(model: ir.Model, plan: Plan) -> ir.Model:
    """Give a copy of the canonical graph in which the plan's units are int8; equal plans give equal graphs."""
    copy = model.clone()
    _Emitter(copy.graph, plan).run()
    return copy


class _Emitter:
    """Works on the copy; the plan's units are of the original, and names are the same in both."""

    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self._graph = graph
        self._plan = plan
        self._nodes = {node.name: node for node in graph}
        self._values = {value.name: value for value in graph.inputs}
        self._values |= {value.name: value for node in graph for value in node.outputs}
        self._names = {*self._values, *graph.initializers, *self._nodes}
        self._made = [plan.units[index] for index in sorted(plan.int8)]
        self._writers = {value.name or "": unit for unit in self._made for value in unit.outputs}
        self._steps: dict[str, ir.Value] = {}

    def run(self) -> None:
        readers = self._readers()
        for unit in self._made:
            self._constants(unit)
        for name in dict.fromkeys([*readers, *self._writers]):
            self._quantise(name, readers.get(name, []))
        for unit in self._made:
            self._clip_steps(unit)
        for unit in self._made:
            self._drop_activation(unit)

    def _readers(self) -> dict[str, list[tuple[ir.Node, int]]]:
        """Tensor -> the places where an int8 unit reads it."""
        found: dict[str, list[tuple[ir.Node, int]]] = {}
        for unit in self._made:
            node = self._nodes[unit.name]
            wanted = {value.name for value in unit.data}
            for index, value in enumerate(node.inputs):
                if value is not None and value.name in wanted and constant(value) is None:
                    found.setdefault(value.name or "", []).append((node, index))
        return found

    # constants

    def _constants(self, unit: Unit) -> None:
        node, rule = self._nodes[unit.name], unit.rule
        if rule is None:
            return
        for index, value in enumerate(node.inputs):
            tensor = constant(value)
            if value is not None and tensor is not None and value.name in {one.name for one in unit.data}:
                encoding = self._plan.encodings.tensors[value.name or ""]
                steps = self._signed(quantize_activation(tensor.numpy(), encoding), self._plan.profile.activations)
                node.replace_input_with(index, self._dequantise_constant(f"{unit.name}_{value.name}", steps, encoding))
        if rule.weight is not None and unit.weight is not None:
            self._weights(unit, node, rule.weight, rule.axis)

    def _weights(self, unit: Unit, node: ir.Node, position: int, axis: int) -> None:
        source = self._plan.encodings.tensors[unit.data[0].name or ""]
        tensor, bias_tensor = constant(unit.weight), constant(unit.bias)
        if tensor is None:
            return
        bias = None if bias_tensor is None else bias_tensor.numpy()
        steps, scale = quantize_weights(tensor.numpy(), axis=axis, input_scale=source.scale, bias=bias)
        unsigned = self._plan.profile.weights == "U8"
        data = (steps.astype(np.int16) + SHIFT).astype(np.uint8) if unsigned else steps
        zero = np.full(scale.shape, SHIFT, np.uint8) if unsigned else np.zeros(scale.shape, np.int8)
        name = f"{unit.name}_weight"
        node.replace_input_with(position, self._dequantise_array(name, data, scale, zero, axis=axis))
        if bias is not None and unit.bias is not None:
            total = (scale.astype(np.float64) * source.scale).astype(np.float32)
            made = self._dequantise_array(f"{unit.name}_bias", quantize_bias(bias, total), total, None, axis=0)
            holder = self._nodes[unit.nodes[1].name] if unit.operator == "MatMul" else node
            index = next(
                i for i, value in enumerate(holder.inputs) if value is not None and value.name == unit.bias.name
            )
            holder.replace_input_with(index, made)

    # activations

    def _quantise(self, name: str, readers: list[tuple[ir.Node, int]]) -> None:
        """Give a tensor its int8 form where somebody needs it."""
        value, writer = self._values[name], self._writers.get(name)
        if writer is not None and not readers and kind(writer) in self._plan.profile.float_outputs:
            return
        encoding = self._plan.encodings.tensors[name]
        everybody = list(value.uses()) if writer is not None else None
        steps = self._node("QuantizeLinear", [value, *self._ends(name, encoding)], f"{name}_quantized", after=value)
        steps.dtype = self._type(self._plan.profile.activations)
        steps.shape = value.shape
        if writer is not None and writer.activation is not None:
            steps = self._clip_to(steps, *clip_bounds(writer.activation), name, encoding)
        self._steps[name] = steps
        real = self._dequantise(name, steps, encoding)
        if everybody is None:
            for node, index in readers:
                node.replace_input_with(index, real)
            return
        for node, index in everybody:
            node.replace_input_with(index, real)
        self._become_output(value, real)

    def _dequantise(self, name: str, steps: ir.Value, encoding: Encoding) -> ir.Value:
        real = self._node("DequantizeLinear", [steps, *self._ends(name, encoding)], f"{name}_dequantized", after=steps)
        real.dtype, real.shape = ir.DataType.FLOAT, steps.shape
        return real

    def _become_output(self, value: ir.Value, real: ir.Value) -> None:
        """Where `value` was an output of the graph, `real` takes its place and its name."""
        for index, output in enumerate(self._graph.outputs):
            if output is value:
                self._graph.outputs[index] = real
                value.name, real.name = self._fresh(f"{value.name}_unquantized"), value.name

    def _clip_to(self, steps: ir.Value, low: float, high: float, name: str, encoding: Encoding) -> ir.Value:
        """Clip steps to those of low..high; `steps` itself where no step lies outside."""
        if encoding.within(low, high):
            return steps
        bounds = [0 if low == -np.inf else _step(low, encoding), STEPS if high == np.inf else _step(high, encoding)]
        sign = self._plan.profile.activations
        made = [self._initialiser(f"{name}_clip", self._signed(np.uint8(bound), sign)) for bound in bounds]
        clipped = self._node("Clip", [steps, *made], f"{name}_clipped", after=steps)
        _like(clipped, steps)
        return clipped

    def _drop_activation(self, unit: Unit) -> None:
        """The steps end at the activation's bounds now, so its operator goes: unless the unit gives float."""
        if unit.activation is None or (unit.outputs[0].name or "") not in self._steps:
            return
        node = self._nodes[unit.activation.name]
        source = node.inputs[0]
        if source is None:
            return
        for user, index in list(node.outputs[0].uses()):
            user.replace_input_with(index, source)
        self._graph.remove(node, safe=True)

    # operators that are a Clip of steps

    def _clip_steps(self, unit: Unit) -> None:
        write = _BY_CLIP.get(unit.operator)
        if write is not None:
            write(self, unit)

    def hard_sigmoid(self, unit: Unit) -> None:
        """Its output is the clipped steps of its input, read with the output's own encoding."""
        self._replace_steps(unit, self._gate(unit))

    def hard_swish(self, unit: Unit) -> None:
        """X * gate(x), the gate as above (Howard et al., "Searching for MobileNetV3", 2019)."""
        source = unit.data[0].name or ""
        encoding = hard_sigmoid_encoding(unit.nodes[0], self._plan.encodings.tensors[source])
        node = self._nodes[unit.name]
        x = node.inputs[0]
        if encoding is None or x is None:
            raise AssertionError(f"{unit.name}: planned without a gate")
        gate = self._dequantise(f"{unit.name}_gate", self._gate(unit), encoding)
        product = ir.node("Mul", [x, gate], name=self._fresh(f"{unit.name}_product"))
        node.prepend(product)
        self._move_output(node, product)

    def clip(self, unit: Unit) -> None:
        """A Relu or Clip on its own: input and output share one encoding."""
        source = unit.data[0].name or ""
        encoding = self._plan.encodings.tensors[source]
        self._replace_steps(unit, self._clip_to(self._steps[source], *clip_bounds(unit.nodes[0]), unit.name, encoding))

    def _gate(self, unit: Unit) -> ir.Value:
        source = unit.data[0].name or ""
        read = hard_sigmoid_encoding(unit.nodes[0], self._plan.encodings.tensors[source])
        if read is None:
            raise AssertionError(f"{unit.name}: planned without a gate")
        return self._clip_to(self._steps[source], 0.0, 1.0, f"{unit.name}_gate", read)

    def _replace_steps(self, unit: Unit, steps: ir.Value) -> None:
        """Let `steps` stand where the unit's output was quantised, and take the unit's operator away."""
        name = unit.outputs[0].name or ""
        quantised = self._steps[name]
        for user, index in list(quantised.uses()):
            user.replace_input_with(index, steps)
        self._steps[name] = steps
        node = self._nodes[unit.name]
        maker = quantised.producer()
        if maker is None:
            raise AssertionError(f"{name} was never quantised")
        self._graph.remove([maker, node], safe=True)

    def _move_output(self, node: ir.Node, product: ir.Node) -> None:
        old, new = node.outputs[0], product.outputs[0]
        _like(new, old)
        for user, index in list(old.uses()):
            user.replace_input_with(index, new)
        self._graph.remove(node, safe=True)
        old_name = old.name
        new.name = old_name

    # building blocks

    def _dequantise_constant(self, name: str, steps: Array, encoding: Encoding) -> ir.Value:
        zero = self._signed(np.uint8(encoding.zero_point), self._plan.profile.activations)
        return self._dequantise_array(name, steps, np.float32(encoding.scale), zero, axis=None)

    def _dequantise_array(
        self, name: str, steps: Array, scale: npt.ArrayLike, zero: Array | None, *, axis: int | None
    ) -> ir.Value:
        ends = [self._initialiser(f"{name}_quantized", steps), self._initialiser(f"{name}_scale", np.asarray(scale))]
        ends += [] if zero is None else [self._initialiser(f"{name}_zero_point", zero)]
        real = self._node("DequantizeLinear", ends, f"{name}_dequantized", after=None, axis=axis)
        real.dtype = ir.DataType.FLOAT
        return real

    def _ends(self, name: str, encoding: Encoding) -> list[ir.Value]:
        """Scale and zero point of a tensor, made once."""
        known = self._graph.initializers.get(f"{name}_scale_of_steps")
        if known is not None:
            return [known, self._graph.initializers[f"{name}_zero_of_steps"]]
        zero = self._signed(np.uint8(encoding.zero_point), self._plan.profile.activations)
        return [
            self._initialiser(f"{name}_scale_of_steps", np.float32(encoding.scale), exact=True),
            self._initialiser(f"{name}_zero_of_steps", zero, exact=True),
        ]

    def _initialiser(self, name: str, array: npt.ArrayLike, *, exact: bool = False) -> ir.Value:
        name = name if exact else self._fresh(name)
        tensor = ir.tensor(np.asarray(array), name=name)
        value = ir.Value(
            name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
        )
        self._graph.register_initializer(value)
        self._names.add(name)
        return value

    def _node(
        self, operator: str, inputs: Iterable[ir.Value], output: str, *, after: ir.Value | None, axis: int | None = None
    ) -> ir.Value:
        """A node right behind the one that makes `after`; at the graph's start where nobody does."""
        attributes = {} if axis is None else {"axis": axis}
        node = ir.node(operator, list(inputs), attributes=attributes, name=self._fresh(f"{output}_node"))
        node.outputs[0].name = self._fresh(output)
        maker = after.producer() if after is not None else None
        if maker is not None:
            maker.append(node)
        else:
            self._graph[0].prepend(node)
        return node.outputs[0]

    def _fresh(self, name: str) -> str:
        made, count = name, 0
        while made in self._names:
            count += 1
            made = f"{name}_{count}"
        self._names.add(made)
        return made

    def _signed(self, steps: npt.ArrayLike, sign: str) -> Array:
        array = np.asarray(steps)
        return array if sign == "U8" else (array.astype(np.int16) - SHIFT).astype(np.int8)

    @staticmethod
    def _type(sign: str) -> ir.DataType:
        return ir.DataType.UINT8 if sign == "U8" else ir.DataType.INT8


_BY_CLIP: dict[str, Callable[[_Emitter, Unit], None]] = {
    "HardSigmoid": _Emitter.hard_sigmoid,
    "HardSwish": _Emitter.hard_swish,
    **dict.fromkeys(ACTIVATIONS, _Emitter.clip),
}


def _like(value: ir.Value, other: ir.Value) -> None:
    value.type, value.shape = other.type, other.shape


def _step(number: float, encoding: Encoding) -> int:
    return int(np.clip(np.rint(number / encoding.scale) + encoding.zero_point, 0, STEPS))
