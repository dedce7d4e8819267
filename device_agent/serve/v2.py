"""The Open Inference Protocol v2 as bytes: requests in, answers out. Pure.

JSON tensors and the binary tensor data extension: the body is a JSON header of `Inference-Header-Content-Length`
bytes, then each binary tensor, little-endian, in the order of the header. Whatever a client sends ends as tensors of
the model's signature or as a DataError.

Source: KServe, "Open Inference Protocol v2"; Triton, "Binary Tensor Data Extension" and "HTTP/REST protocol".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from device_agent.serve.engine import ServedModel
from device_agent.serve.errors import PayloadTooLargeError
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import Manifest, TensorSpec, Variant
from lepton_edge.errors import DataError
from lepton_edge.typed import decode, encode

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""The manifest's types, as the protocol calls them."""

MAX_JSON = 16 * 1024 * 1024
"""Most bytes of the JSON part: numbers grow about eightfold when they are parsed, binary data do not."""
_MAX_DEPTH = 32
Size = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
Shape = Annotated[list[Size], msgspec.Meta(max_length=_MAX_DEPTH)]


class _InputParameters(msgspec.Struct, frozen=True):
    binary_data_size: Size | None = None
    shared_memory_region: Any = None


class _Input(msgspec.Struct, frozen=True):
    name: str
    shape: Shape
    datatype: str
    data: list[Any] | None = None
    parameters: _InputParameters = _InputParameters()


class _OutputParameters(msgspec.Struct, frozen=True):
    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _Parameters(msgspec.Struct, frozen=True):
    binary_data_output: bool = False


class _Request(msgspec.Struct, frozen=True):
    inputs: Annotated[list[_Input], msgspec.Meta(max_length=1024)]
    id: str = ""
    outputs: Annotated[list[_Output], msgspec.Meta(max_length=1024)] = []
    parameters: _Parameters = _Parameters()


@dataclass(frozen=True)
class InferRequest:
    """A request that makes sense for its model. outputs: name -> whether as binary data, in the order asked for."""

    id: str
    inputs: Arrays
    outputs: dict[str, bool]


def read_request(body: bytes, header_length: int | None, manifest: Manifest) -> InferRequest:
    """Parse the body of an inference request.

    Args:
        body: as it came, unpacked.
        header_length: the value of Inference-Header-Content-Length; None where there is no such header.
        manifest: of the model that is asked.

    Raises:
        DataError: with what is wrong in it.
        PayloadTooLargeError: its JSON part is too long.
    """
    length = len(body) if header_length is None else header_length
    if not 0 <= length <= len(body):
        raise DataError(f"request: Inference-Header-Content-Length is {length}, the body has {len(body)} bytes")
    if length > MAX_JSON:
        raise PayloadTooLargeError(f"request: {length} bytes of JSON, at most {MAX_JSON}; send tensors as binary data")
    header = decode(body[:length], _Request, what="request", limit=MAX_JSON, error=DataError)
    blobs = _Blobs(memoryview(body)[length:])
    inputs: Arrays = {}
    specs = {spec.name: spec for spec in manifest.signature.inputs}
    for tensor in header.inputs:
        if tensor.name in inputs or tensor.name not in specs:
            raise DataError(f"input {tensor.name[:80]!r}: twice, or none of the model's inputs {sorted(specs)}")
        inputs[tensor.name] = _read_input(tensor, specs[tensor.name], blobs)
    blobs.check_used_up()
    return InferRequest(id=header.id, inputs=inputs, outputs=_wanted(header, manifest))


class _Blobs:
    """The bytes behind the header, handed out front to back."""

    def __init__(self, rest: memoryview) -> None:
        self._rest = rest

    def take(self, size: int, *, where: str) -> memoryview:
        if size > len(self._rest):
            raise DataError(f"{where}: binary_data_size is {size}, only {len(self._rest)} bytes are left")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def check_used_up(self) -> None:
        if len(self._rest):
            raise DataError(f"request: {len(self._rest)} bytes more than its inputs take")


def _read_input(tensor: _Input, spec: TensorSpec, blobs: _Blobs) -> Array:
    where = f"input {tensor.name!r}"
    if tensor.parameters.shared_memory_region is not None:
        raise DataError(f"{where}: shared memory is not supported, send the data")
    if tensor.datatype != DATATYPES[spec.dtype]:
        raise DataError(f"{where} has datatype {tensor.datatype[:16]!r}, the model takes {DATATYPES[spec.dtype]}")
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise DataError(f"{where}: needs either data or binary_data_size")
    count = math.prod(tensor.shape)
    if size is not None:
        flat = _from_binary(blobs.take(size, where=where), spec.dtype, count, where=where)
    else:
        flat = _from_json(tensor.data or [], spec.dtype, count, where=where)
    return flat.reshape(tensor.shape)


