"""A plan written into the graph: QuantizeLinear and DequantizeLinear around what is int8, integer constants inside.

What runtimes turn into an integer kernel is an operator between DequantizeLinear and QuantizeLinear. Two points are
ours: an activation needs no operator where the output's steps end at its bounds anyway; and a linear operator whose
readers are all float gives float at once, where the profile says that its kernel can. Operators that have an int8 form
only in other words are in `rewriting`.
"""

import onnx_ir as ir

from converters.graph.canonical.edit import attribute_int
from converters.quantize.cost import is_view, kind
from converters.quantize.encoding import Encoding
from converters.quantize.integers import Integers
from converters.quantize.plan import Plan
from converters.quantize.rewriting import REWRITINGS, Rewriting, Site
from converters.quantize.tflite import STAYS_FLOAT, carries, saturating
from converters.quantize.units import Unit, clip_bounds, constant
from converters.quantize.weights import Known


def write_qdq(model: ir.Model, plan: Plan, known: Known | None = None) -> ir.Model:
    """Give a copy of the canonical graph in which the plan's units are int8; equal plans give equal graphs.

    Args:
        model: the canonical graph; it is not changed.
        plan: of that graph.
        known: what plans of the same graph have in common; steps that are found now are added.
    """
    copy = model.clone()
    writer = _Writer(copy.graph, plan, known or Known())
    writer.run()
    return copy


_TAKEN_FOR_INT8 = {"Conv", "ConvTranspose", "Gemm"}


def _channels_read(node: ir.Node) -> int | None:
    """The size of axis 1 of what a linear operator with constant weights reads; None where it has others."""
    weight = constant(node.inputs[1])
    if weight is None or attribute_int(node, "transA", 0):
        return None
    sizes: tuple[int, ...] = weight.numpy().shape
    if node.op_type == "Conv":
        return sizes[1] * attribute_int(node, "group", 1)
    return sizes[attribute_int(node, "transB", 0)]


