"""Relu and Clip behind another operator: as steps of their own, which `fuse` then makes part of that operator."""

import numpy as np
import onnx_ir as ir

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.program import Together, Value
from converters.write.tflite.scales import is_constant

Bounds = tuple[float, float]
_INF = float("inf")
CODES: dict[Bounds, str] = {(0.0, _INF): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
"""What TFLite has a fused form of."""


def bounds_of(node: ir.Node) -> Bounds | None:
    """What a Relu, or a Clip with constant bounds, lets through; None where that is computed."""
    if node.op_type == "Relu":
        return 0.0, _INF
    bounds = [node.inputs[index] if index < len(node.inputs) else None for index in (1, 2)]
    if not all(bound is None or is_constant(bound) for bound in bounds):
        return None
    low, high = (
        None if bound is None or bound.const_value is None else float(bound.const_value.numpy().reshape(()))
        for bound in bounds
    )
    return (-_INF if low is None else low), (_INF if high is None else high)


def emit_clip(low: Lowering, source: Value, target: Value, bounds: Bounds) -> None:
    """Let only `bounds` through; source and target are of one type, and of one scale where they have any."""
    if bounds in CODES:
        low.emit(CODES[bounds], [source], [target], rule=Together())
        return
    parts = [(code, bound) for code, bound in zip(("MAXIMUM", "MINIMUM"), bounds, strict=True) if np.isfinite(bound)]
    if not parts:
        low.reshape(source, source.shape, target)
    for index, (code, bound) in enumerate(parts):
        made = target if index == len(parts) - 1 else low.like(source)
        low.emit(code, [source, low.constant_like(bound, source, "bound")], [made], rule=Together())
        source = made
