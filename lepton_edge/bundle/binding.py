"""Carry arrays between the model signature and a variant's own tensors (axis order, type, scale)."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle.manifest import Binding, ModelSignature, TensorSpec
from lepton_edge.errors import DataError

Array = npt.NDArray[np.generic]
Arrays = dict[str, Array]

_LIMITS = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}
_WIDE = 4
"""Bytes of integers that float32 does not hold exactly."""
_FEW = 16
"""Planes that are copied one by one."""


def check_inputs(signature: ModelSignature, inputs: Mapping[str, Array]) -> Arrays:
    """Return `inputs` in the signature's order and types.

    Raises:
        DataError: a name is missing or unknown, a shape does not fit, a type cannot be cast safely, or symbolic
            sizes of one name differ.
    """
    names = [spec.name for spec in signature.inputs]
    if sorted(inputs) != sorted(names):
        raise DataError(f"inputs are {sorted(inputs)}, the model takes {names}")
    sizes: dict[str, int] = {}
    return {spec.name: _check_input(spec, np.asarray(inputs[spec.name]), sizes) for spec in signature.inputs}


def _check_input(spec: TensorSpec, array: Array, sizes: dict[str, int]) -> Array:
    fits = array.ndim == len(spec.shape)
    for want, got in zip(spec.shape, array.shape, strict=False):
        expected = sizes.setdefault(want, got) if isinstance(want, str) else want
        fits = fits and expected == got
    if not fits:
        raise DataError(f"input {spec.name!r} has shape {list(array.shape)}, the model takes {spec.shape}")
    if array.dtype == np.dtype(spec.dtype):
        return array
    if not np.can_cast(array.dtype, spec.dtype, casting="same_kind"):
        raise DataError(f"input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}")
    return array.astype(spec.dtype)


def to_file(binding: Binding, array: Array) -> Array:
    """An array of the signature as the file's tensor: quantised where the file has a scale, then permuted.

    Steps are round(array / scale) + zero point, halves to even, in float32 as ONNX's QuantizeLinear computes them, and
    saturate; NaN has no step and gives whatever 0 stands for. Integers saturate too where the file's are narrower.
    """
    if binding.scale is not None:
        array = _quantised(array, binding.scale, binding.zero_point, binding.dtype)
    elif array.dtype != binding.dtype:
        array = _cast(array, binding.dtype)
    return array if binding.permutation is None else _permuted(array, binding.permutation)


def from_file(binding: Binding, array: Array, dtype: str) -> Array:
    """A tensor of the file as the signature's array of type `dtype`; integers are rounded and saturate."""
    if binding.permutation is not None:
        array = _permuted(array, [binding.permutation.index(axis) for axis in range(len(binding.permutation))])
    if binding.scale is not None:
        exact = np.float32 if array.dtype.itemsize < _WIDE else np.float64
        array = np.subtract(array, binding.zero_point, dtype=exact)
        np.multiply(array, np.float32(binding.scale), out=array)
        array = np.rint(array) if dtype in _LIMITS else array
    return array if array.dtype == dtype else _cast(array, dtype)


def _quantised(array: Array, scale: float, zero_point: int, dtype: str) -> Array:
    low, high = _LIMITS[dtype]
    # float32 holds every step of a narrow type exactly, and not of int32.
    exact = np.float32 if np.dtype(dtype).itemsize < _WIDE else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.divide(array, np.float32(scale), dtype=exact)
        np.rint(steps, out=steps)
        steps += zero_point
        if np.isnan(np.max(steps, initial=low)):
            np.nan_to_num(steps, copy=False, nan=zero_point)
        np.clip(steps, low, high, out=steps)
        return np.asarray(steps, dtype)


def _cast(array: Array, dtype: str) -> Array:
    """With integers saturated where `dtype` cannot hold them."""
    if dtype not in _LIMITS or np.can_cast(array.dtype, dtype):
        return array.astype(dtype)
    low, high = _LIMITS[dtype]
    if array.dtype.name in _LIMITS:
        least, most = _LIMITS[array.dtype.name]
        return np.clip(array, max(low, least), min(high, most)).astype(dtype)
    nearest = float(high) if float(high) <= high else np.nextafter(float(high), 0)
    return np.clip(array.astype(np.float64), low, nearest).astype(dtype)


def _permuted(array: Array, order: Sequence[int]) -> Array:
    """A copy in C order (the array itself where the permutation moves nothing).

    NumPy copies along the last axis, which for an image's three channels is four times slower than plane by plane.
    """
    moved = array.transpose(order)
    if moved.flags.c_contiguous or not moved.ndim or moved.shape[-1] > _FEW:
        return np.ascontiguousarray(moved)
    result = np.empty(moved.shape, moved.dtype)
    for plane in range(moved.shape[-1]):
        result[..., plane] = moved[..., plane]
    return result