class _Writer:
    """Works on the copy; the plan's units are of the original, and names are the same in both."""

    def __init__(self, graph: ir.Graph, plan: Plan, known: Known) -> None:
        self._graph = graph
        self._plan = plan
        self._nodes = {node.name or "": node for node in graph}
        self._values = {value.name or "": value for value in graph.inputs}
        self._values |= {value.name or "": value for node in graph for value in node.outputs}
        self._made = [plan.units[index] for index in sorted(plan.int8)]
        self._writers = {value.name or "": unit for unit in self._made for value in unit.outputs}
        self._integers = Integers(graph, plan.profile, known)
        self._means = known.means
        self._steps: dict[str, ir.Value] = {}

    def run(self) -> None:
        readers = self._readers()
        for unit in self._made:
            self._constants(unit)
        for name in dict.fromkeys([*readers, *self._writers]):
            self._quantise(name, readers.get(name, []))
        for unit in self._made:
            rewriting = self._rewriting(unit)
            if rewriting:
                rewriting.write(self._site(unit))
            elif self._explicit:
                self._equal_scales(unit)
            self._drop_activation(unit)
        if self._explicit:
            self._mark_float()
        else:
            self._part_float()
        self._integers.names.drop_unused()

    def _mark_float(self) -> None:
        """Tell the writer what is float by choice: between int8 units it would look as if it were one."""
        for index, unit in enumerate(self._plan.units):
            if index not in self._plan.int8 and not is_view(unit):
                for node in unit.nodes:
                    self._nodes[node.name or ""].metadata_props[STAYS_FLOAT] = "true"

    def _part_float(self) -> None:
        """Keep what is float by choice out of ONNX Runtime's hands.

        Since 1.21 its WeightBiasQuantization takes a float Conv, ConvTranspose or Gemm between DequantizeLinear and
        QuantizeLinear for one whose weights were forgotten, and quantises them with one scale for all channels.
        """
        for index, unit in enumerate(self._plan.units):
            if index in self._plan.int8 or unit.operator not in _TAKEN_FOR_INT8:
                continue
            read, channels = unit.nodes[0].inputs[0], _channels_read(unit.nodes[0])
            name = "" if read is None else read.name or ""
            if name in self._steps and name in self._writers and channels:
                real = self._integers.dequantise_by_channel(
                    self._steps[name], name, self._encoding(name), channels=channels
                )
                self._nodes[unit.name].replace_input_with(0, real)

    @property
    def _explicit(self) -> bool:
        """Whether each operator must be asked for each change of scale."""
        return self._plan.profile.format == "tflite"

    def _rewriting(self, unit: Unit) -> Rewriting | None:
        return REWRITINGS.get((unit.operator, self._plan.profile.rewritings.get(unit.operator, "")))

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

    def _encoding(self, name: str | None) -> Encoding:
        return self._plan.encodings.tensors[name or ""]

    def _constants(self, unit: Unit) -> None:
        node = self._nodes[unit.name]
        wanted = {value.name for value in unit.data}
        for index, value in enumerate(node.inputs):
            tensor = constant(value)
            if value is not None and tensor is not None and value.name in wanted:
                name = f"{unit.name}_{value.name}"
                moved = self._explicit and unit.rule is not None and unit.rule.same_scale
                encoding = self._encoding(unit.outputs[0].name if moved else value.name)
                made = self._integers.constant(tensor.numpy(), name, encoding)
                node.replace_input_with(index, made)
        weight = constant(unit.weight)
        if unit.rule is not None and unit.rule.weight is not None and weight is not None:
            self._weights(unit, node, unit.rule.weight, weight)

    def _weights(self, unit: Unit, node: ir.Node, position: int, weight: ir.TensorProtocol) -> None:
        bias = constant(unit.bias)
        axis = 0 if unit.rule is None else unit.rule.axis
        held = None if bias is None else bias.numpy()
        read = unit.data[0].name or ""
        made, made_bias = self._integers.weights(
            weight.numpy(),
            held,
            unit.name,
            self._encoding(read),
            axis=axis,
            mean=self._means.get(unit.name),
        )
        node.replace_input_with(position, made)
        if made_bias is not None and unit.bias is not None:
            holder = self._nodes[unit.nodes[1].name or ""] if unit.operator == "MatMul" else node
            names = [value.name if value is not None else "" for value in holder.inputs]
            holder.replace_input_with(names.index(unit.bias.name or ""), made_bias)

    def _quantise(self, name: str, readers: list[tuple[ir.Node, int]]) -> None:
        """Give a tensor its int8 form where somebody needs it."""
        value, writer, encoding = self._values[name], self._writers.get(name), self._encoding(name)
        if writer is not None and not readers and kind(writer) in self._plan.profile.float_outputs:
            return
        places = readers if writer is None else [(use.node, use.idx) for use in value.uses()]
        written = self._written(value, name, writer) if writer is not None and self._explicit else value
        steps = self._integers.quantise(written, name, encoding)
        if writer is not None and writer.activation is not None and not self._explicit:
            steps = self._integers.clip(steps, *clip_bounds(writer.activation), name, encoding)
        self._steps[name] = steps
        real = self._integers.dequantise(steps, name, encoding)
        for node, index in places:
            node.replace_input_with(index, real)
        if writer is not None:
            self._become_output(value, real)

    def _written(self, value: ir.Value, name: str, writer: Unit) -> ir.Value:
        """What an operator computes, by way of the steps that it cannot do without."""
        encoding = self._encoding(name)
        if writer.rule is not None and writer.rule.fixed not in {None, encoding}:
            return self._by_way_of(value, f"{name}_fixed", writer.rule.fixed)
        if writer.activation is not None and not self._keeps_activation(writer):
            bounds = clip_bounds(writer.activation)
            if not encoding.within(*bounds):
                return self._by_way_of(value, f"{name}_clipped", saturating(encoding, bounds))
        return value

    def _by_way_of(self, value: ir.Value, name: str, encoding: Encoding) -> ir.Value:
        return self._integers.once(self._integers.requantise(value, name, encoding), name)

    def _keeps_activation(self, unit: Unit) -> bool:
        """Whether the activation is a field of the operator: needed where the steps do not end at its bounds."""
        if unit.activation is None or not self._explicit:
            return False
        bounds = clip_bounds(unit.activation)
        return carries(unit.operator, bounds) and not self._encoding(unit.outputs[0].name).within(*bounds)

    def _equal_scales(self, unit: Unit) -> None:
        """Requantise what an operator that only moves values reads in another scale than it writes."""
        if unit.rule is None or not unit.rule.same_scale:
            return
        node, wanted = self._nodes[unit.name], self._encoding(unit.outputs[0].name)
        for index, value in enumerate(unit.data):
            source = node.inputs[index]
            if source is not None and constant(value) is None and self._encoding(value.name) != wanted:
                name = f"{unit.name}_{value.name}"
                changed = self._integers.requantise(self._integers.once(source, name), name, wanted)
                node.replace_input_with(index, changed)

    def _become_output(self, value: ir.Value, real: ir.Value) -> None:
        """Where `value` was an output of the graph, `real` takes its place and its name."""
        for index, output in enumerate(self._graph.outputs):
            if output is value:
                self._graph.outputs[index] = real
                value.name, real.name = self._integers.names.free(f"{value.name}_unquantized"), value.name

    def _drop_activation(self, unit: Unit) -> None:
        """The steps end at the activation's bounds now, so its operator goes: unless the unit gives float."""
        if unit.activation is None or (unit.outputs[0].name or "") not in self._steps or self._keeps_activation(unit):
            return
        node = self._nodes[unit.activation.name or ""]
        source = node.inputs[0]
        if source is not None:
            node.outputs[0].replace_all_uses_with(source)
            self._graph.remove(node, safe=True)

    def _site(self, unit: Unit) -> Site:
        source, result = unit.data[0].name or "", unit.outputs[0].name or ""
        return Site(
            unit=unit,
            node=self._nodes[unit.name],
            integers=self._integers,
            source=self._encoding(source),
            read=self._steps.get(source),
            written=self._steps.get(result),
        )
