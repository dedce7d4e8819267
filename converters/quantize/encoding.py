"""How eight bits stand for real numbers: real = scale * (step - zero_point), steps 0 to 255.

Encodings are kept in U8 here; the S8 form of the same numbers has 128 less in step and zero point (LiteRT 8-bit
quantization specification; ONNX QuantizeLinear).
"""

from typing import NamedTuple

import numpy as np

STEPS = 255
SHIFT = 128
"""What is taken from a U8 step, and from its zero point, to get the S8 one."""
_TINY = float(np.finfo(np.float32).tiny)


class Encoding(NamedTuple):
    """One scale and zero point for a whole tensor.

    Attributes:
        scale: a positive number that float32 holds exactly.
        zero_point: the step that stands for 0.0, from 0 to 255.
    """

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """The smallest number that it holds."""
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        """The largest number that it holds."""
        return (STEPS - self.zero_point) * self.scale

    def covers(self, low: float, high: float) -> bool:
        """Whether it holds low..high, give or take half a step."""
        slack = self.scale / 2
        return self.low <= low + slack and self.high >= high - slack

    def within(self, low: float, high: float) -> bool:
        """Whether no number that it holds lies outside of low..high by more than half a step."""
        slack = self.scale / 2
        return self.low >= low - slack and self.high <= high + slack


def encode(low: float, high: float) -> Encoding:
    """The encoding of a range, widened to hold 0.0 exactly (padding and ReLU need it).

    Args:
        low, high: finite, low <= high.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        return Encoding(1.0, 0)
    scale = float(np.float32(max((high - low) / STEPS, _TINY)))
    return Encoding(scale, int(np.clip(np.rint(-low / scale), 0, STEPS)))


UNIT = Encoding(1 / 256, 0)
"""0 to 1: softmax and logistic in TFLite's specification, with zero point -128 in S8."""
SIGNED_UNIT = Encoding(1 / 128, 128)
"""-1 to 1: tanh in TFLite's specification, with zero point 0 in S8."""