def _from_binary(data: memoryview, dtype: str, count: int, *, where: str) -> Array:
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) != count * kind.itemsize:
        raise DataError(f"{where}: {len(data)} bytes of data, its shape and type take {count * kind.itemsize}")
    if dtype == "bool":
        return np.not_equal(np.frombuffer(data, np.uint8), 0)  # a byte above 1 is no legal numpy boolean
    return np.frombuffer(data, kind).astype(dtype, copy=False)


def _from_json(data: list[Any], dtype: str, count: int, *, where: str) -> Array:
    """Nested or flat, row-major. FP16 has no JSON form in the protocol."""
    if dtype == "float16":
        raise DataError(f"{where}: FP16 travels as binary data only")
    flat = _flatten(data, where=where)
    if len(flat) != count:
        raise DataError(f"{where}: {len(flat)} elements, its shape takes {count}")
    element = {"b": bool, "f": float}.get(np.dtype(dtype).kind, int)
    try:
        values = msgspec.convert(flat, list[element])  # type: ignore[valid-type]
        with np.errstate(over="raise"):
            return np.array(values, dtype)
    except (msgspec.ValidationError, OverflowError, FloatingPointError) as cause:
        raise DataError(f"{where}: not all of its data are {DATATYPES[dtype]} ({cause})") from cause


def _flatten(data: list[Any], *, where: str) -> list[Any]:
    """Row by row, level by level: no recursion, and no numpy guessing at ragged rows."""
    for _ in range(_MAX_DEPTH):
        rows = sum(isinstance(item, list) for item in data)
        if rows == 0:
            return data
        if rows != len(data):
            raise DataError(f"{where}: its data are nested unevenly")
        data = [item for row in data for item in row]
    raise DataError(f"{where}: its data are nested more than {_MAX_DEPTH} deep")


def _wanted(header: _Request, manifest: Manifest) -> dict[str, bool]:
    specs = {spec.name: spec for spec in manifest.signature.outputs}
    default = header.parameters.binary_data_output
    wanted: dict[str, bool] = {}
    for output in header.outputs or [_Output(name) for name in specs]:
        where = f"output {output.name[:80]!r}"
        if output.name not in specs or output.name in wanted:
            raise DataError(f"{where}: twice, or none of the model's outputs {list(specs)}")
        if output.parameters.classification is not None or output.parameters.shared_memory_region is not None:
            raise DataError(f"{where}: classification and shared memory are not supported")
        binary = output.parameters.binary_data
        wanted[output.name] = default if binary is None else binary
        if specs[output.name].dtype == "float16" and not wanted[output.name]:
            raise DataError(f"{where}: FP16 travels as binary data only; ask for binary_data")
    return wanted


def write_answer(request: InferRequest, outputs: Mapping[str, Array], served: ServedModel) -> tuple[bytes, int | None]:
    """The body of the answer, and its Inference-Header-Content-Length; None where it is JSON alone.

    NaN and infinity have no JSON form: they become null. A client that needs them asks for binary data.
    """
    blobs: list[bytes] = []
    tensors = [_write_output(name, outputs[name], binary, blobs) for name, binary in request.outputs.items()]
    document: dict[str, Any] = {"model_name": served.manifest.name, "model_version": served.manifest.version}
    if request.id:
        document["id"] = request.id
    document |= {"parameters": {"variant": served.variant.name, "bundle": served.bundle}, "outputs": tensors}
    header = encode(document)
    return b"".join([header, *blobs]), len(header) if any(request.outputs.values()) else None


def _write_output(name: str, array: Array, binary: bool, blobs: list[bytes]) -> dict[str, Any]:
    tensor: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
    if not binary:
        return tensor | {"data": array.ravel().tolist()}
    blobs.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return tensor | {"parameters": {"binary_data_size": len(blobs[-1])}}


def model_metadata(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    """The answer to GET /v2/models/NAME; a size that may vary is -1."""

    def describe(spec: TensorSpec) -> dict[str, Any]:
        shape = [size if isinstance(size, int) else -1 for size in spec.shape]
        return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}

    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"{variant.runtime}_{variant.format}",
        "inputs": [describe(spec) for spec in manifest.signature.inputs],
        "outputs": [describe(spec) for spec in manifest.signature.outputs],
    }
