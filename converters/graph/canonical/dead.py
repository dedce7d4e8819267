"""What computes nothing, or the same thing twice."""

import onnx_ir as ir

from converters.graph.canonical.edit import (
    attribute_int,
    bypass,
    constant,
    has_bodies,
    nodes_of,
    remove_dead,
    scalar,
    settled,
)
from converters.graph.shapes import same_dims

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def remove_identities(model: ir.Model) -> bool:
    """Take out Identity, Dropout at inference, Cast to the same type, Concat, Sum, Max and Min of one.

    Requires: types. Ensures: none of these is left, but those that a graph output needs (`bypass`), and Dropout whose
    mask is read or that is told to train.
    """
    changed = False
    for node in nodes_of(model, "Identity", "Dropout", "Cast", "Concat", "Sum", "Max", "Min"):
        source = node.inputs[0]
        if source is not None and _passes_on(node, source):
            changed |= bypass(node.outputs[0], source)
    return settled(model.graph, changed=changed)


def _passes_on(node: ir.Node, source: ir.Value) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else None
        return all(not mask.uses() and not mask.is_graph_output() for mask in node.outputs[1:]) and (
            training is None or scalar(training) == 0
        )
    if node.op_type == "Cast":
        return source.dtype is not None and attribute_int(node, "to", 0) == source.dtype.value
    return len(node.inputs) == 1


def remove_neutral(model: ir.Model) -> bool:
    """Take out Add and Sub of 0, Mul and Div by 1, where they change neither shape nor type.

    Requires: shapes. Ensures: none of these with a constant second operand is left, but one that a graph output needs.
    """
    changed = False
    neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1}
    for node in nodes_of(model, *neutral):
        source, array = node.inputs[0], constant(node.inputs[1])
        if source is None or array is None or source.shape is None or node.outputs[0].shape is None:
            continue
        keeps_shape = same_dims(source, node.outputs[0]) or (array.ndim <= len(source.shape) and array.size == 1)
        if keeps_shape and bool((array == neutral[node.op_type]).all()) and source.dtype == node.outputs[0].dtype:
            changed |= bypass(node.outputs[0], source)
    return settled(model.graph, changed=changed)


def merge_equal(model: ir.Model) -> bool:
    """Merge nodes that compute the same thing: equal operator, inputs and attributes.

    Requires: `share_constants` for equal small constants. Ensures: no two such nodes, but random ones, those with
    bodies, and those that make two graph outputs.
    """
    changed = False
    seen: dict[tuple[object, ...], ir.Node] = {}
    for node in list(model.graph):
        if has_bodies(node) or node.op_type in _RANDOM or not node.inputs:
            continue
        first = seen.setdefault(_key(node), node)
        if first is not node:
            for kept, gone in zip(first.outputs, node.outputs, strict=True):
                changed |= bool(gone.uses() or gone.is_graph_output()) and bypass(gone, kept)
    return settled(model.graph, changed=changed)


def _key(node: ir.Node) -> tuple[object, ...]:
    attributes = sorted((name, _frozen(item)) for name, item in node.attributes.items())
    return (
        node.domain,
        node.op_type,
        node.overload,
        tuple(None if value is None else id(value) for value in node.inputs),
        len(node.outputs),
        tuple(attributes),
    )


def _frozen(item: ir.Attr) -> str:
    if item.type == ir.AttributeType.TENSOR:
        tensor = item.as_tensor()
        return f"{tensor.dtype} {tensor.shape} {tensor.tobytes()!r}"
    return f"{item.type} {item.value!r}"


def constants_right(model: ir.Model) -> bool:
    """Put the constant operand of Add, Mul, And, Or, Equal and the like second.

    Requires: nothing. Ensures: the first operand of a commutative operator is no constant unless both are.
    """
    changed = False
    for node in nodes_of(model, "Add", "Mul", "And", "Or", "Xor", "Equal"):
        first, second = node.inputs
        if first is not None and second is not None and first.is_initializer() and not second.is_initializer():
            node.replace_input_with(0, second)
            node.replace_input_with(1, first)
            changed = True
    return changed


def drop_dead(model: ir.Model) -> bool:
    """Remove what no output depends on.

    Requires: nothing. Ensures: every node and initialiser of the main graph is read, by a node, a body or an output.
    """
    return remove_dead(model.graph)
