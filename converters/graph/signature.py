"""A graph's signature: real inputs and outputs, batch first, every other axis of a fixed size."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto

from lepton_edge.bundle.manifest import DataType, ModelSignature, TensorSpec
from lepton_edge.errors import ModelError, NotYetSupportedError, UsageError

BATCH = "batch"
Shapes = Mapping[str, Sequence[int]]

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


def parse_shape(text: str) -> tuple[str, list[int]]:
    """Read `name=1x3x224x224`.

    Raises:
        UsageError: anything else.
    """
    name, equals, sizes = text.rpartition("=")
    parts = sizes.split("x")
    if not equals or not name or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--shape {text!r}: expected name=1x3x224x224")
    return name, [int(part) for part in parts]


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must feed: files before IR version 4 list initialisers there too."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in constants]


def fix_shapes(model: onnx.ModelProto, shapes: Shapes, *, where: str) -> bool:
    """Write the sizes that the user gave into the graph's inputs, in place; a symbolic batch stays symbolic.

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


def _fix_shape(value: onnx.ValueInfoProto, shape: Sequence[int]) -> bool:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise UsageError(f"--shape {value.name}: {len(shape)} sizes, but the input has {len(dims)} axes")
    changed = False
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            if dim.dim_value != size and axis:
                raise UsageError(f"--shape {value.name}: axis {axis} is {dim.dim_value} in the file, not {size}")
        elif axis:
            dim.dim_value = size
            changed = True
    return changed


def read_signature(model: onnx.ModelProto, *, where: str) -> ModelSignature:
    """Read inputs and outputs off the graph.

    Raises:
        ModelError: no inputs or outputs, or an axis other than the batch without a size.
        NotYetSupportedError: a tensor type that has no array form here, or a fixed batch above 1.
    """
    inputs = graph_inputs(model.graph)
    if not inputs or not model.graph.output:
        raise ModelError(f"{where}: the graph has no inputs or no outputs, so there is nothing to run")
    return ModelSignature(
        inputs=[_input(value, where) for value in inputs],
        outputs=[_tensor(value, where) for value in model.graph.output],
    )


def _input(value: onnx.ValueInfoProto, where: str) -> TensorSpec:
    spec = _tensor(value, where)
    open_axes = [axis for axis, size in enumerate(spec.shape) if axis and isinstance(size, str)]
    if open_axes:
        example = "x".join("1" if axis == 0 else str(size) for axis, size in enumerate(spec.shape))
        raise ModelError(
            f"{where}: input {spec.name!r} has shape {spec.shape}: axis {open_axes[0]} has no size; "
            f"give one with --shape {spec.name}={example} (numbers in place of names)"
        )
    if not spec.shape or (isinstance(spec.shape[0], int) and spec.shape[0] != 1):
        raise NotYetSupportedError(
            f"not yet: {where}: input {spec.name!r} has shape {spec.shape}; its first axis must be the batch, "
            "symbolic or 1: export the model with a dynamic batch"
        )
    return spec


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
        shape.append(dim.dim_value if dim.dim_value > 0 else dim.dim_param or unnamed)
    return TensorSpec(name=value.name, dtype=_TYPES[kind.elem_type], shape=shape)
