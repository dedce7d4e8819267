"""A TFLite file written with one constant in memory at a time.

The flatbuffer is built without its constants and patched when it is known where they lie: they follow it as ordinary
flatbuffer vectors, which any reader takes; and where the whole is too large for flatbuffers' 32 bits, large ones as
bare bytes that Buffer.offset and Buffer.size name, which LiteRT and tflite-runtime 2.14 read.
Source: FlatBuffers, Internals (tables, vtables, vectors); schema.fbs (Buffer).
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from converters.tflite.encode import content, nbytes
from converters.tflite.enums import OPERATORS, SCHEMA, TYPES
from converters.tflite.model import Operator, Quantization, Signature, Subgraph, Tensor, TfliteModel
from converters.tflite.options import pack_options
from converters.tflite.versions import runtime_version
from lepton_edge import durable

_FLATBUFFERS = import_module("flatbuffers")
_ALIGNMENT = 16
_TAIL = 64
"""Zero bytes at the end: vector code may read a little past the last constant."""
_VERSION = 3
_IDENTIFIER = b"TFL3"
_LAST_SHORT_CODE = OPERATORS["PLACEHOLDER_FOR_GREATER_OP_CODES"]
_LARGEST = 2**31 - 2**27
"""Bytes of constants that may lie in vectors. Flatbuffers end at 2 GiB; the rest is room for everything else."""
_SMALL = 4096
"""Constants of so few bytes lie in vectors in every file: some readers look at shapes and axes there alone."""

_RUNTIME = "min_runtime_version"
_RUNTIME_BYTES = 16

_Code = tuple[str, int, str]
_Constant = Tensor | bytes


def write_file(model: TfliteModel, path: Path, *, largest: int = _LARGEST) -> None:
    """Write `model` to `path`, whole or not at all. The same model gives the same bytes.

    Constants start at multiples of 16 bytes; equal ones are stored once. The metadata say which runtime the operators'
    versions need (min_runtime_version).

    Args:
        model: to write; operators' versions are written as they are.
        path: of the file.
        largest: bytes of constants above which large ones lie outside the flatbuffer.

    Raises:
        ValueError: an operator's options or a constant's data contradict what the model says of them.
        StorageError: the disk refused; an old file is untouched.
    """
    model = replace(model, metadata=_with_runtime(model))
    constants = list(_constants(model))
    sizes = [len(one) if isinstance(one, bytes) else nbytes(one) for one in constants]
    far = [sum(sizes) > largest and size > _SMALL for size in sizes]
    head = _flatbuffer(model, far)
    with durable.replacing(path) as file:
        file.seek(len(head))
        places = _write_constants(file, constants, sizes)
        file.write(bytes(_TAIL))
        _patch(head, far, places, sizes)
        file.seek(0)
        file.write(head)


def _with_runtime(model: TfliteModel) -> dict[str, bytes]:
    release = runtime_version(operator for subgraph in model.subgraphs for operator in subgraph.operators)
    others = {name: data for name, data in model.metadata.items() if name != _RUNTIME}
    return others | {_RUNTIME: release.encode().ljust(_RUNTIME_BYTES, b"\0")}


def _constants(model: TfliteModel) -> Iterator[_Constant]:
    """In the order of their buffers, of which the first is number 1."""
    for subgraph in model.subgraphs:
        yield from (tensor for tensor in subgraph.tensors if tensor.data is not None)
    yield from model.metadata.values()


def _write_constants(file: BinaryIO, constants: Sequence[_Constant], sizes: Sequence[int]) -> list[int]:
    """Write each with its length before it, small ones first, so that what is read at load lies together.

    Returns:
        The position of each one's first byte.
    """
    twins = Counter(sizes)
    found: dict[bytes, int] = {}
    places = [0] * len(constants)
    for index in sorted(range(len(constants)), key=lambda index: sizes[index] > _SMALL):
        one = constants[index]
        data = memoryview(one) if isinstance(one, bytes) else content(one)
        if data.nbytes != sizes[index]:
            raise AssertionError(f"constant {index} has {data.nbytes} bytes instead of {sizes[index]}")
        key = hashlib.sha256(data).digest() if twins[sizes[index]] > 1 else b""
        places[index] = found.get(key) or _write_vector(file, data)
        if key:
            found[key] = places[index]
    return places


def _write_vector(file: BinaryIO, data: memoryview) -> int:
    end = file.tell()
    start = -(-(end + 4) // _ALIGNMENT) * _ALIGNMENT
    # A length that needs more than 32 bits belongs to a constant outside the flatbuffer, and nobody reads it.
    file.write(bytes(start - end - 4) + struct.pack("<I", data.nbytes & 0xFFFFFFFF))
    file.write(data)
    return start


def _patch(head: bytearray, far: Sequence[bool], places: Sequence[int], sizes: Sequence[int]) -> None:
    """Put each constant's place into its Buffer table."""
    model = SCHEMA.Model.GetRootAs(head)
    for index, (outside, place, size) in enumerate(zip(far, places, sizes, strict=True), start=1):
        table = model.Buffers(index)._tab  # noqa: SLF001 - the generated code has no other way to a field's position
        data, offset, length = (table.Pos + table.Offset(slot) for slot in (4, 6, 8))
        if outside:
            struct.pack_into("<Q", head, offset, place)
            struct.pack_into("<Q", head, length, size)
        else:
            struct.pack_into("<I", head, data, place - 4 - data)


