"""Operators that have an int8 form only in other words, by names that a profile picks from.

Each adds tensors whose range follows from observed ones, so that no plan needs a range that another has not.
"""

from collections.abc import Callable
from math import floor
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.quantize.constraints import ACTIVATIONS
from converters.quantize.encoding import STEPS, Encoding, encode
from converters.quantize.encodings import Encodings, hard_sigmoid_encoding, hard_sigmoid_line
from converters.quantize.integers import Integers
from converters.quantize.tflite import carries, saturating
from converters.quantize.units import Unit, clip_bounds

_GATE = encode(0.0, 1.0)


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


class Rewriting(NamedTuple):
    """write: changes the graph. obstacle: why there is no such form of a unit; "" where there is."""

    write: Callable[[Site], None]
    obstacle: Callable[[Unit, Encodings], str]


def average_pool(site: Site) -> None:
    """A mean over a window, as a depthwise convolution with equal weights: a kernel that runtimes have in int8."""
    channels, kernel = _channels(site.unit.data[0]), list(site.node.attributes.get_ints("kernel_shape", ()))
    if channels is None:
        raise AssertionError(f"{site.unit.name}: planned without a number of channels")
    weights = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
    bias = np.zeros(channels, np.float32)
    name = site.integers.names.free(f"{site.unit.name}_mean")
    made, made_bias = site.integers.weights(weights, bias, name, site.source, axis=0)
    convolution = ir.node("Conv", [site.node.inputs[0], made, made_bias], attributes={"group": channels}, name=name)
    for attribute in ("kernel_shape", "strides", "pads", "dilations"):
        if attribute in site.node.attributes:
            convolution.attributes.add(site.node.attributes[attribute])
    _replace(site.node, convolution)


def _uneven(unit: Unit, _: Encodings) -> str:
    """Why an AveragePool is no depthwise convolution with equal weights."""
    attributes = unit.nodes[0].attributes
    padded = any(attributes.get_ints("pads", ())) and not attributes.get_int("count_include_pad", 0)
    even = (
        not padded
        and not attributes.get_int("ceil_mode", 0)
        and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and _channels(unit.data[0]) is not None
    )
    return "" if even else "its window is not the same everywhere, so that no convolution computes it"


def hard_sigmoid_by_steps(site: Site) -> None:
    """Its output is the clipped steps of its input, read with the output's own encoding."""
    _stand_for(site, _clipped_gate(site))


def hard_swish_by_steps(site: Site) -> None:
    """X * gate(x), the gate being a hard sigmoid (Howard et al., "Searching for MobileNetV3", 2019)."""
    gate = site.integers.dequantise(_clipped_gate(site), f"{site.unit.name}_gate", _gate_encoding(site))
    _replace(site.node, ir.node("Mul", [site.node.inputs[0], gate], name=f"{site.unit.name}_product"))


def _no_flat_part(unit: Unit, encodings: Encodings) -> str:
    """Why the gate is not the input's clipped steps."""
    source = encodings.tensors[unit.data[0].name or ""]
    if hard_sigmoid_encoding(unit.nodes[0], source) is None:
        return "its input never reaches the flat part, so that its steps cannot be clipped"
    return ""


def hard_sigmoid_by_sum(site: Site) -> None:
    """Slope * (x + offset / slope); steps of the sum that end where the flat parts begin do the clipping."""
    _replace(site.node, ir.node("Mul", _factors(site), name=f"{site.unit.name}_product"))


def hard_swish_by_sum(site: Site) -> None:
    """X times such a gate."""
    name = f"{site.unit.name}_gate"
    total, slope = _factors(site)
    product = _shaped(site.integers.node("Mul", [total, slope], f"{name}_product", after=total), total)
    gate = site.integers.requantise(product, name, _GATE)
    _replace(site.node, ir.node("Mul", [site.node.inputs[0], gate], name=f"{site.unit.name}_product"))


def _factors(site: Site) -> tuple[ir.Value, ir.Value]:
    """The sum, and the slope that makes a gate of it."""
    slope, offset = hard_sigmoid_line(site.unit.nodes[0])
    name, x = f"{site.unit.name}_sum", _read(site)
    ends = [x, _number(site, offset / slope, "offset")]
    total = _shaped(site.integers.node("Add", ends, f"{name}_unclipped", after=x), x)
    return site.integers.requantise(total, name, _sum_encoding(slope, offset)), _number(site, slope, "slope")


