"""Transposes moved to where a plan of layouts wants them (`layout`)."""

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Attribute,
    add_constant,
    add_node,
    attribute_int,
    constant,
    fresh,
    give_output,
    ints,
    is_constant,
    is_op,
    mark,
    nodes_of,
    producer,
    remove_dead,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.canonical.layout import (
    Layout,
    Plan,
    best_plan,
    current_cost,
    full_operands,
    identity,
    moved_axes,
    movement,
    output_layout,
    permutation,
    renaming,
    stored_dims,
)
from converters.graph.canonical.operators import BINARY, REDUCTIONS
from converters.graph.canonical.reshapes import moves_nothing, static_target
from converters.graph.shapes import rank_of


def place_transposes(model: ir.Model) -> bool:
    """Rewrite the graph so that each tensor lies in the layout that costs the fewest Transposes.

    Requires: ranks, `transpose_to_reshape`. Ensures: never more Transposes than before; nothing is touched unless
    there are fewer, or as many with more operators next to the linear operator that may absorb them.
    """
    if not any(renaming(node) is not None for node in model.graph):
        return False
    plan = best_plan(model.graph)
    if not plan.cost < current_cost(model.graph):
        return False
    _Rewriter(model.graph, plan).run()
    return remove_dead(model.graph) or True


class _Rewriter:
    """Carries out a plan; `stored` holds the tensor that stands for a value that lies in another layout."""

    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self._graph = graph
        self._plan = plan
        self._stored: dict[ir.Value, ir.Value] = {}
        self._made: dict[tuple[ir.Value, Layout], ir.Value] = {}

    def run(self) -> None:
        for node in list(self._graph):
            if renaming(node) is not None:
                self._rename(node)
            elif node in self._plan.working:
                self._move(node, self._plan.working[node])
            else:
                for index, value in enumerate(node.inputs):
                    if value is not None and value in self._stored:
                        node.replace_input_with(index, self._in(value, identity(rank_of(value) or 0), node))
            self._settle(node)

    def _layout(self, value: ir.Value) -> Layout:
        return self._plan.layouts.get(value, identity(rank_of(value) or 0))

    def _rename(self, node: ir.Node) -> None:
        source = node.inputs[0]
        assert source is not None
        self._stored[node.outputs[0]] = self._stored.get(source, source)

    def _in(self, value: ir.Value, layout: Layout, before: ir.Node) -> ir.Value:
        """The tensor of `value` in a layout, by a Transpose (or Reshape, where nothing moves) made once."""
        if self._layout(value) == layout:
            return self._stored.get(value, value)
        if (value, layout) not in self._made:
            self._made[value, layout] = self._moved(value, layout, before)
        return self._made[value, layout]

    def _moved(self, value: ir.Value, layout: Layout, before: ir.Node) -> ir.Value:
        """A new tensor of `value` in `layout`; in its own order it carries on the value's name."""
        own, stored = self._layout(value), self._stored.get(value, value)
        perm = movement(own, layout)
        natural = layout == identity(len(layout))
        stem, maker = stem_of(value), producer(value, "Transpose")
        dims = None if value.shape is None else stored_dims(value.shape.dims, layout)
        if value.shape is not None and moves_nothing(perm, stored_dims(value.shape.dims, own)):
            target = static_target(dims or (), stored)
            if target is not None and 0 not in target:
                shape = add_constant(self._graph, np.array(target, np.int64), f"{stem}/shape")
                made = add_node(before, "Reshape", [stored, shape], stem=stem if natural else f"{stem}/moved")
                made.shape = ir.Shape(dims or ())
                return made
        name = maker.name if maker is not None and natural else None
        made = add_node(
            before, "Transpose", [stored], {"perm": perm}, name=name, stem=stem if natural else f"{stem}/moved"
        )
        made.shape = None if dims is None else ir.Shape(dims)
        return made

    def _move(self, node: ir.Node, layout: Layout) -> None:
        """Write the node anew in its layout."""
        inputs = list(node.inputs)
        kept = set(full_operands(node))
        for index, value in enumerate(inputs):
            if value is not None and value in kept:
                inputs[index] = self._in(value, layout, node)
            elif is_op(node, "Concat", *BINARY) and is_constant(value):
                inputs[index] = self._turned(value, layout)
        inputs, attributes = self._remapped(node, inputs, layout)
        converted = ir.convenience.convert_attributes(attributes)
        made = ir.Node("", node.op_type, inputs, converted, num_outputs=len(node.outputs))
        self._graph.insert_before(node, made)
        made.name = node.name
        self._adopt(node, made, output_layout(node, layout))

    def _adopt(self, node: ir.Node, made: ir.Node, layout: Layout) -> None:
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name = fresh(self._graph)
            mark(new, f"{stem_of(old)}/stored")
            new.type = old.type
            if old.shape is not None:
                new.shape = ir.Shape(stored_dims(old.shape.dims, layout))
            self._stored[old] = new

    def _turned(self, value: ir.Value | None, layout: Layout) -> ir.Value | None:
        """A constant operand with its axes in the layout's order."""
        array = constant(value)
        if value is None or array is None or array.size == 1:
            return value
        full = array.reshape((1,) * (len(layout) - array.ndim) + array.shape)
        turned = full.transpose(movement(identity(len(layout)), layout))
        return add_constant(self._graph, turned, stem_of(value))

    def _remapped(
        self, node: ir.Node, inputs: list[ir.Value | None], layout: Layout
    ) -> tuple[list[ir.Value | None], dict[str, Attribute]]:
        """Axes in attributes and constant inputs, as the stored tensor counts them."""
        attributes: dict[str, Attribute] = {name: item.value for name, item in node.attributes.items()}
        rank = len(layout)
        if is_op(node, "Concat", "Split", "Softmax", "LogSoftmax"):
            default = -1 if is_op(node, "Softmax", "LogSoftmax") else 0
            attributes["axis"] = layout[attribute_int(node, "axis", default) % rank]
        axes = moved_axes(node) if is_op(node, "Pad", "Slice", "Squeeze", *REDUCTIONS) else None
        if axes is None:
            return inputs, attributes
        places = np.array([layout[axis] for axis in axes], np.int64)
        stem = stem_of(node.outputs[0])
        at = 3 if is_op(node, "Pad", "Slice") else 1
        inputs += [None] * (at + 1 - len(inputs))
        inputs[at] = add_constant(self._graph, places, f"{stem}/axes")
        return inputs, attributes

    def _settle(self, node: ir.Node) -> None:
        """Give graph outputs and bodies their value in its own order."""
        for old in list(node.outputs):
            new = self._stored.get(old)
            if new is None:
                continue
            uses = [usage for usage in old.uses() if usage.node.graph is not self._graph]
            if not uses and not old.is_graph_output():
                continue
            own = self._in(old, identity(rank_of(old) or 0), node)
            for usage in uses:
                usage.node.replace_input_with(usage.idx, own)
            if old.is_graph_output():
                if own.is_graph_output() or own.producer() is None:
                    own = add_node(node, "Identity", [own], stem=stem_of(old))
                give_output(own, old)


