"""What the lowerings of ai.onnx.ml share: typed attributes, and a list of nodes that grows from a value to the next."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from converters.importers.rewriting import Context, attribute
from lepton_edge.bundle.binding import Array

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

TINY = 1e-30
"""Instead of a norm of zero: zeros divided by it are zeros."""


class Steps:
    """Nodes in place of one, each of which reads the names that the ones before gave."""

    def __init__(self, node: onnx.NodeProto, context: Context) -> None:
        self._prefix = node.name or node.output[0]
        self._context = context
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, value: Array, name: str) -> str:
        """The name of a value that is constant."""
        self.nodes.append(self._context.constant(value, f"{self._prefix}/{name}"))
        return str(self.nodes[-1].output[0])

    def scalar(self, value: float, name: str) -> str:
        """Likewise of one float32."""
        return self.constant(np.asarray(value, np.float32), name)

    def do(self, op_type: str, *inputs: str, to: str = "", **attributes: float | str | Sequence[int]) -> str:
        """Append a node; the name of its output, which is `to` where given."""
        output = to or self._context.names.fresh(f"{self._prefix}/{op_type}")
        node = helper.make_node(op_type, list(inputs), [output])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return output

    def float(self, name: str, *, to: str = "") -> str:
        """The value in float32, the arithmetic of ai.onnx.ml whatever goes in."""
        known = self._context.types.get(name)
        if known is not None and known.elem_type == TensorProto.FLOAT and not to:
            return name
        return self.cast(name, TensorProto.FLOAT, to=to)

    def cast(self, name: str, kind: int, *, to: str = "") -> str:
        """The value in another type, a `TensorProto.DataType`."""
        output = to or self._context.names.fresh(f"{self._prefix}/Cast")
        self.nodes.append(helper.make_node("Cast", [name], [output], to=kind))
        return output

    def axes(self, *axes: int) -> str:
        return self.constant(np.array(axes, np.int64), "axes")


def floats(node: onnx.NodeProto, name: str) -> F32:
    """An attribute of numbers, shape (n,); empty where it is absent."""
    return np.asarray(cast("Sequence[float]", attribute(node, name, ())), np.float32)


def ints(node: onnx.NodeProto, name: str) -> I64:
    """Likewise of integers."""
    return np.asarray(cast("Sequence[int]", attribute(node, name, ())), np.int64)


def real(node: onnx.NodeProto, name: str, default: float) -> float:
    return cast("float", attribute(node, name, default))


def has(node: onnx.NodeProto, name: str) -> bool:
    return any(entry.name == name for entry in node.attribute)
