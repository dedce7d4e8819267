"""Operators that have an int8 form only in other words.

Each adds tensors whose range follows from observed ones, so that no plan needs a range that another has not.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.quantize.constraints import ACTIVATIONS
from converters.quantize.encoding import Encoding
from converters.quantize.encodings import hard_sigmoid_encoding
from converters.quantize.integers import Integers
from converters.quantize.units import Unit, clip_bounds


class Site(NamedTuple):
    """Where a rewriting works.

    Attributes:
        unit: of the plan.
        node: its operator in the graph that is written.
        integers: adds integer tensors there.
        source: the encoding of what the operator reads.
        read: the steps that it reads.
        written: the steps of what it computes; None where its output stays float.
    """

    unit: Unit
    node: ir.Node
    integers: Integers
    source: Encoding
    read: ir.Value | None
    written: ir.Value | None


def average_pool(site: Site) -> None:
    """A mean over a window, as a depthwise convolution with equal weights: a kernel that runtimes have in int8."""
    x, shape = site.node.inputs[0], site.unit.data[0].shape
    if x is None or shape is None or not isinstance(shape[1], int):
        raise AssertionError(f"{site.unit.name}: planned without a number of channels")
    channels, kernel = shape[1], list(site.node.attributes.get_ints("kernel_shape", ()))
    weights = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
    bias = np.zeros(channels, np.float32)
    name = site.integers.names.free(f"{site.unit.name}_mean")
    made, made_bias = site.integers.weights(weights, bias, name, site.source, axis=0)
    convolution = ir.node("Conv", [x, made, made_bias], attributes={"group": channels}, name=name)
    for attribute in ("kernel_shape", "strides", "pads", "dilations"):
        if attribute in site.node.attributes:
            convolution.attributes.add(site.node.attributes[attribute])
    _replace(site.node, convolution)


def hard_sigmoid(site: Site) -> None:
    """Its output is the clipped steps of its input, read with the output's own encoding."""
    _stand_for(site, _gate(site))


def hard_swish(site: Site) -> None:
    """X * gate(x), the gate being a hard sigmoid (Howard et al., "Searching for MobileNetV3", 2019)."""
    gate = site.integers.dequantise(_gate(site), f"{site.unit.name}_gate", _gate_encoding(site))
    _replace(site.node, ir.node("Mul", [site.node.inputs[0], gate], name=f"{site.unit.name}_product"))


def clip(site: Site) -> None:
    """A Relu or Clip on its own: input and output share one encoding."""
    if site.read is None:
        raise AssertionError(f"{site.unit.name}: planned without steps to read")
    bounds = clip_bounds(site.unit.nodes[0])
    _stand_for(site, site.integers.clip(site.read, *bounds, site.unit.name, site.source))


def _gate_encoding(site: Site) -> Encoding:
    encoding = hard_sigmoid_encoding(site.unit.nodes[0], site.source)
    if encoding is None:
        raise AssertionError(f"{site.unit.name}: planned without a gate")
    return encoding


def _gate(site: Site) -> ir.Value:
    if site.read is None:
        raise AssertionError(f"{site.unit.name}: planned without steps to read")
    return site.integers.clip(site.read, 0.0, 1.0, f"{site.unit.name}_gate", _gate_encoding(site))


def _stand_for(site: Site, steps: ir.Value) -> None:
    """Let `steps` stand where the operator's output was quantised, and take the operator away."""
    quantiser = site.written.producer() if site.written is not None else None
    if site.written is None or quantiser is None or site.node.graph is None:
        raise AssertionError(f"{site.unit.name}: planned without steps to write")
    site.written.replace_all_uses_with(steps)
    site.node.graph.remove([quantiser, site.node], safe=True)


def _replace(node: ir.Node, other: ir.Node) -> None:
    """Let `other` compute what `node` computed, under the same name."""
    if node.graph is None:
        raise AssertionError(f"{node.name} is in no graph")
    node.prepend(other)
    old, new = node.outputs[0], other.outputs[0]
    new.type, new.shape = old.type, old.shape
    old.replace_all_uses_with(new)
    node.graph.remove(node, safe=True)
    new.name = old.name


REWRITINGS: dict[str, Callable[[Site], None]] = {
    "AveragePool": average_pool,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    **dict.fromkeys(ACTIVATIONS, clip),
}
"""Operator -> how a plan's int8 form of it is written."""
