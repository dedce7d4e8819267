"""ONNX files: checked before anything else reads them, and never executed while they are read."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import checker, external_data_helper, shape_inference

from converters.graph.operators import check_operators, check_text, nodes
from converters.graph.signature import Shapes, fix_shapes, read_signature
from converters.ort import first_line
from converters.source import Source
from lepton_edge.errors import ModelError, NotYetSupportedError

MAX_BYTES = 2**31 - 1
"""protobuf cannot hold a larger message, and the graph carries its weights."""


def import_onnx(path: Path, *, shapes: Shapes) -> Source:
    """Load an ONNX file and the external weights beside it.

    Args:
        path: the .onnx file.
        shapes: sizes for inputs whose axes (other than the batch) are symbolic.

    Raises:
        ModelError: unreadable, no ONNX, truncated, invalid, or external data missing or too short.
        NotYetSupportedError: larger than 2 GiB with its weights, or a signature that is not supported yet.
        UnsupportedOperatorError: an operator that ONNX Runtime does not know.
        UsageError: `shapes` does not fit the graph.
    """
    model = _parse(path)
    size = path.stat().st_size + _attach_weights(model, path)
    if size > MAX_BYTES:
        raise NotYetSupportedError(f"not yet: {path}: {size} bytes of weights; models above 2 GiB come later")
    return from_proto(model, where=str(path), size_bytes=size, shapes=shapes)


def from_proto(model: onnx.ModelProto, *, where: str, size_bytes: int, shapes: Shapes) -> Source:
    """Check a graph whose weights are all inside. Raises as `import_onnx`; `model` may be changed."""
    check_text(model, where=where)
    check_operators(model, where=where)
    try:
        checker.check_model(model)
    except (checker.ValidationError, UnicodeDecodeError) as cause:
        raise ModelError(f"{where}: not a valid ONNX model: {first_line(cause)}") from cause
    if fix_shapes(model, shapes, where=where):
        model = _inferred(model, where)
    signature = read_signature(model, where=where)
    return Source(model=model, signature=signature, format="onnx", where=where, size_bytes=size_bytes)


def _inferred(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Carry new input sizes through the graph; the outputs' sizes follow from them."""
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim[1:]:
            if dim.dim_param:
                dim.Clear()
    try:
        inferred: onnx.ModelProto = shape_inference.infer_shapes(model, data_prop=True)
    except shape_inference.InferenceError as cause:
        raise ModelError(f"{where}: the sizes given with --shape do not fit: {first_line(cause)}") from cause
    return inferred


def _parse(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise ModelError(f"{path}: {cause.strerror or cause}") from cause
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, UnicodeDecodeError) as cause:
        raise ModelError(f"{path}: not an ONNX file, or a truncated one ({len(data)} bytes)") from cause
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file, or an empty one ({len(data)} bytes): it holds no graph")
    return model


def _attach_weights(model: onnx.ModelProto, path: Path) -> int:
    """Pull the external weights into `model`; returns their size in bytes."""
    outside = [tensor for tensor in _tensors(model) if external_data_helper.uses_external_data(tensor)]
    for tensor in outside:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (checker.ValidationError, OSError, ValueError) as cause:
            raise ModelError(
                f"{path}: the weights of {tensor.name!r} lie in another file, which is missing, unreadable or "
                f"outside of the model's folder: {first_line(cause)}"
            ) from cause
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return sum(len(tensor.raw_data) for tensor in outside)


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    found = list(model.graph.initializer)
    for node in nodes(model.graph):
        for attribute in node.attribute:
            found += [attribute.t] if attribute.HasField("t") else []
            found += attribute.tensors
            found += attribute.g.initializer if attribute.HasField("g") else []
    return found