def hoist_over_pad(model: ir.Model) -> bool:
    """Move a Transpose before the Pad that it alone reads, so that the convolution after it meets the Pad.

    Requires: constants folded, ranks. Ensures: no Transpose of a constant Pad with one reader.
    """
    changed = False
    for node in nodes_of(model, "Transpose"):
        pad = producer(node.inputs[0], "Pad")
        axes = moved_axes(pad) if pad is not None else None
        if pad is None or axes is None or sole_reader(pad.outputs[0]) is not node or ints(pad.inputs[1]) is None:
            continue
        perm = permutation(node)
        stem = stem_of(node.outputs[0])
        places = np.array([perm.index(axis) for axis in axes], np.int64)
        turned = add_node(pad, "Transpose", [pad.inputs[0]], {"perm": perm}, name=node.name, stem=f"{stem}/turned")
        value = pad.inputs[2] if len(pad.inputs) > 2 else None
        attributes: dict[str, Attribute] = {name: item.value for name, item in pad.attributes.items()}
        inputs = [turned, pad.inputs[1], value, add_constant(model.graph, places, f"{stem}/axes")]
        padded = add_node(node, "Pad", inputs, attributes)
        take_place(padded, node.outputs[0])
        made = padded.producer()
        if made is not None and pad.name:
            made.name = pad.name
        changed = True
    return settled(model.graph, changed=changed)
