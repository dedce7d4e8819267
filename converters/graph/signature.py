"""A graph's signature: real inputs and outputs, batch first; other axes are of a fixed size, or named and open."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx
from onnx import TensorProto

from lepton_edge.bundle.manifest import DataType, ModelSignature, TensorSpec
from lepton_edge.errors import ModelError, NotYetSupportedError, UsageError

BATCH = "batch"
OPEN = "?"
"""In a shape that a user gives: the axis stays as it is in the file."""
MAX_SAMPLE_BYTES = 1 << 30
"""One sample of one input or output; far above any real one, it keeps hostile sizes from being allocated."""
Shapes = Mapping[str, Sequence[int | str]]
_UNKNOWN = {"?", "-1", "None"}
"""What exporters write for an axis that has no name: two of them need not be equal."""

_TYPES: dict[int, DataType] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
}


def parse_shape(text: str) -> tuple[str, list[int | str]]:
    """Read `name=1x3x224x224`; `?` leaves an axis as it is in the file, as in `ids=?x128`.

    Raises:
        UsageError: anything else.
    """
    name, equals, sizes = text.rpartition("=")
    shape = [_size(part) for part in sizes.split("x")]
    if not equals or not name or None in shape:
        raise UsageError(
            f"--shape {text!r}: expected name=1x3x224x224: a size per axis, or ? for one that stays as it is"
        )
    return name, [size for size in shape if size is not None]


def _size(text: str) -> int | str | None:
    if text == OPEN:
        return OPEN
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 and int(text) > 0 else None


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must feed: files before IR version 4 list initialisers there too."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in constants]


def fix_shapes(model: onnx.ModelProto, shapes: Shapes, *, where: str) -> bool:
    """Write the sizes that the user gave into the graph's inputs, in place.

    An open first axis that is given as 1 stays open: it is the batch. Any other size is meant, as of a net that takes
    time first.

    Returns:
        Whether anything changed.

    Raises:
        UsageError: `shapes` names no input, has another rank, or contradicts a size in the file.
    """
    inputs = {value.name: value for value in graph_inputs(model.graph)}
    changed = False
    for name, shape in shapes.items():
        if name not in inputs:
            raise UsageError(f"--shape {name}: {where} has no such input; it has {sorted(inputs)}")
        changed |= _fix_shape(inputs[name], shape)
    if changed:
        del model.graph.value_info[:]  # sizes inferred from the old inputs may be stale
    return changed


def _fix_shape(value: onnx.ValueInfoProto, shape: Sequence[int | str]) -> bool:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise UsageError(f"--shape {value.name}: {len(shape)} sizes, but the input has {len(dims)} axes")
    changed = False
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if size == OPEN:
            continue
        if not isinstance(size, int) or size < 1:
            raise UsageError(f"--shape {value.name}: {size!r} is no size: give a number, or ? to leave the axis open")
        if dim.HasField("dim_value") and dim.dim_value > 0:
            if dim.dim_value != size and axis:
                raise UsageError(f"--shape {value.name}: axis {axis} is {dim.dim_value} in the file, not {size}")
        elif axis or size > 1:
            dim.dim_value = size
            changed = True
    return changed


def read_signature(model: onnx.ModelProto, *, where: str) -> ModelSignature:
    """Read inputs and outputs off the graph. An axis without a size or name is named `{input}_{axis}` here.

    Raises:
        ModelError: no outputs, or sizes that no machine has memory for.
        NotYetSupportedError: a tensor type that has no array form here.
    """
    if not model.graph.output:
        raise ModelError(f"{where}: the graph has no outputs, so there is nothing to run")
    return ModelSignature(
        inputs=[_input(value, where) for value in graph_inputs(model.graph)],
        outputs=[_tensor(value, where) for value in model.graph.output],
    )


def check_batch(signature: ModelSignature, *, where: str) -> None:
    """Refuse what samples cannot be fed to one after another: the first axis of each input must be the batch.

    Raises:
        ModelError: no inputs.
        NotYetSupportedError: an input without a batch, or with a fixed one above 1.
    """
    if not signature.inputs:
        raise ModelError(f"{where}: the graph has no inputs, so there is nothing to run")
    for spec in signature.inputs:
        if not spec.shape or (isinstance(spec.shape[0], int) and spec.shape[0] != 1):
            raise NotYetSupportedError(
                f"not yet: {where}: input {spec.name!r} has shape {spec.shape}; its first axis must be the batch, "
                "symbolic or 1: export the model with a dynamic batch"
            )


def _input(value: onnx.ValueInfoProto, where: str) -> TensorSpec:
    if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
        raise ModelError(f"{where}: input {value.name!r} has no shape, not even a rank: export the model with one")
    return _tensor(value, where)


def _tensor(value: onnx.ValueInfoProto, where: str) -> TensorSpec:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in _TYPES:
        raise NotYetSupportedError(
            f"not yet: {where}: {value.name!r} is no tensor of numbers (sequences, maps and strings come later): "
            "export the model so that its inputs and outputs are plain tensors"
        )
    shape: list[int | str] = []
    for axis, dim in enumerate(kind.shape.dim):
        unnamed = BATCH if axis == 0 else f"{value.name}_{axis}"
        if dim.dim_value < -1:  # -1 is how some exporters write an open axis
            raise ModelError(f"{where}: {value.name!r}: axis {axis} has the size {dim.dim_value}: a damaged file")
        known = dim.dim_param if dim.dim_param not in _UNKNOWN else ""
        shape.append(dim.dim_value if dim.dim_value > 0 else known or unnamed)
    dtype = _TYPES[kind.elem_type]
    size = prod(size for size in shape if isinstance(size, int)) * np.dtype(dtype).itemsize
    if size > MAX_SAMPLE_BYTES:
        raise ModelError(f"{where}: {value.name!r} of shape {shape} needs {size} bytes a sample: no device has that")
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)
