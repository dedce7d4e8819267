"""Convolutions and pools in one form: two-dimensional, bias and attributes explicit, padding inside."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Attribute,
    add_constant,
    add_node,
    attribute_int,
    attribute_ints,
    attribute_string,
    constant,
    ints,
    is_constant,
    name_after,
    nodes_of,
    scalar,
    settled,
    sole_reader,
    stem_of,
    take_place,
)
from converters.graph.shapes import rank_of, shape_of

_WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
_ONE_D = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool")


def explicit_windows(model: ir.Model) -> bool:
    """Spell out bias, kernel_shape, strides, dilations, pads and group of convolutions and pools.

    Requires: shapes of weights. Ensures: all of these are present, wherever the weight's shape is known; auto_pad is
    gone, but SAME over an axis whose size is unknown, which stays as it is (no fixed padding equals it).
    """
    changed = False
    for node in nodes_of(model, *_WINDOWED):
        kernel = _kernel(node)
        if kernel is None:
            continue
        wanted = _attributes(node, kernel)
        for name, numbers in wanted.items():
            if name not in node.attributes:
                node.attributes.add(ir.convenience.convert_attribute(name, numbers))
                changed = True
        changed |= _explicit_pads(node, kernel)
        changed |= _explicit_bias(model.graph, node)
    return changed


def _kernel(node: ir.Node) -> list[int] | None:
    if "kernel_shape" in node.attributes:
        return attribute_ints(node, "kernel_shape", [])
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    shape = shape_of(weight) if weight is not None else None
    tail = [] if shape is None else [size for size in shape[2:] if size is not None]
    return tail if shape is not None and tail and len(tail) == len(shape) - 2 else None


def _attributes(node: ir.Node, kernel: list[int]) -> dict[str, Attribute]:
    axes = len(kernel)
    wanted: dict[str, Attribute] = {"kernel_shape": kernel, "strides": [1] * axes}
    if node.op_type != "LpPool" or "dilations" in node.attributes:
        wanted["dilations"] = [1] * axes
    if "auto_pad" not in node.attributes:
        wanted["pads"] = [0] * 2 * axes
    if node.op_type in ("Conv", "ConvTranspose"):
        wanted["group"] = 1
    return wanted


def _explicit_bias(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type not in ("Conv", "ConvTranspose") or (len(node.inputs) > 2 and node.inputs[2] is not None):
        return False
    weight = node.inputs[1]
    shape = shape_of(weight) if weight is not None else None
    if weight is None or shape is None or weight.dtype is None:
        return False
    channels = shape[0] if node.op_type == "Conv" else shape[1]
    if channels is None:
        return False
    if node.op_type == "ConvTranspose":
        channels *= attribute_int(node, "group", 1)
    bias = add_constant(graph, np.zeros(channels, weight.dtype.numpy()), f"{stem_of(node.outputs[0])}/bias")
    node.resize_inputs(3)
    node.replace_input_with(2, bias)
    return True


def _explicit_pads(node: ir.Node, kernel: list[int]) -> bool:
    """Replace auto_pad by the pads that it stands for (ONNX operators, Conv and ConvTranspose, auto_pad)."""
    kind = attribute_string(node, "auto_pad", "")
    if not kind:
        return False
    pads: list[int] | None = attribute_ints(node, "pads", [0] * 2 * len(kernel))
    if kind == "VALID":
        pads = [0] * 2 * len(kernel)
    elif kind != "NOTSET":
        pads = _transposed_pads(node, kernel, kind) if node.op_type == "ConvTranspose" else _same(node, kernel, kind)
    if pads is None or (node.op_type == "ConvTranspose" and "output_shape" in node.attributes):
        return False
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    return True


def _same(node: ir.Node, kernel: list[int], kind: str) -> list[int] | None:
    source = node.inputs[0]
    shape = shape_of(source) if source is not None else None
    if shape is None or None in shape[2:] or attribute_int(node, "ceil_mode", 0):
        return None
    strides = attribute_ints(node, "strides", [1] * len(kernel))
    dilations = attribute_ints(node, "dilations", [1] * len(kernel))
    totals = []
    for size, window, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
        assert size is not None
        reach = (window - 1) * dilation + 1
        totals.append(max(0, (-(-size // stride) - 1) * stride + reach - size))
    return _split(totals, kind)


def _transposed_pads(node: ir.Node, kernel: list[int], kind: str) -> list[int] | None:
    """SAME of a transposed convolution: the output is stride x the input."""
    strides = attribute_ints(node, "strides", [1] * len(kernel))
    dilations = attribute_ints(node, "dilations", [1] * len(kernel))
    extra = attribute_ints(node, "output_padding", [0] * len(kernel))
    rows = zip(kernel, strides, dilations, extra, strict=True)
    totals = [more + (window - 1) * dilation + 1 - stride for window, stride, dilation, more in rows]
    return _split(totals, kind) if min(totals) >= 0 else None


def _split(totals: Sequence[int], kind: str) -> list[int]:
    """The odd one goes to the end for SAME_UPPER, to the beginning for SAME_LOWER."""
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return small + large if kind == "SAME_UPPER" else large + small


def merge_pads(model: ir.Model) -> bool:
    """Move a Pad of zeros into the convolution or average pool that alone reads it.

    Requires: `explicit_windows`. Ensures: no constant Pad of zeros over spatial axes alone has such a sole reader; an
    average pool takes it only where it then counts the padding (count_include_pad) and had none of its own.
    """
    changed = False
    for node in nodes_of(model, "Pad"):
        reader = sole_reader(node.outputs[0])
        source = node.inputs[0]
        if reader is None or source is None or reader.op_type not in ("Conv", "AveragePool"):
            continue
        pads = _zero_pads(node)
        if pads is None or reader.inputs[0] is not node.outputs[0] or "auto_pad" in reader.attributes:
            continue
        if reader.op_type == "AveragePool" and not _counts_padding(reader):
            continue
        old = attribute_ints(reader, "pads", [0] * len(pads))
        reader.attributes["pads"] = ir.AttrInt64s("pads", [one + other for one, other in zip(old, pads, strict=True)])
        if reader.op_type == "AveragePool":
            reader.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        reader.replace_input_with(0, source)
        changed = True
    return settled(model.graph, changed=changed)


def _counts_padding(pool: ir.Node) -> bool:
    unpadded = not any(attribute_ints(pool, "pads", []))
    counted = unpadded or attribute_int(pool, "count_include_pad", 0) == 1
    # Rounding up lets windows hang over the end, and those count differently.
    return counted and attribute_int(pool, "ceil_mode", 0) == 0


def _zero_pads(node: ir.Node) -> list[int] | None:
    """The spatial pads, beginnings first, of a Pad with non-negative constants and zeros as its value."""
    pads = ints(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = rank_of(node.outputs[0])
    axes_given = len(node.inputs) > 3 and node.inputs[3] is not None
    filled = node.inputs[2] if len(node.inputs) > 2 else None
    if pads is None or rank is None or rank < 3 or attribute_string(node, "mode", "constant") != "constant":
        return None
    if filled is not None and scalar(filled) != 0:
        return None
    axes = ints(node.inputs[3]) if axes_given else list(range(rank))
    if axes is None or len(pads) != 2 * len(axes) or min(pads, default=0) < 0:
        return None
    begin, end = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        begin[axis], end[axis] = pads[index], pads[index + len(axes)]
    return None if any(begin[:2] + end[:2]) else begin[2:] + end[2:]


def one_to_two_d(model: ir.Model) -> bool:
    """Give convolutions and pools over one spatial axis a height of 1.

    Requires: `explicit_windows`, ranks. Ensures: none over one axis is left, but convolutions whose weight is computed;
    each stands between Unsqueeze and Squeeze of axis 2.
    """
    changed = False
    for node in nodes_of(model, *_ONE_D):
        source = node.inputs[0]
        if source is None or rank_of(source) != 3 or "auto_pad" in node.attributes or len(node.outputs) > 1:
            continue
        if "output_shape" in node.attributes:
            continue
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is not None and not is_constant(weight):
            continue
        _lift(model.graph, node, source, weight)
        changed = True
    return settled(model.graph, changed=changed)


def _lift(graph: ir.Graph, node: ir.Node, source: ir.Value, weight: ir.Value | None) -> None:
    stem = stem_of(node.outputs[0])
    axis = add_constant(graph, np.array([2], np.int64), "height_axis")
    inputs: list[ir.Value | None] = [add_node(node, "Unsqueeze", [source, axis], stem=f"{stem}/in")]
    if weight is not None:
        array = constant(weight)
        assert array is not None
        inputs += [add_constant(graph, np.expand_dims(array, 2), stem_of(weight)), *node.inputs[2:]]
    attributes: dict[str, Attribute] = {}
    for name, item in node.attributes.items():
        attributes[name] = _lifted(name, list(item.as_ints())) if item.type == ir.AttributeType.INTS else item.value
    wide = add_node(node, node.op_type, inputs, attributes, name=node.name, stem=f"{stem}/2d")
    low = add_node(node, "Squeeze", [wide, axis])
    take_place(low, node.outputs[0])
    # The convolution keeps the source's name, not the Squeeze that now makes the output.
    name_after(low, "Squeeze")


def _lifted(name: str, numbers: list[int]) -> list[int]:
    if name == "pads":
        return [0, numbers[0], 0, numbers[1]]
    return [0 if name == "output_padding" else 1, *numbers]
