"""The ONNX graph that is being made: nodes in order, constants, free names."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from converters.importers.rewriting import Names

Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str] | onnx.GraphProto
_SMALL = 64
"""Elements: constants up to this size are stored once."""


class Graph:
    """Nodes of one graph, or of the body of a node in it.

    Args:
        names: that are taken, shared with all bodies.
        constants: shared too: those of the outermost graph, which bodies see.
    """

    def __init__(self, names: Names, constants: dict[str, onnx.TensorProto] | None = None) -> None:
        self.names = names
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {} if constants is None else constants
        self._small: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def body(self) -> "Graph":
        """A graph that lies inside of this one."""
        return Graph(self.names, self.constants)

    def add(self, op_type: str, *inputs: str, wish: str = "", **attributes: Attribute) -> str:
        """Add a node with one output, and return that; trailing empty inputs go."""
        return self.several(op_type, *inputs, count=1, wish=wish, **attributes)[0]

    def several(self, op_type: str, *inputs: str, count: int, wish: str = "", **attributes: Attribute) -> list[str]:
        """Add a node with several outputs."""
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        outputs = [self.names.fresh(wish or op_type) for _ in range(count)]
        node: onnx.NodeProto = helper.make_node(op_type, given, outputs, name=outputs[0])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        return outputs

    def constant(self, array: npt.NDArray[np.generic], wish: str = "constant") -> str:
        """The name of a constant with this value."""
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= _SMALL else None
        if key in self._small:
            return self._small[key]
        name = self.names.fresh(wish)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        if key is not None:
            self._small[key] = name
        return name

    def ints(self, values: Sequence[int]) -> str:
        """A constant with int64 values, shape (N,)."""
        return self.constant(np.array(values, np.int64).reshape(-1), "ints")

    def scalar(self, value: float, dtype: npt.DTypeLike = np.float32) -> str:
        return self.constant(np.array(value, dtype), "scalar")
