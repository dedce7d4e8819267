"""What a rewriting of nodes needs to know of the graph around them: types, constants, uses, free names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from converters.graph.operators import node_label
from lepton_edge.bundle.binding import Array
from lepton_edge.errors import NotYetSupportedError, UnsupportedOperatorError

_SMALL = 4096
"""Elements: a constant up to this size may be a shape or a scale that inference and adapters read."""


class Type(NamedTuple):
    """elem_type: TensorProto.DataType. shape: None for an unknown size; the whole None for an unknown rank."""

    elem_type: int
    shape: tuple[int | None, ...] | None


class Names:
    """Hands out names that a graph does not use yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def fresh(self, wish: str) -> str:
        """`wish`, with a number after it where it is taken."""
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name


@dataclass(frozen=True)
class Context:
    """Facts about one model, by the names of its values.

    Attributes:
        where: how messages name the model.
        names: of values and nodes alike.
        types: where inference knows them.
        constants: small ones (at most 4096 elements).
        used: names that some node reads or the graph gives out.
    """

    where: str
    names: Names
    types: Mapping[str, Type] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    used: frozenset[str] = frozenset()

    def constant(self, value: Array, wish: str) -> onnx.NodeProto:
        """A Constant node that gives `value`, known from now on."""
        name = self.names.fresh(wish)
        self.constants[name] = value
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))

    def ints(self, values: Sequence[int], wish: str) -> onnx.NodeProto:
        """A Constant node with int64 values, shape (N,)."""
        return self.constant(np.asarray(values, np.int64).reshape(-1), wish)

    def scalar_like(self, value: float, like: str, wish: str) -> list[onnx.NodeProto]:
        """Nodes whose last gives `value` as a scalar of the type of the value `like`."""
        known = self.types.get(like)
        if known is not None and known.elem_type != TensorProto.UNDEFINED:
            return [self.constant(np.asarray(value, helper.tensor_dtype_to_np_dtype(known.elem_type)), wish)]
        plain = self.constant(np.asarray(value, np.float32), wish)
        return [plain, helper.make_node("CastLike", [plain.output[0], like], [self.names.fresh(f"{wish}_cast")])]

    def rank(self, name: str) -> int | None:
        known = self.types.get(name)
        return None if known is None or known.shape is None else len(known.shape)

    def refuse(self, node: onnx.NodeProto, why: str) -> UnsupportedOperatorError:
        """The error for a node that cannot be brought to the wanted opset."""
        return UnsupportedOperatorError(
            f"{self.where}: node {node_label(node)!r}: operator {node.op_type!r}: {why}", operator=node.op_type
        )

    def not_yet(self, node: onnx.NodeProto, why: str) -> NotYetSupportedError:
        return NotYetSupportedError(f"not yet: {self.where}: node {node_label(node)!r}: {node.op_type}: {why}")


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The value of an attribute, strings as text; `default` where it is absent."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return default


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return cast("int", attribute(node, name, default))


def text(node: onnx.NodeProto, name: str, default: str) -> str:
    return cast("str", attribute(node, name, default))


def integers(node: onnx.NodeProto, name: str) -> list[int] | None:
    found = attribute(node, name)
    return None if found is None else list(cast("Sequence[int]", found))


def changed(
    node: onnx.NodeProto,
    *,
    op_type: str | None = None,
    name: str | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    **attributes: float | str | Sequence[int],
) -> onnx.NodeProto:
    """A copy of a node with other inputs, outputs or attributes; trailing empty inputs go."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.op_type = op_type or node.op_type
    copy.name = node.name if name is None else name
    if inputs is not None:
        names = list(inputs)
        while names and not names[-1]:
            names.pop()
        copy.input[:] = names
    if outputs is not None:
        copy.output[:] = list(outputs)
    if drop or attributes:
        kept = [entry for entry in node.attribute if entry.name not in drop and entry.name not in attributes]
        kept += [helper.make_attribute(name, value) for name, value in attributes.items()]
        del copy.attribute[:]
        copy.attribute.extend(kept)
    return copy


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that are nested in it."""
    yield graph
    for node in graph.node:
        for entry in node.attribute:
            if entry.HasField("g"):
                yield from graphs(entry.g)
            for nested in entry.graphs:
                yield from graphs(nested)


def context_of(model: onnx.ModelProto, *, where: str, infer: bool) -> Context:
    """Gather the facts; names of nested graphs that hide outer ones do not exist in valid models.

    Args:
        model: any valid model.
        where: how messages name it.
        infer: whether types are needed: this runs ONNX's shape inference, on a copy without the large weights.
    """
    inferred = _inferred(model) if infer else model
    types: dict[str, Type] = {}
    constants: dict[str, Array] = {}
    names: set[str] = set()
    used: set[str] = set()
    for graph in graphs(inferred.graph):
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.type.HasField("tensor_type"):
                types[value.name] = _type(value)
        used.update(value.name for value in graph.output)
        for tensor in graph.initializer:
            types[tensor.name] = Type(tensor.data_type, tuple(tensor.dims))
            _keep_small(tensor, tensor.name, constants)
        for node in graph.node:
            used.update(node.input)
            names.update((node.name, *node.input, *node.output))
            if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].HasField("t"):
                _keep_small(node.attribute[0].t, node.output[0], constants)
    return Context(where, Names(names | set(types)), types, constants, frozenset(used))


def _keep_small(tensor: onnx.TensorProto, name: str, constants: dict[str, Array]) -> None:
    outside = tensor.data_location == TensorProto.EXTERNAL
    if not outside and tensor.data_type != TensorProto.STRING and _elements(tensor.dims) <= _SMALL:
        try:
            constants[name] = numpy_helper.to_array(tensor)
        except (ValueError, TypeError):  # damaged, or a type without an array form: then nobody reads it here
            return


def _elements(dims: Sequence[int]) -> int:
    count = 1
    for size in dims:
        count *= max(size, 0)
    return count


def _type(value: onnx.ValueInfoProto) -> Type:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return Type(kind.elem_type, None)
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return Type(kind.elem_type, sizes)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model in which its large weights are graph inputs of the same type.

    That is enough for onnx's checker and shape inference, which copy what they are given several times.
    """
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    known = {value.name for value in model.graph.input}
    for node in model.graph.node:
        large = _large_constant(node)
        if large is None:
            graph.node.append(node)
        else:
            graph.input.append(helper.make_tensor_value_info(node.output[0], large.data_type, large.dims))
    for tensor in model.graph.initializer:
        if _elements(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in known:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _large_constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    plain = node.op_type == "Constant" and len(node.attribute) == 1 and len(node.output) == 1
    if not plain or not node.attribute[0].HasField("t"):
        return None
    return node.attribute[0].t if _elements(node.attribute[0].t.dims) > _SMALL else None


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model's graph with inferred types, without its large weights; as it is where inference fails."""
    light = without_weights(model)
    try:
        found: onnx.ModelProto = shape_inference.infer_shapes(light)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return light
    return found
