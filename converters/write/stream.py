"""An ONNX file written field by field, so that no weight is in memory twice.

protobuf's own serialiser needs the whole message in memory, and the bytes again. A ModelProto is its fields one after
another, each a tag, a length and the contents, in any order; so the graph without weights is serialised, and each
weight follows as one more `initializer` field of the graph.
Source: Protocol Buffers, Encoding (length-delimited records); field numbers: onnx.proto.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from converters.framing import frame

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_PACKED_BITS = 8
"""Types narrower than this share bytes."""


class Field(NamedTuple):
    """One initialiser as it will stand in the file. head: all but the weights; data: None where head has them."""

    head: bytes
    data: ir.TensorProtocol | None

    @property
    def size(self) -> int:
        """Bytes of the TensorProto."""
        return len(self.head) + (0 if self.data is None else self.data.nbytes)


def initializer(value: ir.Value, tensor: ir.TensorProtocol) -> Field:
    """Describe one constant of the graph."""
    proto = onnx.TensorProto(
        dims=[int(size) for size in tensor.shape.numpy()], data_type=tensor.dtype.value, name=value.name
    )
    if tensor.dtype == ir.DataType.STRING:
        proto.string_data.extend(bytes(entry) for entry in tensor.numpy().reshape(-1))
        return Field(proto.SerializeToString(deterministic=True), None)
    head = proto.SerializeToString(deterministic=True) + frame(_TENSOR_RAW_DATA, tensor.nbytes)
    return Field(head, tensor)


def model_size(shell: onnx.ModelProto, fields: Sequence[Field]) -> int:
    """Bytes of the file that `write_model` writes."""
    return sum(len(part) for part in _opening(shell, fields)) + sum(_framed(field) for field in fields)


def write_model(file: BinaryIO, shell: onnx.ModelProto, fields: Sequence[Field]) -> None:
    """Write `shell`, a model without its weights, with `fields` as its graph's initialisers."""
    file.writelines(_opening(shell, fields))
    for field in fields:
        file.write(frame(_GRAPH_INITIALIZER, field.size) + field.head)
        file.writelines(_blocks(field.data))


def _opening(shell: onnx.ModelProto, fields: Sequence[Field]) -> tuple[bytes, bytes, bytes]:
    graph: bytes = shell.graph.SerializeToString(deterministic=True)
    rest = onnx.ModelProto()
    rest.CopyFrom(shell)
    rest.ClearField("graph")
    length = len(graph) + sum(_framed(field) for field in fields)
    return rest.SerializeToString(deterministic=True), frame(_MODEL_GRAPH, length), graph


def _framed(field: Field) -> int:
    return len(frame(_GRAPH_INITIALIZER, field.size)) + field.size


def _blocks(tensor: ir.TensorProtocol | None) -> Iterator[bytes | memoryview]:
    """The weights in the file's order: little-endian, as views of what is in memory."""
    if tensor is None:
        return
    if tensor.dtype.bitwidth < _PACKED_BITS:
        yield tensor.tobytes()
        return
    array = np.ascontiguousarray(tensor.numpy()).reshape(-1)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    yield array.view(np.uint8).data