def _flatbuffer(model: TfliteModel, far: Sequence[bool]) -> bytearray:
    """Everything but the constants."""
    codes: dict[_Code, int] = {}
    buffers = iter(range(1, len(far) + 1))
    root = SCHEMA.ModelT()
    root.version = _VERSION
    root.description = model.description
    root.subgraphs = [_subgraph(one, codes, lambda: next(buffers)) for one in model.subgraphs]
    root.operatorCodes = [_operator_code(code) for code in codes]
    root.signatureDefs = [_signature(one) for one in model.signatures]
    root.metadata = [_metadata(name, next(buffers)) for name in model.metadata]
    builder = _FLATBUFFERS.Builder(1 << 16)
    near = _near_buffer(builder)
    root.buffers = [_Buffer(), *(_Buffer(_far_buffer if outside else near) for outside in far)]
    builder.Finish(root.Pack(builder), file_identifier=_IDENTIFIER)
    made: bytearray = builder.Output()
    return made


class _Buffer:
    """Stands where the generated BufferT would, which cannot leave fields to be patched."""

    def __init__(self, add: Callable[[Any], None] = lambda _builder: None) -> None:
        self._add = add

    def Pack(self, builder: Any) -> int:  # noqa: N802 - called by generated code
        SCHEMA.BufferStart(builder)
        self._add(builder)
        packed: int = SCHEMA.BufferEnd(builder)
        return packed


def _near_buffer(builder: Any) -> Callable[[Any], None]:
    """A Buffer with a vector, an empty one until the right place is patched in."""
    SCHEMA.BufferStartDataVector(builder, 0)
    nowhere = builder.EndVector()
    return lambda builder: SCHEMA.BufferAddData(builder, nowhere)


def _far_buffer(builder: Any) -> None:
    """A Buffer that says where its bytes lie; 1 because a 0 would not be stored, and so could not be patched."""
    SCHEMA.BufferAddOffset(builder, 1)
    SCHEMA.BufferAddSize(builder, 1)


def _subgraph(subgraph: Subgraph, codes: dict[_Code, int], buffer: Callable[[], int]) -> Any:
    made = SCHEMA.SubGraphT()
    made.name = subgraph.name
    made.tensors = [_tensor(one, 0 if one.data is None else buffer()) for one in subgraph.tensors]
    made.operators = [_operator(one, codes) for one in subgraph.operators]
    made.inputs, made.outputs = list(subgraph.inputs), list(subgraph.outputs)
    return made


def _tensor(tensor: Tensor, buffer: int) -> Any:
    made = SCHEMA.TensorT()
    made.name, made.shape, made.type = tensor.name, list(tensor.shape), TYPES[tensor.dtype]
    made.buffer, made.isVariable, made.hasRank = buffer, tensor.variable, True
    made.shapeSignature = None if tensor.signature is None else list(tensor.signature)
    made.quantization = None if tensor.quantization is None else _quantization(tensor.quantization)
    return made


def _quantization(quantization: Quantization) -> Any:
    made = SCHEMA.QuantizationParametersT()
    made.scale = quantization.scale.astype("<f4")
    made.zeroPoint = quantization.zero_point.astype("<i8")
    made.quantizedDimension = quantization.axis
    return made


def _operator(operator: Operator, codes: dict[_Code, int]) -> Any:
    made = SCHEMA.OperatorT()
    made.opcodeIndex = codes.setdefault((operator.code, operator.version, operator.custom), len(codes))
    made.inputs, made.outputs = list(operator.inputs), list(operator.outputs)
    made.intermediates = list(operator.intermediates) or None
    options = pack_options(operator.code, operator.options)
    if options.field:
        setattr(made, options.field, options.table)
    if options.kind:
        setattr(made, options.field + "Type", options.kind)
    return made


def _operator_code(key: _Code) -> Any:
    code, version, custom = key
    made = SCHEMA.OperatorCodeT()
    made.builtinCode = OPERATORS[code]
    made.deprecatedBuiltinCode = min(made.builtinCode, _LAST_SHORT_CODE)
    made.version, made.customCode = version, custom or None
    return made


def _signature(signature: Signature) -> Any:
    made = SCHEMA.SignatureDefT()
    made.signatureKey, made.subgraphIndex = signature.key, signature.subgraph
    made.inputs, made.outputs = _tensor_map(signature.inputs), _tensor_map(signature.outputs)
    return made


def _tensor_map(tensors: Mapping[str, int]) -> list[Any]:
    made = []
    for name, index in tensors.items():
        entry = SCHEMA.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        made.append(entry)
    return made


def _metadata(name: str, buffer: int) -> Any:
    made = SCHEMA.MetadataT()
    made.name, made.buffer = name, buffer
    return made
