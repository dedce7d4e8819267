"""What int8 asks of each operator: which inputs are weights, which tensors must share a scale, which scales are fixed.

The rules are those of TFLite's 8-bit specification, kept by every plan, so that a tensor that is int8 in two plans has
one scale and one zero point (docs: DESIGN, "one calibration, one plan per profile"). An operator that is not in the
table has no int8 form in any runtime that we know, and stays float.

Sources: LiteRT 8-bit quantization specification; ONNX Runtime, QDQ selectors and QLinear kernels.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from converters.calibrate.ranges import Method
from converters.quantize.encoding import SIGNED_UNIT, UNIT, Encoding


class Rule(NamedTuple):
    """The int8 rule of one operator.

    Attributes:
        data: the inputs that are activations; None: every input.
        weight: the input that must be constant, symmetric and one scale a channel; None: the operator has none.
        axis: of the weight's output channels.
        bias: the input that is int32 at input scale x weight scale.
        same_scale: inputs and outputs share one encoding, because the operator only moves or picks values.
        fixed: the output's encoding, whatever calibration saw.
        fuses: whether an activation behind it is computed in the same step, so that nothing is quantised between.
        covers: numbers that the input's range must hold for the operator's int8 form to exist.
    """

    data: tuple[int, ...] | None = (0,)
    weight: int | None = None
    axis: int = 0
    bias: int | None = None
    same_scale: bool = False
    fixed: Encoding | None = None
    fuses: bool = False
    covers: tuple[float, ...] = ()


_MOVES = Rule(same_scale=True)

RULES: dict[str, Rule] = {
    "Conv": Rule(weight=1, axis=0, bias=2, fuses=True),
    "ConvTranspose": Rule(weight=1, axis=1, bias=2, fuses=True),
    "Gemm": Rule(weight=1, axis=1, bias=2, fuses=True),
    "MatMul": Rule(weight=1, axis=1, fuses=True),
    "Add": Rule(data=None, fuses=True),
    "Sub": Rule(data=None, fuses=True),
    "Mul": Rule(data=None, fuses=True),
    "Sigmoid": Rule(fixed=UNIT),
    "Tanh": Rule(fixed=SIGNED_UNIT),
    "Softmax": Rule(fixed=UNIT),
    "HardSigmoid": Rule(covers=(-3.0,)),
    "HardSwish": Rule(covers=(-3.0,)),
    "LeakyRelu": Rule(),
    "GlobalAveragePool": Rule(),
    "AveragePool": _MOVES,
    "Relu": _MOVES,
    "Clip": _MOVES,
    "Concat": Rule(data=None, same_scale=True),
    **dict.fromkeys(
        (
            "DepthToSpace",
            "Flatten",
            "Gather",
            "GlobalMaxPool",
            "Identity",
            "MaxPool",
            "ReduceMax",
            "ReduceMin",
            "Reshape",
            "Resize",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ),
        _MOVES,
    ),
}
"""Operator of the canonical graph -> its rule."""

DYNAMIC_MATMUL = Rule(data=(0, 1))
"""A MatMul whose second input is computed (attention): both are activations."""

ACTIVATIONS = frozenset({"Relu", "Clip"})
"""What fuses into the operator before it: the quantised range alone does the clipping."""

NARROW = 0.5
"""A Concat's input whose range is narrower than this share of the output's keeps a scale of its own."""


@dataclass(frozen=True)
class Constraints:
    """What a user, or first aid, asks of the plans.

    Attributes:
        method: how ranges are chosen from the statistics.
        keep_float: units that stay float -> why.
    """

    method: Method = "mse"
    keep_float: dict[str, str] = field(default_factory=dict)
