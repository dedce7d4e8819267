"""The value of an operator whose inputs are constants, in bounded memory."""

import math

import numpy as np
import onnx_ir as ir
from onnx import defs
from onnx.reference import ops

from converters.graph.canonical.edit import Array, constant, has_bodies, is_constant
from converters.graph.shapes import static_shape

MIN_CAP = 1 << 20
"""Bytes that a folded constant may always have."""
GROWTH = 4
"""A folded constant may be this many times as large as what it was made of."""
_MAX_PRODUCT = 1 << 28
"""Multiply-accumulates that folding may cost: the reference implementation is slow."""

_NEVER = {
    # Random: each run gives another value.
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    # Quantisation: weights in int8 are what the user wants to keep.
    "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv",
    "QLinearMatMul",
    # Sequences, optionals and strings have no initialiser; slow recurrences are not worth it.
    "LSTM", "GRU", "RNN", "StringNormalizer", "TfIdfVectorizer", "ImageDecoder", "RegexFullMatch", "StringConcat",
    "StringSplit",
}  # fmt: skip
_DATA_DEPENDENT = {"NonZero", "Unique", "Compress"}
"""Their output is no larger than 64 x rank times their input, though its shape is unknown."""
_DATA_DEPENDENT_BYTES = 1 << 14
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"}


def evaluate(node: ir.Node, opset: int) -> list[Array] | None:
    """The outputs of a node of constants; None where they may not, or cannot, be computed.

    Never computed: random and quantisation operators, control flow, other domains, a result above
    max(1 MiB, 4 x its inputs), and operators that the reference implementation lacks.
    """
    if not _may_fold(node) or not defs.has(node.op_type, opset, ""):
        return None
    arrays = [None if value is None else constant(value) for value in node.inputs]
    try:
        kernel = ops.load_op("", node.op_type, defs.get_schema(node.op_type, opset, "").since_version)
        attributes = {name: _plain(item) for name, item in node.attributes.items()}
        with np.errstate(all="ignore"):
            found = kernel.eval(*arrays, n_outputs=len(node.outputs), **attributes)
    except Exception:  # noqa: BLE001  # the reference implementation raises anything; the node then stays as it is
        return None
    return _arrays(found, node)


def _arrays(found: object, node: ir.Node) -> list[Array] | None:
    results = list(found) if isinstance(found, tuple) else [found]
    if len(results) != len(node.outputs):
        return None
    arrays = [np.asarray(item) for item in results if isinstance(item, np.ndarray | np.generic)]
    if len(arrays) != len(results):
        return None
    return arrays if all(map(_fits, arrays, node.outputs)) else None


def _fits(array: Array, value: ir.Value) -> bool:
    """Whether the result has the type and rank that the operator's definition gives it."""
    if array.dtype.kind in "OUSM" or (value.shape is not None and len(value.shape) != array.ndim):
        return False
    return value.dtype is None or ir.DataType.from_numpy(array.dtype) == value.dtype


def _may_fold(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in _NEVER or has_bodies(node):
        return False
    if not node.outputs or not all(value is None or is_constant(value) for value in node.inputs):
        return False
    size = sum(_bytes(value) for value in node.inputs if value is not None)
    cap = max(MIN_CAP, GROWTH * size)
    if node.op_type in _DATA_DEPENDENT:
        return size <= _DATA_DEPENDENT_BYTES
    sizes = [_output_bytes(value) for value in node.outputs]
    if any(count is None or count > cap for count in sizes):
        return False
    return node.op_type not in _HEAVY or size * max(count or 0 for count in sizes) <= _MAX_PRODUCT


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0


def _output_bytes(value: ir.Value) -> int | None:
    """From the inferred shape, as nothing may be computed to find out; None where it is unknown."""
    shape = static_shape(value)
    if shape is None or value.dtype is None:
        return None
    size = 8 if value.dtype == ir.DataType.STRING else max(1, math.ceil(value.dtype.itemsize))
    return math.prod(shape) * size


def _plain(item: ir.Attr) -> object:
    """An attribute as the reference implementation takes it."""
    if item.type == ir.AttributeType.TENSOR:
        return ir.serde.serialize_tensor(item.as_tensor())
    if item.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return list(item.value)
    return item.value