def _sum_encoding(slope: float, offset: float) -> Encoding:
    """Steps from 0 to 1 / slope, widened so that the number added is a step.

    0.0 lies on no step's border then. Where half a step is added, as HardSigmoid of 1/6 and 1/2 would, every zero (one
    value in five hundred, behind a convolution) lies midway between two steps, and kernels round midway differently.
    What the top step goes beyond 1 / slope, the gate's own steps cut off.
    """
    whole = floor(STEPS * offset)
    return encode(0.0, STEPS * offset / slope / whole) if whole > 0 else encode(0.0, 1 / slope)


def _falls(unit: Unit, _: Encodings) -> str:
    return "" if hard_sigmoid_line(unit.nodes[0])[0] > 0 else "its slope is not positive"


def clip_steps(site: Site) -> None:
    """A Relu or Clip on its own: input and output share one encoding."""
    bounds = clip_bounds(site.unit.nodes[0])
    _stand_for(site, site.integers.clip(_steps(site), *bounds, site.unit.name, site.source))


def clip_by_product(site: Site) -> None:
    """One times x, which carries the activation; bounds that no operator carries end the steps of x."""
    bounds, name, x = clip_bounds(site.unit.nodes[0]), site.unit.name, _read(site)
    if site.source.within(*bounds):
        _stand_for(site, _steps(site))
    elif carries("Mul", bounds):
        site.node.replace_input_with(0, site.integers.once(x, name))
    else:
        clipped = site.integers.requantise(
            site.integers.once(x, name), f"{name}_clipped", saturating(site.source, bounds)
        )
        site.node.outputs[0].replace_all_uses_with(site.integers.once(clipped, f"{name}_clipped"))
        _remove(site.node)


def _always(_: Unit, __: Encodings) -> str:
    return ""


def _read(site: Site) -> ir.Value:
    """What the operator reads, dequantised."""
    x = site.node.inputs[0]
    if x is None:
        raise AssertionError(f"{site.unit.name} reads nothing")
    return x


def _steps(site: Site) -> ir.Value:
    if site.read is None:
        raise AssertionError(f"{site.unit.name}: planned without steps to read")
    return site.read


def _number(site: Site, number: float, what: str) -> ir.Value:
    """A constant that is one of its own steps."""
    values = np.asarray(number, np.float32)
    return site.integers.constant(values, f"{site.unit.name}_{what}", encode(number, number))


def _shaped(made: ir.Value, like: ir.Value) -> ir.Value:
    made.type, made.shape = like.type, like.shape
    return made


def _channels(value: ir.Value | None) -> int | None:
    """Of images; None where they are not known, or where it is no image."""
    shape = None if value is None else value.shape
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else None


def _gate_encoding(site: Site) -> Encoding:
    encoding = hard_sigmoid_encoding(site.unit.nodes[0], site.source)
    if encoding is None:
        raise AssertionError(f"{site.unit.name}: planned without a gate")
    return encoding


def _clipped_gate(site: Site) -> ir.Value:
    return site.integers.clip(_steps(site), 0.0, 1.0, f"{site.unit.name}_gate", _gate_encoding(site))


def _stand_for(site: Site, steps: ir.Value) -> None:
    """Let `steps` stand where the operator's output was quantised, and take the operator away."""
    quantiser = site.written.producer() if site.written is not None else None
    if site.written is None or quantiser is None or site.node.graph is None:
        raise AssertionError(f"{site.unit.name}: planned without steps to write")
    site.written.replace_all_uses_with(steps)
    site.node.graph.remove([quantiser, site.node], safe=True)


def _replace(node: ir.Node, other: ir.Node) -> None:
    """Let `other` compute what `node` computed, under the same name."""
    node.prepend(other)
    old, new = node.outputs[0], other.outputs[0]
    new.type, new.shape = old.type, old.shape
    old.replace_all_uses_with(new)
    _remove(node)
    new.name = old.name


def _remove(node: ir.Node) -> None:
    if node.graph is None:
        raise AssertionError(f"{node.name} is in no graph")
    node.graph.remove(node, safe=True)


REWRITINGS: dict[tuple[str, str], Rewriting] = {
    ("AveragePool", "depthwise"): Rewriting(average_pool, _uneven),
    ("HardSigmoid", "gate-by-steps"): Rewriting(hard_sigmoid_by_steps, _no_flat_part),
    ("HardSwish", "gate-by-steps"): Rewriting(hard_swish_by_steps, _no_flat_part),
    ("HardSigmoid", "gate-by-sum"): Rewriting(hard_sigmoid_by_sum, _falls),
    ("HardSwish", "gate-by-sum"): Rewriting(hard_swish_by_sum, _falls),
    **{(operator, "clipped-steps"): Rewriting(clip_steps, _always) for operator in ACTIVATIONS},
    **{(operator, "product"): Rewriting(clip_by_product, _always) for operator in ACTIVATIONS},
}
"""Operator and name -> how a plan's int8 form of it is written."""
