"""Carry arrays between the model signature and a variant's own tensors (axis order, type, scale)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle.manifest import Binding, ModelSignature, TensorSpec
from lepton_edge.errors import DataError

Array = npt.NDArray[np.generic]
Arrays = dict[str, Array]


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
    """An array of the signature as the file's tensor: permuted, then quantised where the file holds integers."""
    if binding.permutation is not None:
        array = np.ascontiguousarray(array.transpose(binding.permutation))
    if binding.scale is None:
        return array.astype(binding.dtype, copy=False)
    limits = np.iinfo(binding.dtype)
    steps = np.rint(array.astype(np.float64) / binding.scale) + binding.zero_point
    return np.asarray(np.clip(steps, limits.min, limits.max), binding.dtype)


def from_file(binding: Binding, array: Array, dtype: str) -> Array:
    """A tensor of the file as the signature's array of type `dtype`."""
    if binding.scale is not None:
        array = (array.astype(np.float32) - np.float32(binding.zero_point)) * np.float32(binding.scale)
    if binding.permutation is not None:
        array = np.ascontiguousarray(array.transpose(np.argsort(binding.permutation)))
    return array.astype(dtype, copy=False)
