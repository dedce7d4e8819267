"""Constants become initialisers, what is computed from them alone is computed now, and so are sizes of shapes."""

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Array,
    add_constant,
    bypass,
    fresh,
    give_output,
    lazily,
    mark,
    nodes_of,
    remove_unread,
    settled,
    stem_of,
    wrap,
)
from converters.graph.canonical.evaluate import evaluate
from converters.graph.canonical.infer import infer_node

_HASHED = 4096
"""Bytes up to which equal initialisers are found; sharing of large ones is the source's business."""


def constants_to_initialisers(model: ir.Model) -> bool:
    """Turn Constant nodes into initialisers.

    Requires: nothing. Ensures: no Constant node in the main graph, but one that makes a graph output, or one of
    strings or sparse values. The tensors are taken over, not copied.
    """
    changed = False
    for node in nodes_of(model, "Constant"):
        tensor = _tensor(node)
        if tensor is None:
            continue
        value = add_constant(model.graph, np.zeros(0, np.float32), stem_of(node.outputs[0]))
        wrap(value, tensor)
        if bypass(node.outputs[0], value):
            model.graph.remove(node, safe=True)
            changed = True
    return remove_unread(model.graph) or changed


def _tensor(node: ir.Node) -> ir.TensorProtocol | None:
    [(name, item)] = node.attributes.items()
    if name == "value":
        return lazily(item.as_tensor())
    if name in ("value_int", "value_ints"):
        return ir.Tensor(np.array(item.value, np.int64))
    if name in ("value_float", "value_floats"):
        return ir.Tensor(np.array(item.value, np.float32))
    return None


def fold_constants(model: ir.Model) -> bool:
    """Compute every node whose inputs are all constant, within bounds (`evaluate` lists them).

    Requires: types and shapes of the main graph. Ensures: of what may be folded, nothing is left; a graph output that
    is constant keeps an Identity.
    """
    changed = False
    opset = model.opset_imports.get("", 20)
    for node in list(model.graph):
        if any(value is not None and not value.is_initializer() for value in node.inputs):
            continue
        if node.op_type == "Identity" and node.outputs[0].is_graph_output():
            continue
        infer_node(node, opset)
        arrays = evaluate(node, opset)
        if arrays is None:
            continue
        for output, array in zip(node.outputs, arrays, strict=True):
            _replace(output, array)
        changed = True
    return settled(model.graph, changed=changed)


def _replace(output: ir.Value, array: Array) -> None:
    """Put a constant in a value's place."""
    node = output.producer()
    assert node is not None
    assert isinstance(node.graph, ir.Graph)
    value = add_constant(node.graph, array, stem_of(output))
    if bypass(output, value):
        return
    # A graph output: its readers take the constant, and an Identity makes the output itself.
    for reader, index in list(output.uses()):
        reader.replace_input_with(index, value)
    keep = ir.Node("", "Identity", [value], name=None)
    mark(keep, stem_of(output))
    node.graph.insert_before(node, keep)
    keep.outputs[0].name = fresh(node.graph)
    give_output(keep.outputs[0], output)


def share_constants(model: ir.Model) -> bool:
    """Let equal small initialisers be one.

    Requires: nothing. Ensures: no two initialisers of up to 4 KiB with equal type, shape and bytes, unless one is a
    graph output.
    """
    changed = False
    seen: dict[tuple[object, ...], ir.Value] = {}
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or tensor.dtype == ir.DataType.STRING or tensor.nbytes > _HASHED:
            continue
        key = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
        first = seen.setdefault(key, value)
        changed |= first is not value and bypass(value, first)
    return remove_unread(model.graph) or changed
