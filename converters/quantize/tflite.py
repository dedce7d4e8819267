"""What TFLite's operators ask of an int8 graph beyond the constraints that all plans keep.

Nothing is requantised in silence there: an operator that moves values has one scale for input and output, a fixed
output scale is checked when the file is loaded, and an activation is a field of the operator before it.

Source: LiteRT 8-bit quantization specification; tensorflow/lite/schema (ActivationFunctionType).
"""

import math

import onnx_ir as ir

from converters.quantize.encoding import Encoding, encode
from converters.quantize.units import Unit, clip_bounds

_FIELDS = frozenset({(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0)})
"""Bounds that an operator can carry in itself."""
_CARRIERS = frozenset({"Add", "Conv", "Gemm", "MatMul", "Mul", "Sub"})
"""Operators that have such a field in every version that int8 needs."""
_IMAGES = frozenset({"AveragePool", "Conv", "ConvTranspose", "DepthToSpace", "MaxPool", "Resize", "SpaceToDepth"})
"""Operators whose int8 kernels know batch, height, width and channels alone."""
_IMAGE_RANK = 4


STAYS_FLOAT = "lepton_edge.float"
"""Key of a node's metadata: the plan wants it in float, also where all around it is int8."""


def carries(operator: str, bounds: tuple[float, float]) -> bool:
    """Whether an operator clips to these bounds by itself."""
    return operator in _CARRIERS and bounds in _FIELDS


def saturating(encoding: Encoding, bounds: tuple[float, float]) -> Encoding:
    """The steps that end at the bounds, or where `encoding` does: written with it, values are clipped."""
    return encode(max(bounds[0], encoding.low), min(bounds[1], encoding.high))


def obstacle(unit: Unit) -> str:
    """Why TFLite has no int8 form of a unit; "" where it has."""
    if unit.operator in _IMAGES and _rank(unit.data[0]) != _IMAGE_RANK:
        return f"TFLite has {unit.operator} in int8 on images alone"
    clip = unit.activation or (unit.nodes[0] if unit.operator == "Clip" else None)
    if clip is None:
        return ""
    low, high = clip_bounds(clip)
    return "" if low <= 0.0 <= high else "its bounds leave out 0, for which every int8 tensor has a step"


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)
