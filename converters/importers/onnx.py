"""ONNX files: checked before anything else reads them, and never executed while they are read."""

import hashlib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import checker, shape_inference

from converters.graph.operators import check_operators, check_text
from converters.graph.signature import Shapes, fix_shapes, read_signature
from converters.importers.expand import adopt
from converters.importers.functions import check_calls
from converters.importers.rewriting import without_weights
from converters.importers.sizes import check_sizes
from converters.importers.weights import MAX_BYTES, attach_weights, check_tensors, file_digest
from converters.importers.wire import check_wire
from converters.ort import first_line
from converters.source import Source
from lepton_edge.errors import ModelError, NotYetSupportedError


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
    where = str(path)
    model = parse_onnx(_read(path), where=where)
    try:
        files = [path, *attach_weights(model, path)]
        size, digest = sum(file.stat().st_size for file in files), file_digest(files)
    except OSError as cause:
        raise ModelError(f"{path}: {cause.strerror or cause}") from cause
    return from_proto(model, where=where, size_bytes=size, sha256=digest, shapes=shapes)


def import_proto(given: onnx.ModelProto, *, shapes: Shapes) -> Source:
    """Take a model in memory, copied by its bytes: it meets the same checks as a file, and raises the same errors."""
    where = "the model"
    try:
        data: bytes = given.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as cause:
        raise ModelError(f"{where} cannot be written as bytes (2 GiB at most): {first_line(cause)}") from cause
    digest = hashlib.sha256(data).hexdigest()
    model = parse_onnx(data, where=where)
    return from_proto(model, where=where, size_bytes=len(data), sha256=digest, shapes=shapes)


def parse_onnx(data: bytes, *, where: str) -> onnx.ModelProto:
    """Bytes to a model that nothing is known of yet.

    Raises:
        ModelError: no ONNX, truncated, empty, or built to exhaust memory.
    """
    check_wire(data, where=where)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, UnicodeDecodeError) as cause:
        raise ModelError(f"{where}: not an ONNX file, or a truncated one ({len(data)} bytes)") from cause
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise ModelError(f"{where}: not an ONNX file, or an empty one ({len(data)} bytes): it holds no graph")
    return model


def from_proto(
    model: onnx.ModelProto, *, where: str, size_bytes: int, sha256: str, shapes: Shapes, kind: str = "onnx"
) -> Source:
    """Check a graph whose weights are all inside. Raises as `import_onnx`; `model` is changed."""
    check_text(model, where=where)
    check_tensors(model, where=where)
    check_calls(model, where=where)
    check_operators(model, where=where)
    try:
        checker.check_model(without_weights(adopt(model)))
    except (checker.ValidationError, UnicodeDecodeError, RuntimeError) as cause:
        raise ModelError(f"{where}: not a valid ONNX model: {first_line(cause)}") from cause
    if fix_shapes(model, shapes, where=where):
        _infer(model, where)
    signature = read_signature(model, where=where)
    check_sizes(model, where=where)
    return Source(
        model=model, signature=signature, format=kind, where=where, size_bytes=size_bytes, sha256=sha256
    )  # fmt: skip


def _infer(model: onnx.ModelProto, where: str) -> None:
    """Carry new input sizes through the graph; the outputs' sizes follow from them."""
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim[1:]:
            if dim.dim_param:
                dim.Clear()
    check_sizes(model, where=where)  # with data_prop onnx writes a Range out, however long
    try:
        inferred = shape_inference.infer_shapes(without_weights(model), data_prop=True)
    except (shape_inference.InferenceError, RuntimeError) as cause:
        raise ModelError(f"{where}: the sizes given with --shape do not fit: {first_line(cause)}") from cause
    for known, value in zip(inferred.graph.output, model.graph.output, strict=True):
        value.CopyFrom(known)
    model.graph.value_info.extend(inferred.graph.value_info)


def _read(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise NotYetSupportedError(f"not yet: {path}: models above 2 GiB come later")
        return path.read_bytes()
    except OSError as cause:
        raise ModelError(f"{path}: {cause.strerror or cause}") from cause
