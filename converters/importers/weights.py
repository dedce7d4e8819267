"""A model's tensors: their declared sizes held against their data, and weights that lie in other files."""

import hashlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from converters.graph.operators import node_label, nodes
from converters.importers.rewriting import graphs
from lepton_edge.errors import ModelError, NotYetSupportedError

MAX_BYTES = 2**31 - 1
"""protobuf cannot hold a larger message, and the graph carries its weights."""

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16, TensorProto.INT16: 16,
    TensorProto.INT32: 32, TensorProto.INT64: 64, TensorProto.BOOL: 8, TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64, TensorProto.UINT32: 32, TensorProto.UINT64: 64, TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128, TensorProto.BFLOAT16: 16, TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8, TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.UINT4: 4, TensorProto.INT4: 4,
}  # fmt: skip
"""Bits of an element in raw data. Source: onnx.proto, TensorProto.DataType."""
_COMPLEX: set[int] = {TensorProto.COMPLEX64, TensorProto.COMPLEX128}


class _Piece(NamedTuple):
    """Where a tensor's bytes lie."""

    tensor: onnx.TensorProto
    file: Path
    offset: int
    size: int


def check_tensors(model: onnx.ModelProto, *, where: str) -> None:
    """Refuse tensors whose declared size is not that of their data, before anything allocates by it.

    Raises:
        ModelError: negative sizes, data too short or too long, external data, one name for two tensors.
        NotYetSupportedError: sparse tensors.
    """
    for graph in graphs(model.graph):
        if graph.sparse_initializer:
            raise NotYetSupportedError(
                f"not yet: {where}: {graph.sparse_initializer[0].values.name!r} is a sparse tensor: "
                "export the model with dense weights"
            )
        _check_names(graph, where)
    for tensor, name in _tensors(model):
        _check_tensor(tensor, name, where)
    for node in _all_nodes(model):
        if any(entry.HasField("sparse_tensor") or entry.sparse_tensors for entry in node.attribute):
            raise NotYetSupportedError(
                f"not yet: {where}: node {node_label(node)!r} holds a sparse tensor: export with dense weights"
            )


def attach_weights(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Pull weights that lie beside the model's file into `model`.

    Returns:
        The files that held them, sorted.

    Raises:
        ModelError: a file that is missing, unreadable, no plain file or outside of the model's folder; an offset or
            length beyond its end, or a length that is not the tensor's.
        NotYetSupportedError: more than 2 GiB in all.
    """
    pieces = [
        _locate(tensor, name, path)
        for tensor, name in _tensors(model)
        if tensor.data_location == TensorProto.EXTERNAL
    ]  # fmt: skip
    total = path.stat().st_size + sum(piece.size for piece in pieces)
    if total > MAX_BYTES:
        raise NotYetSupportedError(f"not yet: {path}: {total} bytes of weights; models above 2 GiB come later")
    for tensor, file, offset, size in pieces:
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        if len(data) != size:
            raise ModelError(f"{path}: {_outside(tensor.name)} and {file.name} became shorter while it was read")
        tensor.raw_data = data
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return sorted({piece.file for piece in pieces})


def file_digest(paths: Sequence[Path]) -> str:
    """SHA-256 of files one after another, in hexadecimal; read in pieces."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _locate(tensor: onnx.TensorProto, name: str, path: Path) -> _Piece:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        folder = path.parent.resolve()
        file = (folder / location).resolve()
        inside = location and "\0" not in location and file.is_relative_to(folder) and ".." not in Path(location).parts
        info = file.stat() if inside else None
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise ModelError(f"{path}: {_outside(name)}, {location!r}: {reason}: put it beside the model") from cause
    if info is None:
        raise ModelError(f"{path}: {_outside(name)}, {location!r}, which is not in the model's folder: put it there")
    if not stat.S_ISREG(info.st_mode):
        raise ModelError(f"{path}: {_outside(name)}, {location!r}, which is no plain file")
    want = _raw_bytes(tensor, name, str(path))
    offset, size = (_number(entries, key, name, path) for key in ("offset", "length"))
    size = want if size is None else size
    if size != want:
        raise ModelError(f"{path}: {_outside(name)}: {size} bytes there, but its shape and type need {want}")
    if (offset or 0) + size > info.st_size:
        raise ModelError(
            f"{path}: {_outside(name)}, {location!r}, which is too short: bytes {offset or 0} to "
            f"{(offset or 0) + size} of {info.st_size}: copy it again"
        )
    return _Piece(tensor, file, offset or 0, size)


def _outside(name: str) -> str:
    return f"the weights of {name!r} lie in another file"


def _number(entries: dict[str, str], key: str, name: str, path: Path) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"{path}: {_outside(name)}: its {key} {text[:40]!r} is no number")
    return int(text)


def _check_names(graph: onnx.GraphProto, where: str) -> None:
    for what, values in (("initialisers", graph.initializer), ("inputs", graph.input), ("outputs", graph.output)):
        seen: set[str] = set()
        for value in values:
            if not value.name or value.name in seen:
                raise ModelError(f"{where}: damaged: two {what} are named {value.name!r}, or one has no name")
            seen.add(value.name)


def _check_tensor(tensor: onnx.TensorProto, name: str, where: str) -> None:
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(f"{where}: {_outside(name)}: read the model with onnx.load, or give the path of its file")
    if tensor.HasField("segment"):
        raise NotYetSupportedError(f"not yet: {where}: tensor {name!r} is in segments: export the model again")
    if tensor.HasField("raw_data"):
        have, want, unit = len(tensor.raw_data), _raw_bytes(tensor, name, where), "bytes"
    else:
        have, want, unit = _typed(tensor, name, where)
    if have != want:
        raise ModelError(
            f"{where}: damaged: tensor {name!r} of shape {list(tensor.dims)} holds {have} {unit}, not {want}"
        )


def _elements(tensor: onnx.TensorProto, name: str, where: str) -> int:
    count = 1
    for size in tensor.dims:
        if size < 0:
            raise ModelError(f"{where}: damaged: tensor {name!r} has a negative size: {list(tensor.dims)}")
        count *= size
    return count


def _raw_bytes(tensor: onnx.TensorProto, name: str, where: str) -> int:
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise ModelError(f"{where}: tensor {name!r}: type {tensor.data_type} has no raw form that is known here")
    return (_elements(tensor, name, where) * bits + 7) // 8


def _typed(tensor: onnx.TensorProto, name: str, where: str) -> tuple[int, int, str]:
    """What lies in a tensor's typed fields: have, want, unit."""
    want = _elements(tensor, name, where)
    if tensor.data_type != TensorProto.STRING and tensor.data_type not in _BITS:
        raise ModelError(f"{where}: tensor {name!r}: type {tensor.data_type} is unknown: export the model again")
    have = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
    if tensor.data_type in _COMPLEX:
        want *= 2
    if _BITS.get(tensor.data_type) == 4 and have != want:
        want = (want + 1) // 2
    return have, want, "values"


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from nodes(model.graph)
    for function in model.functions:
        yield from nodes(onnx.GraphProto(node=function.node))


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    """Every tensor with the name that messages give it. Those of functions are copies."""
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            yield tensor, tensor.name
    for node in _all_nodes(model):
        for entry in node.attribute:
            for tensor in (*([entry.t] if entry.HasField("t") else []), *entry.tensors):
                yield tensor, tensor.name or node_label(node)
