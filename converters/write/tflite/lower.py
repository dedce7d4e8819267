"""From a canonical graph, float or quantised, to a program: each node by the table's row for it.

A node is an int8 unit where its row says that the kernel takes int8, everything that it reads is dequantised, and
everything that it writes is quantised at once, unless the plan marked it as float; a bias Add and an activation between
count as part of it. Any other node computes in float, and what it reads is dequantised for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from converters.quantize.encoding import SHIFT
from converters.quantize.tflite import STAYS_FLOAT
from converters.tflite.model import Quantization
from converters.write.tflite import ops  # noqa: F401 - fills the table
from converters.write.tflite.activation import bounds_of, emit_clip
from converters.write.tflite.lowering import CannotLowerError, Lowering
from converters.write.tflite.program import Program, Reshaped, Step, Together, Value
from converters.write.tflite.scales import (
    DEQUANTIZE,
    QUANTIZE,
    is_constant,
    quantised_constant,
    real_constant,
    scales_of,
    steps_type,
)
from converters.write.tflite.table import Entry, find
from converters.write.tflite.units import activation_behind, product_with_bias, read_by, written_scales
from converters.write.tflite.values import activation, constant
from lepton_edge.errors import UnsupportedOperatorError


@dataclass
class Problems:
    """Nodes that TFLite cannot say, all of them."""

    found: list[str] = field(default_factory=list)
    operators: list[str] = field(default_factory=list)

    def add(self, node: ir.Node, reason: str) -> None:
        domain = f"{node.domain}." if node.domain not in {"", "ai.onnx"} else ""
        self.operators.append(node.op_type)
        self.found.append(f"{domain}{node.op_type} (node {node.name!r}): {reason}")


def lower(model: ir.Model, *, where: str) -> Program:
    """Lower a graph.

    Args:
        model: canonical; QuantizeLinear and DequantizeLinear around what is int8.
        where: how messages name it.

    Raises:
        UnsupportedOperatorError: lists every node that TFLite cannot say, each with the reason.
    """
    problems = Problems()
    made = GraphLowering(model.graph, model.graph.opset_imports.get("", 0), problems)
    program = made.run()
    if problems.found:
        raise UnsupportedOperatorError(
            f"{where}: no TFLite for {len(problems.found)} node(s): " + "; ".join(problems.found),
            operator=next(iter(problems.operators), ""),
        )
    return program


class GraphLowering:
    """One graph: the main one, or a body of control flow with what it captures from outside."""

    def __init__(self, graph: ir.Graph, opset: int, problems: Problems, outer: "GraphLowering | None" = None) -> None:
        self.captured: dict[ir.Value, Value] = {}
        self._graph = graph
        self._opset = opset
        self._problems = problems
        self._outer = outer
        self._program = Program(graph.name or "main")
        self._values: dict[ir.Value, Value] = {}
        self._steps: dict[ir.Value, Value] = {}
        self._dequantised: dict[ir.Value, ir.Node] = {}
        self._done: set[ir.Node] = set()

    def run(self) -> Program:
        """Lower all nodes; those that cannot be are told to the problems."""
        try:
            self._program.inputs = [self._enter(value) for value in self._graph.inputs]
        except CannotLowerError as cause:
            self._problems.found.append(f"the graph's inputs: {cause}")
            return self._program
        for node in self._graph:
            if node not in self._done:
                self._node(node)
        if not self._problems.found:
            self._program.outputs = [self._result(value) for value in self._graph.outputs]
            self._program.inputs += self.captured.values()
        return self._program

    def _enter(self, value: ir.Value) -> Value:
        made = self._values[value] = activation(value)
        return made

    def _result(self, value: ir.Value) -> Value:
        made = self._real(value)
        # The border has the graph's name for it, whatever stands behind it.
        return made if made.name == value.name else _named(made, value.name or "", self._program)

    def _node(self, node: ir.Node) -> None:
        try:
            if node.op_type == DEQUANTIZE and node.domain in {"", "ai.onnx"}:
                self._dequantised[node.outputs[0]] = node
                scales_of(node)
            elif node.op_type == QUANTIZE and node.domain in {"", "ai.onnx"}:
                self._quantise(node)
            else:
                self._operator(node)
        except CannotLowerError as cause:
            self._problems.add(node, str(cause))
            for value in node.outputs:
                self._give_up(value)

    def _give_up(self, value: ir.Value) -> None:
        """Stand-in for what could not be lowered, so that the nodes behind it can be looked at."""
        try:
            self._values[value] = activation(value)
        except CannotLowerError:
            self._values[value] = Value(value.name or "", (), "float32")

    def _operator(self, node: ir.Node) -> None:
        if self._is_no_change(node):
            self._values[node.outputs[0]] = self._real(node.inputs[0])  # type: ignore[arg-type]  # Cast has an input
            return
        entry = find(node.op_type, self._opset) if node.domain in {"", "ai.onnx"} else None
        if entry is None:
            raise CannotLowerError("TFLite has no such operator")
        if entry.int8 and self._as_int8(node, entry):
            return
        chain = product_with_bias(node)
        outputs = [activation(value) if value.name else None for value in chain[-1].outputs]
        inputs = [None if value is None else self._operand(value, entry) for value in read_by(chain)]
        bodies = self._bodies(node)
        low = Lowering(node, inputs, outputs, self._program, {name: one.run() for name, one in bodies.items()})
        low.captures = {name: [self._real(value) for value in one.captured] for name, one in bodies.items()}
        entry.lower(low)
        self._finish(chain, outputs)

    @staticmethod
    def _is_no_change(node: ir.Node) -> bool:
        """Whether a Cast is between types that are one in the file: float16, float32 and float64."""
        floats = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}
        ends = [node.inputs[0], node.outputs[0]] if node.op_type == "Cast" else []
        return bool(ends) and all(value is not None and value.dtype in floats for value in ends)

    def _operand(self, value: ir.Value, entry: Entry) -> Value:
        made = self._real(value)
        if made.stored is not None and not entry.hybrid:
            return self._unpacked(value, made)
        return made

    def _unpacked(self, value: ir.Value, made: Value) -> Value:
        """A constant that is kept small in the file, for a kernel that wants it in float32."""
        stored = made.stored
        if stored is None or (stored.quantization is not None and stored.quantization.per_channel):
            return made
        if stored.dtype == "int32":  # a bias: DEQUANTIZE takes no such steps
            return made
        plain = Value(made.name, made.shape, "float32")
        self._program.steps.append(Step("DEQUANTIZE", [stored], [plain], rule=Together(), node=made.name))
        self._values[value] = plain
        return plain

    def _finish(self, chain: Sequence[ir.Node], outputs: Sequence[Value | None]) -> None:
        self._done.update(chain)
        for value, made in zip(chain[-1].outputs, outputs, strict=True):
            if made is not None:
                self._values[value] = made

    def _bodies(self, node: ir.Node) -> Mapping[str, "GraphLowering"]:
        return {
            name: GraphLowering(attribute.as_graph(), self._opset, self._problems, self)
            for name, attribute in node.attributes.items()
            if attribute.type == ir.AttributeType.GRAPH
        }

    # int8 units

    def _as_int8(self, node: ir.Node, entry: Entry) -> bool:
        """Lower a node as an int8 unit; False, with nothing done, where it is none."""
        chain = product_with_bias(node)
        act = None if entry.moves else activation_behind(chain[-1])
        written = [*chain, act] if act is not None else chain
        scales = [written_scales(value) for value in written[-1].outputs]
        reads = read_by(chain)
        data = [value for index, value in enumerate(reads) if value is not None and index not in entry.parameters]
        if any(STAYS_FLOAT in one.metadata_props for one in chain):
            return False
        if None in scales or not all(self._is_int8(value) for value in data):
            return False
        if not any(value in self._dequantised for value in data):
            return False
        try:
            self._int8_steps(chain, entry, [one for one in scales if one is not None], act)
        except CannotLowerError:
            # Nobody reads what was emitted so far, and so it goes with the other dead steps.
            return False
        self._done.update(written)
        return True

    def _int8_steps(
        self, chain: Sequence[ir.Node], entry: Entry, scales: Sequence[Quantization], act: ir.Node | None
    ) -> None:
        last = act or chain[-1]
        inputs = [None if value is None else self._int8_operand(value) for value in read_by(chain)]
        results = [self._int8_result(value, one) for value, one in zip(last.outputs, scales, strict=True)]
        outputs = results
        if entry.moves:
            inputs, outputs = self._of_one_scale(inputs, results)
        elif act is not None:
            outputs = [Value(f"{one.name}_before", one.shape, one.dtype, one.quantization) for one in results]
        low = Lowering(chain[0], inputs, outputs, self._program)
        entry.lower(low)
        bounds = None if act is None else bounds_of(act)
        for source, target in zip(outputs, results, strict=True):
            if source is target:
                continue
            if bounds is not None:
                emit_clip(low, source, target, bounds)
            else:
                self._requantise(source, target)
        for value, made in zip(last.outputs, results, strict=True):
            for use in value.uses():
                self._steps[use.node.outputs[0]] = made

    def _of_one_scale(
        self, inputs: Sequence[Value | None], results: Sequence[Value]
    ) -> tuple[list[Value | None], list[Value]]:
        """For an operator that only moves values: one input's scale goes on to the outputs; several take theirs."""
        goal = results[0].quantization
        data = [one for one in inputs if one is not None and one.quantization is not None]
        if len(data) == 1:
            scales = data[0].quantization
            if scales is not None and all(scales.same(one.quantization) for one in results):
                return list(inputs), list(results)
            return list(inputs), [Value(f"{one.name}_moved", one.shape, one.dtype, scales) for one in results]
        made: list[Value | None] = []
        for one in inputs:
            if one is None or one.quantization is None or one.quantization.same(goal):
                made.append(one)
            else:
                made.append(Value(f"{one.name}_rescaled", one.shape, one.dtype, goal))
                self._requantise(one, made[-1])
        return made, list(results)

    def _requantise(self, source: Value, target: Value | None) -> None:
        if target is not None:
            self._program.steps.append(Step("QUANTIZE", [source], [target], rule=Together(), node=target.name))

    def _is_int8(self, value: ir.Value) -> bool:
        """Whether an operand is int8, or no data that a scale belongs to (shapes, axes)."""
        return value in self._dequantised or (is_constant(value) and value.dtype != ir.DataType.FLOAT)

    def _int8_operand(self, value: ir.Value) -> Value:
        node = self._dequantised.get(value)
        return self._real(value) if node is None else self._steps_read(node)

    def _int8_result(self, value: ir.Value, scales: Quantization) -> Value:
        quantiser = next(iter(value.uses())).node
        made = activation(value)
        return Value(quantiser.outputs[0].name or made.name, made.shape, "int8", scales)

    # what quantises and dequantises

    def _steps_read(self, node: ir.Node) -> Value:
        """The steps that a DequantizeLinear reads, with its scales."""
        steps = node.inputs[0]
        if steps is None:
            raise CannotLowerError("it reads nothing")
        if steps not in self._steps:
            self._steps[steps] = self._new_steps(node, steps)
        made = self._steps[steps]
        if made.quantization is None or not made.quantization.same(scales_of(node)):
            raise CannotLowerError("its scale is not the one that its input was quantised with")
        return made

    def _new_steps(self, node: ir.Node, steps: ir.Value) -> Value:
        if is_constant(steps):
            return quantised_constant(node, steps.name or "")
        fed = self._real(steps)
        scales = scales_of(node)
        if fed.dtype == "uint8":
            fed.quantization = Quantization(scales.scale, scales.zero_point + SHIFT, scales.axis)
            signed = Value(f"{fed.name}_signed", fed.shape, "int8", scales)
            self._program.steps.append(Step("QUANTIZE", [fed], [signed], rule=Together(), node=signed.name))
            return signed
        if fed.quantization is None:
            fed.quantization = scales
        return fed

    def _quantise(self, node: ir.Node) -> None:
        result, source = node.outputs[0], node.inputs[0]
        if result in self._steps or source is None:
            return
        scales = scales_of(node)
        if scales.per_channel:
            raise CannotLowerError("TFLite quantises activations with one scale")
        before = self._dequantised.get(source)
        read = self._real(source) if before is None else self._steps_read(before)
        if scales.same(read.quantization):
            self._steps[result] = read
            return
        made = Value(
            result.name or "", read.shape, "int16" if steps_type(node) == ir.DataType.INT16 else "int8", scales
        )
        self._requantise(read, made)
        self._steps[result] = made

    def _real(self, value: ir.Value) -> Value:
        """A tensor as its readers outside of int8 units see it."""
        if value in self._values:
            return self._values[value]
        if value in self._steps:
            made = self._as_declared(value, self._steps[value])
        elif value in self._dequantised:
            made = self._dequantise(value)
        elif is_constant(value):
            made = constant(value)
        elif self._outer is not None:
            made = self._capture(value)
        else:
            raise CannotLowerError(f"nothing writes {value.name!r}")
        self._values[value] = made
        return made

    def _as_declared(self, value: ir.Value, steps: Value) -> Value:
        """Steps that the graph has in U8, for those who read them as plain numbers."""
        scales = steps.quantization
        if value.dtype != ir.DataType.UINT8 or steps.dtype != "int8" or scales is None:
            return steps
        shifted = Quantization(scales.scale, scales.zero_point + SHIFT, scales.axis)
        made = Value(value.name or "", steps.shape, "uint8", shifted)
        self._requantise(steps, made)
        return made

    def _dequantise(self, value: ir.Value) -> Value:
        stored = self._steps_read(self._dequantised[value])
        if stored.constant:
            return real_constant(stored, value.name or "")
        made = Value(value.name or "", stored.shape, "float32")
        self._program.steps.append(Step("DEQUANTIZE", [stored], [made], rule=Together(), node=made.name))
        return made

    def _capture(self, value: ir.Value) -> Value:
        """Something from outside of a body: an input of the body, constants apart."""
        outer = self._outer
        if outer is None:
            raise AssertionError("nothing is outside of the main graph")
        seen = outer._real(value)  # noqa: SLF001 - the same class
        if seen.constant:
            return seen
        self.captured[value] = Value(seen.name, seen.shape, seen.dtype, seen.quantization)
        return self.captured[value]


def _named(value: Value, name: str, program: Program) -> Value:
    """The same tensor under another name, for an output that something else stands for already."""
    made = Value(name, value.shape, value.dtype, value.quantization)
    if value.constant:
        return Value(name, value.shape, value.dtype, value.quantization, value.data)
    program.steps.append(Step("RESHAPE", [value], [made], rule=Reshaped(), node=name))
    return made
