"""Data types and shapes of values, carried forward node by node; the batch stays a symbol.

onnx infers one operator at a time (microseconds), so weights are never serialised for it. Reshape and
Resize get rules of their own, because onnx gives up where an axis is symbolic.
"""

from collections.abc import Sequence

import onnx
import onnx_ir as ir
from onnx import checker, defs, shape_inference

from converters.graph.canonical.edit import (
    attribute_int,
    has_bodies,
    ints,
    is_constant,
    is_op,
)
from converters.graph.shapes import Dim, factors, multiple

_SMALL = 256
"""Constants up to this many elements are shown to the inference: shapes, axes, pads, scales."""


def infer(model: ir.Model, *, everything: bool) -> None:
    """Fill in data types and shapes of the main graph's values.

    Args:
        everything: look at all nodes again; else at those that lack a type or a shape alone.

    An operator that onnx cannot infer keeps what is known of its outputs. Bodies of control flow are left alone.
    """
    opset = model.opset_imports.get("", 20)
    for node in model.graph:
        if has_bodies(node) or node.domain not in ("", "ai.onnx"):
            continue
        if everything or any(out.name and (out.shape is None or out.dtype is None) for out in node.outputs):
            infer_node(node, opset)


def infer_node(node: ir.Node, opset: int) -> None:
    """Fill in types and shapes of one node's outputs."""
    if not defs.has(node.op_type, opset, ""):
        return
    schema = defs.get_schema(node.op_type, opset, "")
    types, data = _known_inputs(node)
    if any(value is not None and value.name and value.name not in types for value in node.inputs):
        return
    try:
        found = shape_inference.infer_node_outputs(
            schema, ir.serde.serialize_node(node), types, data, opset_imports=[onnx.helper.make_opsetid("", opset)]
        )
    except (shape_inference.InferenceError, checker.ValidationError, RuntimeError, ValueError):
        found = {}
    for output in node.outputs:
        if output.name in found:
            _merge(output, found[output.name])
    if is_op(node, "Reshape"):
        _reshape(node)
    elif is_op(node, "Resize"):
        _resize(node)


def _known_inputs(node: ir.Node) -> tuple[dict[str, onnx.TypeProto], dict[str, onnx.TensorProto]]:
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        if value is None or not value.name:
            continue
        if value.type is not None:
            proto = onnx.TypeProto()
            ir.serde.serialize_type_into(proto, value.type)
            if value.shape is not None:
                ir.serde.serialize_shape_into(proto, value.shape)
            types[value.name] = proto
        if is_constant(value):
            assert value.const_value is not None
            if value.const_value.size <= _SMALL:
                data[value.name] = ir.serde.serialize_tensor(value.const_value)
    return types, data


def _merge(value: ir.Value, found: onnx.TypeProto) -> None:
    """Take what was inferred; a size known before stays where inference has none."""
    described = ir.serde.deserialize_type_proto_for_type(found)
    if described is not None:
        value.type = described
    shape = ir.serde.deserialize_type_proto_for_shape(found)
    if shape is None:
        return
    old = value.shape
    if old is None or len(old) != len(shape):
        value.shape = shape
        return
    value.shape = ir.Shape([better(new, known) for new, known in zip(shape, old, strict=True)])


def better(new: Dim, known: Dim) -> Dim:
    """A size as inferred, or as known before where that says more: a number, else a name."""
    if isinstance(new, int):
        return new
    return new if new.value and not isinstance(known, int) else known


def _reshape(node: ir.Node) -> None:
    """Give the axes of a Reshape to a constant target their sizes, symbols too."""
    source, target, out = node.inputs[0], ints(node.inputs[1]), node.outputs[0]
    if source is None or source.shape is None or target is None:
        return
    dims = reshaped(source.shape.dims, target, keep_zero=attribute_int(node, "allowzero", 0) == 1)
    if dims is not None:
        out.shape = ir.Shape(dims)


def _resize(node: ir.Node) -> None:
    """An axis whose scale is 1 keeps its size, where it is a symbol too."""
    source, out = node.inputs[0], node.outputs[0]
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    numbers = None if scales is None or scales.const_value is None else scales.const_value.numpy().tolist()
    cropped = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if not numbers or cropped or source is None or source.shape is None or out.shape is None:
        return
    dims = list(out.shape.dims)
    for axis, scale in zip(node.attributes.get_ints("axes", range(len(dims))), numbers, strict=True):
        if scale == 1:
            dims[axis] = source.shape.dims[axis]
    out.shape = ir.Shape(dims)


def reshaped(source: tuple[Dim, ...], target: Sequence[Dim], *, keep_zero: bool = False) -> list[Dim] | None:
    """What `Reshape` makes of a shape; None where the rule does not decide it.

    Each -1 is the product of what is left of the source, where that is a whole multiple of at most one symbol.
    """
    if not keep_zero and any(size == 0 and axis >= len(source) for axis, size in enumerate(target)):
        return None
    dims: list[Dim] = [source[axis] if size == 0 and not keep_zero else size for axis, size in enumerate(target)]
    if -1 not in target:
        return dims
    above, symbols = _product(source)
    below, gone = _product([size for size in dims if size != -1])
    for symbol in gone:
        if symbol not in symbols or not symbol:
            return None
        symbols.remove(symbol)
    if len(symbols) > 1 or not below or above % below:
        rest: Dim = ir.SymbolicDim(None)
    else:
        rest = multiple(above // below, symbols[0] if symbols else None)
    return [rest if isinstance(size, int) and size == -1 else size for size in dims]


def _product(dims: tuple[Dim, ...] | list[Dim]) -> tuple[int, list[str]]:
    count, symbols = 1, []
    for size in dims:
        number, symbol = factors(size)
        count *= number
        if symbol is not None:
            symbols.append(symbol)
    return count, symbols
