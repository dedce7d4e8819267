"""Putting nodes and constants into a canonical graph, under names that are free."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


class Inserter:
    """Adds constants to a graph, and hands out places to add nodes at."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._values = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        for node in ir.traversal.RecursiveGraphIterator(graph):
            self._values |= {value.name for value in node.outputs}
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    body = attribute.as_graph()
                    self._values |= {value.name for value in (*body.inputs, *body.initializers.values())}

    def free(self, name: str) -> str:
        """`name`, with a number behind it where it is taken; it counts as taken from then on."""
        found, count = name, 1
        while found in self._values:
            found, count = f"{name}_{count}", count + 1
        self._values.add(found)
        return found

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """An initialiser; one of the same name, type and values is shared."""
        known = self._graph.initializers.get(name)
        if known is not None and known.const_value is not None and _equal(known.const_value.numpy(), array):
            return known
        free = self.free(name)
        tensor = ir.tensor(array, name=free)
        value = ir.Value(name=free, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def before(self, node: ir.Node) -> "Place":
        """The place in front of `node`, to be replaced."""
        return Place(self, self._graph, node)

    def first(self) -> "Place":
        """The place in front of all nodes, for what depends on constants alone."""
        return Place(self, self._graph, self._graph[0])

    def quantize(self, value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """DynamicQuantizeLinear right behind what makes `value`: its steps (U8), scale and zero point."""
        made = [
            ir.Value(name=self.free(f"{value.name}_{suffix}"), type=ir.TensorType(dtype), shape=shape)
            for suffix, dtype, shape in (
                ("steps", ir.DataType.UINT8, value.shape),
                ("step", ir.DataType.FLOAT, ir.Shape([])),
                ("zero_point", ir.DataType.UINT8, ir.Shape([])),
            )
        ]
        name = self.free(f"{value.name}_quantize")
        node = ir.Node("", "DynamicQuantizeLinear", [value], outputs=made, name=name)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        return made[0], made[1], made[2]

    def drop_unused(self) -> None:
        """Remove the initialisers that nothing reads any more."""
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self._graph.initializers[name]


def _equal(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


class Place:
    """Builds nodes in front of one."""

    def __init__(self, inserter: Inserter, graph: ir.Graph, node: ir.Node) -> None:
        self._inserter, self._graph, self._node = inserter, graph, node

    def __call__(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, dtype: ir.DataType, **attributes: int
    ) -> ir.Value:
        """Add a node of one output, called `name`."""
        output = self._value(name, dtype)
        self._add(ir.Node("", op_type, inputs, _ints(attributes), outputs=[output], name=output.name))
        return output

    def take_over(self, value: ir.Value) -> None:
        """Let `value` stand for the replaced node's output, name included, and remove the node."""
        producer = value.producer()
        if producer is None:
            raise ValueError(f"{value.name} is made by no node")
        old = self._node.outputs[0]
        value.shape, value.type = old.shape, old.type
        name = old.name
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        self._graph.remove(self._node, safe=True)
        value.name = name

    def _value(self, name: str, dtype: ir.DataType) -> ir.Value:
        return ir.Value(name=self._inserter.free(name), type=ir.TensorType(dtype))

    def _add(self, node: ir.Node) -> None:
        self._graph.insert_before(self._node, node)


def _ints(attributes: dict[str, int]) -> list[ir.Attr]:
    return [ir.AttrInt64(name, value) for name, value in attributes.items()]
