"""Fourier transforms of a known length: products with a constant matrix.

A matrix of n x m complex numbers costs n m products where a fast transform costs n log n; up to some thousand points
the product is as fast on TFLite's kernels, and exact to float32's rounding.
Source: ONNX operators DFT (20) and STFT (17).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.graph.canonical.edit import (
    add_constant,
    add_node,
    attribute_int,
    constant,
    ints,
    is_op,
    main_graph,
    stem_of,
    take_place,
)
from converters.graph.shapes import static_shape

_MAX_ENTRIES = 1 << 23
_FLOATS = {ir.DataType.FLOAT: np.float32, ir.DataType.DOUBLE: np.float64, ir.DataType.FLOAT16: np.float16}
Matrix = npt.NDArray[np.float64]


class Transform(NamedTuple):
    """Sizes of one transform.

    Attributes:
        length: points of the transform.
        given: entries that are read; those beyond are zeros.
        parts: 1 for real entries, 2 for complex ones.
        wanted: entries that are written.
        inverse: whether it goes back.
        real: whether what it writes is real, from the half of a spectrum.
    """

    length: int
    given: int
    parts: int
    wanted: int
    inverse: bool = False
    real: bool = False


def matrix(one: Transform) -> Matrix:
    """Shape (given * parts, wanted * (1 if real else 2)): entries' parts side by side, on both sides."""
    angle = 2 * np.pi * np.outer(np.arange(one.given), np.arange(one.wanted)) / one.length
    angle[one.length // 2 + 1 if one.real else one.length :] = np.nan
    sine = np.sin(angle) * (1 if one.inverse else -1)
    rotation = np.stack([np.stack([np.cos(angle), sine], -1), np.stack([-sine, np.cos(angle)], -1)], 1)
    made = rotation[:, : one.parts]
    if one.real:
        twice = np.full(one.given, 2.0)
        twice[0] = 1.0
        if one.length % 2 == 0 and one.length // 2 < one.given:
            twice[one.length // 2] = 1.0
        made = made[..., :1] * twice[:, None, None, None]
    if one.inverse:
        made = made / one.length
    return np.asarray(np.nan_to_num(made).reshape(one.given * one.parts, -1), np.float64)


def is_transform(node: ir.Node) -> bool:
    """Whether it is a DFT or STFT whose sizes are all known, and whose matrix is not too large."""
    if is_op(node, "DFT"):
        found = _of_dft(node)
        one = None if found is None else found[1]
    elif is_op(node, "STFT"):
        frames = _of_stft(node)
        one = None if frames is None else frames[1]
    else:
        return False
    return one is not None and one.given * one.parts * one.wanted * 2 <= _MAX_ENTRIES


def multiply_out(node: ir.Node) -> bool:
    """Put the product in the node's place."""
    made = _dft(node) if node.op_type == "DFT" else _stft(node)
    take_place(made, node.outputs[0])
    main_graph(node).remove(node)
    return True


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _of_dft(node: ir.Node) -> tuple[int, Transform] | None:
    """The axis and the sizes."""
    source, length, axes = node.inputs[0], _input(node, 1), _input(node, 2)
    at = [-2] if axes is None else ints(axes)
    points = None if length is None else ints(length)
    if source is None or source.shape is None or source.dtype not in _FLOATS or not at:
        return None
    rank = len(source.shape)
    axis = at[0] % rank
    given, parts = source.shape[axis], source.shape[rank - 1]
    if not isinstance(given, int) or not isinstance(parts, int) or (length is not None and not points):
        return None
    inverse, half = bool(attribute_int(node, "inverse", 0)), bool(attribute_int(node, "onesided", 0))
    real = inverse and half
    size = points[0] if points else (2 * (given - 1) if real else given)
    if size < 1 or (half and not inverse and parts != 1) or (real and parts != 2):
        return None
    wanted = size // 2 + 1 if half and not inverse else size
    return axis, Transform(size, given, parts, wanted, inverse, real)


def _dft(node: ir.Node) -> ir.Value:
    source, found = node.inputs[0], _of_dft(node)
    assert source is not None
    assert source.shape is not None
    assert found is not None
    axis, one = found
    rank = len(source.shape)
    order = [*(at for at in range(rank - 1) if at != axis), axis, rank - 1]
    turned = add_node(node, "Transpose", [source], {"perm": order})
    lead = [0] * (rank - 2)
    rows = _reshaped(node, turned, [*lead, one.given * one.parts])
    product = add_node(node, "MatMul", [rows, _constant(node, source, matrix(one))])
    wide = _reshaped(node, product, [*lead, one.wanted, 1 if one.real else 2])
    return add_node(node, "Transpose", [wide], {"perm": [int(at) for at in np.argsort(order)]})


def _reshaped(node: ir.Node, value: ir.Value, shape: list[int]) -> ir.Value:
    target = add_constant(main_graph(node), np.array(shape, np.int64), f"{stem_of(node.outputs[0])}/shape")
    return add_node(node, "Reshape", [value, target])


def _constant(node: ir.Node, like: ir.Value, array: npt.NDArray[np.generic]) -> ir.Value:
    kind = _FLOATS[like.dtype or ir.DataType.FLOAT]
    return add_constant(main_graph(node), array.astype(kind), f"{stem_of(node.outputs[0])}/matrix")


def _of_stft(node: ir.Node) -> tuple[int, Transform] | None:
    """The step from frame to frame, and the sizes of each frame's transform."""
    source, window = node.inputs[0], _input(node, 2)
    shape = None if source is None else static_shape(source)
    step, length = ints(node.inputs[1]), _input(node, 3)
    known = None if length is None else ints(length)
    size = known[0] if known else None
    if window is not None and window.shape is not None and isinstance(window.shape[0], int):
        size = size or window.shape[0]
    if source is None or source.dtype not in _FLOATS or shape is None or len(shape) != 3 or not step or not size:
        return None
    # A complex row has no half that says all.
    half = bool(attribute_int(node, "onesided", 1))
    if step[0] < 1 or size > shape[1] or (half and shape[2] != 1) or (window is not None and shape[2] != 1):
        return None
    return step[0], Transform(size, size, shape[2], size // 2 + 1 if half else size)


def _stft(node: ir.Node) -> ir.Value:
    """Frames picked by an index, times the window, times the matrix; a constant window is part of the matrix."""
    source, window, found = node.inputs[0], _input(node, 2), _of_stft(node)
    assert source is not None
    assert found is not None
    step, one = found
    shape = static_shape(source) or (0, 0, 0)
    rows = _reshaped(node, source, [0, shape[1] * one.parts])
    starts = np.arange(0, shape[1] - one.length + 1, step)[:, None] * one.parts
    index = (starts + np.arange(one.length * one.parts)[None, :]).astype(np.int64)
    picked = add_node(node, "Gather", [rows, _index(node, index)], {"axis": 1})
    numbers, turns = constant(window), matrix(one)
    if numbers is not None:
        turns *= np.repeat(numbers.astype(np.float64), one.parts)[:, None]
    elif window is not None:
        picked = add_node(node, "Mul", [picked, window])
    product = add_node(node, "MatMul", [picked, _constant(node, source, turns)])
    return _reshaped(node, product, [0, 0, one.wanted, 2])


def _index(node: ir.Node, array: npt.NDArray[np.int64]) -> ir.Value:
    return add_constant(main_graph(node), array, f"{stem_of(node.outputs[0])}/frames")
