"""Products of integers, and quantisation by what a tensor holds: in float32, which has all integers up to 2^24.

Source: ONNX operators ConvInteger, MatMulInteger, DynamicQuantizeLinear (its function body); com.microsoft's
DynamicQuantizeMatMul and MatMulIntegerToFloat in ONNX Runtime 1.32.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto

from converters.graph.operators import nodes
from converters.importers.expand.quantised import Scaled, kept
from converters.importers.rewriting import Context

_EXACT = 1 << 24
"""Up to here float32 has every integer, and so every sum on the way to one."""
_OF_ROWS, _OF_KERNELS = (-1, 1), (-1, 1, 1, 1)


def conv_integer(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    known = context.types.get(node.input[1])
    sizes = known.shape if known is not None else None
    count = None if sizes is None or None in sizes[1:] else math.prod(size or 0 for size in sizes[1:])
    if not _is_exact(count):
        return None
    steps = Scaled(node, context)
    x, w = _centred(steps, context, 0, 2), _centred(steps, context, 1, 3, shape=_OF_KERNELS)
    steps.cast(steps.like("Conv", [x, w], kept(node)), TensorProto.INT32, to=node.output[0])
    return steps.nodes


def matmul_integer(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Long sums in parts that float32 holds, which are added as integers."""
    steps = Scaled(node, context)
    a, b = _centred(steps, context, 0, 2, shape=_OF_ROWS), _centred(steps, context, 1, 3)
    known = [context.types.get(name) for name in node.input[:2]]
    shapes = [one.shape if one is not None else None for one in known]
    count = next((shape[at] for shape, at in zip(shapes, (-1, 0), strict=True) if shape), None)
    if shapes[1] is not None and len(shapes[1]) > 1 and count is None:
        count = shapes[1][-2]
    if _is_exact(count):
        steps.cast(steps.do("MatMul", a, b), TensorProto.INT32, to=node.output[0])
        return steps.nodes
    if count is None or any(shape is None or len(shape) < 2 for shape in shapes):
        return None
    return _in_parts(steps, a, b, count, node.output[0])


def _is_exact(count: int | None) -> bool:
    return count is not None and count * 255 * 255 <= _EXACT


def _in_parts(steps: Scaled, a: str, b: str, count: int, output: str) -> list[onnx.NodeProto]:
    length = _EXACT // (255 * 255)
    total = ""
    for start in range(0, count, length):
        ends = [steps.axes(start), steps.axes(min(count, start + length))]
        pieces = [steps.do("Slice", value, *ends, steps.axes(axis)) for value, axis in ((a, -1), (b, -2))]
        part = steps.cast(steps.do("MatMul", *pieces), TensorProto.INT32)
        final = start + length >= count
        total = steps.do("Add", total, part, to=output if final else "") if total else part
    return steps.nodes


def _centred(steps: Scaled, context: Context, index: int, zero: int, *, shape: tuple[int, ...] = ()) -> str:
    """A tensor of steps less its zero point, in float32: exact. Several zero points go by columns, or in `shape`."""
    value = steps.cast(steps.given(index), TensorProto.FLOAT)
    name = steps.given(zero)
    if not name:
        return value
    known = context.constants.get(name)
    if known is not None and not known.any():
        return value
    point = steps.cast(name, TensorProto.FLOAT)
    if shape and not steps.is_single(name) and context.rank(name) == 1:
        point = steps.do("Reshape", point, steps.constant(np.array(shape, np.int64), "shape"))
    return steps.do("Sub", value, point)


def dynamic_quantize(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Steps of uint8 for the range that the tensor has, with zero in it."""
    steps = Scaled(node, context)
    _dynamic(steps, node.input[0], [*node.output, "", ""][:3])
    return steps.nodes


def _dynamic(steps: Scaled, x: str, outputs: list[str]) -> tuple[str, str, str]:
    """Names of steps, scale and zero point."""
    zero, most = steps.scalar(0, "zero"), steps.scalar(255, "most")
    low = steps.do("Min", steps.do("ReduceMin", x, keepdims=0), zero)
    high = steps.do("Max", steps.do("ReduceMax", x, keepdims=0), zero)
    span = steps.do("Div", steps.do("Sub", high, low), most)
    # A tensor of zeros has no range: any scale will do, and ONNX Runtime takes 1.
    flat = steps.do("Equal", span, zero)
    scale = steps.do("Where", flat, steps.scalar(1, "one"), span, to=outputs[1])
    point = steps.do("Round", steps.do("Clip", steps.do("Div", steps.do("Sub", zero, low), scale), zero, most))
    kept_point = steps.cast(point, TensorProto.UINT8, to=outputs[2])
    made = steps.do("QuantizeLinear", x, scale, kept_point, to=outputs[0])
    return made, scale, kept_point


def dynamic_matmul(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """A, B, scale and zero point of B, bias: A is quantised by its range, the product is real."""
    steps = Scaled(node, context)
    made, scale, point = _dynamic(steps, node.input[0], ["", "", ""])
    a = steps.do("Sub", steps.cast(made, TensorProto.FLOAT), steps.cast(point, TensorProto.FLOAT))
    b = _centred(steps, context, 1, 3)
    _real_product(steps, steps.do("MatMul", a, b), steps.do("Mul", scale, steps.given(2)), 4)
    return steps.nodes


def matmul_to_float(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """A, B, their scales, their zero points, bias."""
    if (context.rank(node.input[2]) or 0) > 1 and not Scaled(node, context).is_single(node.input[2]):
        return None
    steps = Scaled(node, context)
    a, b = _centred(steps, context, 0, 4, shape=_OF_ROWS), _centred(steps, context, 1, 5)
    _real_product(steps, steps.do("MatMul", a, b), steps.do("Mul", steps.given(2), steps.given(3)), 6)
    return steps.nodes


def _real_product(steps: Scaled, product: str, scale: str, bias: int) -> None:
    if not steps.given(bias):
        steps.do("Mul", product, scale, to=steps.target())
        return
    steps.do("Add", steps.do("Mul", product, scale), steps.given(bias), to=steps.target())


def as_floats(graph: onnx.GraphProto) -> bool:
    """Let integer products whose readers all make them float be float at once, in place; whether there were any.

    Sums beyond 2^24 are rounded then, a little before the readers would have rounded them.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes(graph):
        for name in node.input:
            readers.setdefault(name, []).append(node)
    given = {value.name for value in graph.output}
    found = [node for node in graph.node if node.op_type in _FLOATS and node.output[0] not in given]
    found = [node for node in found if all(map(_makes_float, readers.get(node.output[0], ())))]
    for node in found:
        node.domain, node.op_type = REAL, _FLOATS[node.op_type]
        for reader in readers.get(node.output[0], ()):
            reader.op_type = "Identity"
            del reader.attribute[:]
    return bool(found)


REAL = "lepton_edge.real"
"""Domain of what exists between `as_floats` and its expansion alone."""
_FLOATS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}


def _makes_float(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(one.name == "to" and one.i == TensorProto.FLOAT for one in node.attribute)


def real(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """What `as_floats` made of a product."""
    steps, conv = Scaled(node, context), node.op_type == "Conv"
    a = _centred(steps, context, 0, 2, shape=() if conv else _OF_ROWS)
    b = _centred(steps, context, 1, 3, shape=_OF_KERNELS if conv else ())
    steps.like(node.op_type, [a, b], kept(node), to=node.output[0])
    return steps.nodes
