"""Weights on disk rather than in memory, for the while in which other programs' copies of them need the memory."""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lepton_edge import durable

LEAST_BYTES = 64 * 1024 * 1024
"""Models whose large weights are less than this stay in memory."""
_PLAIN = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}
"""Types that constants mostly have, and whose arrays tell them."""
_LARGE = 1 << 20
"""Bytes from which on a tensor is worth a mapping."""


def spill(model: ir.Model, path: Path) -> ir.Model:
    """Move a graph's large float32 constants into a file; they read as before, as long as the file stays.

    Each is mapped anew whenever somebody reads it, and let go with the array that was read. Such arrays cannot be
    written to.

    Args:
        model: it is not changed, but nobody should keep it.
        path: of the file, which is written if it is worth it.

    Returns:
        A copy whose large constants are in the file; the given model where that is not worth it.

    Raises:
        DiskFullError, StorageError: the file cannot be written.
    """
    large = [value for value in model.graph.initializers.values() if _is_large(value.const_value)]
    if sum(value.const_value.nbytes for value in large if value.const_value is not None) < LEAST_BYTES:
        return model
    # A graph remembers values that it has no more, and one constant keeps the whole imported message alive.
    model = model.clone()
    large = [value for value in model.graph.initializers.values() if _is_large(value.const_value)]
    with durable.translated(path), path.open("wb") as file:
        for value in large:
            offset, tensor = file.tell(), value.const_value
            if tensor is not None:
                array = np.ascontiguousarray(tensor.numpy(), "<f4")
                file.write(array.data)
                value.const_value = ir.LazyTensor(
                    partial(_mapped, path, offset, array.shape),
                    dtype=tensor.dtype,
                    shape=ir.Shape(array.shape),
                    name=value.name,
                )
    for value in model.graph.initializers.values():
        _take_out(value)
    return model


def _take_out(value: ir.Value) -> None:
    """Give a small constant memory of its own: one that lies in the imported message keeps all of the message alive."""
    tensor = value.const_value
    if isinstance(tensor, ir.TensorProtoTensor) and tensor.dtype in _PLAIN:
        value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)


def _is_large(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.nbytes >= _LARGE


def _mapped(path: Path, offset: int, shape: tuple[int, ...]) -> ir.TensorProtocol:
    # Read-only as a mapping, so no page of it is ever copied.
    array: npt.NDArray[np.float32] = np.memmap(path, "<f4", "r", offset, shape).view(np.ndarray)
    return ir.Tensor(array)
