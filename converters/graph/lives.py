"""How many bytes of tensors are alive at once, when a graph runs in its own order."""

import math

import onnx_ir as ir

_BITS = 8


def size_of(value: ir.Value) -> int:
    """Bytes of a tensor; 0 where its type or a size is unknown."""
    if value.shape is None or not isinstance(value.type, ir.TensorType) or value.type.dtype == ir.DataType.STRING:
        return 0
    sizes = [size if isinstance(size, int) else 0 for size in value.shape]
    return math.ceil(math.prod(sizes) * value.type.dtype.bitwidth / _BITS)


def peak_bytes(graph: ir.Graph) -> int:
    """The most bytes that tensors alive at the same time take, constants left out.

    A tensor lives from the node that writes it to the last that reads it, bodies included; inputs from the start,
    outputs to the end. Views count as copies, and a node's inputs and outputs are alive together, so a runtime that
    reuses buffers needs no more for its tensors.
    """
    nodes = list(graph)
    order = {node: position for position, whole in enumerate(nodes) for node in (whole, *_inside(whole))}
    last = len(nodes)
    births, deaths = [0] * (last + 2), [0] * (last + 2)
    written = [(value, 0) for value in graph.inputs if not value.is_initializer()]
    written += [(value, position) for position, node in enumerate(nodes) for value in node.outputs]
    for value, born in written:
        size = size_of(value)
        read = [order[use.node] for use in value.uses()]
        died = last if value.is_graph_output() else max(read, default=born)
        births[born] += size
        deaths[died + 1] += size
    inner = [max((peak_bytes(body) for body in bodies(node)), default=0) for node in nodes]
    alive = peak = 0
    for position in range(last + 1):
        alive += births[position] - deaths[position]
        peak = max(peak, alive + (inner[position] if position < last else 0))
    return peak


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs that a node holds: the branches of an If, the bodies of Loop and Scan."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        found += [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
        found += attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []
    return found


def _inside(node: ir.Node) -> list[ir.Node]:
    return [inner for body in bodies(node) for inner in ir.traversal.RecursiveGraphIterator(body)]
