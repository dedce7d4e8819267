"""TFLite files read into values. Their bytes are not believed: see `checked` for offsets, `verify` for the rest.

Constants are views of the file, which is mapped and not read. Sparse constants become dense ones, and the DENSIFY
operators behind them go: what the file computes stays the same.
"""

# ruff: noqa: SLF001 - generated classes hold their table in `_tab` and have no other door

import math
import mmap
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.tflite.checked import Walk, numbers
from converters.tflite.decode import array_of, stored_bytes
from converters.tflite.enums import OPERATOR_NAMES, SCHEMA, TYPE_NAMES, TYPES, members
from converters.tflite.model import Operator, Options, Quantization, Signature, Subgraph, Tensor, TfliteModel
from converters.tflite.options import TABLES, options_of
from converters.tflite.sparse import Axis, Sparsity, places
from converters.tflite.verify import check_quantization, check_references, check_shape
from lepton_edge.errors import ModelError, NotYetSupportedError

_IDENTIFIER = b"TFL3"
_VERSION = 3
_KINDS = {number: name for name, number in members("BuiltinOptions").items()}
_KINDS_2 = {number: name for name, number in members("BuiltinOptions2").items()}
_INDEX_VECTORS = {number: name for name, number in members("SparseIndexVector").items()}
_COMPRESSED = members("DimensionType")["SPARSE_CSR"]
_Code = tuple[str, int, str]
_Sparse = dict[int, Tensor]
_MOST_DENSE = 1024
"""Elements of all sparse constants once they are dense, for each byte of the file: none is this empty."""


def read_file(path: Path) -> TfliteModel:
    """Read a .tflite file; its constants stay on disk until they are looked at.

    Raises:
        ModelError: unreadable, no TFLite file, truncated or damaged.
        NotYetSupportedError: a tensor type, quantisation or file layout that is not supported yet.
    """
    try:
        with path.open("rb") as file:
            data: bytes | mmap.mmap = b""
            if file.seek(0, 2):
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as cause:
        raise ModelError(f"{path}: {getattr(cause, 'strerror', None) or cause}") from cause
    return read_bytes(memoryview(data), where=str(path))


def read_bytes(data: bytes | memoryview, *, where: str) -> TfliteModel:
    """Read a file's bytes; constants are views of them.

    Args:
        data: the whole file.
        where: how messages name it.

    Raises:
        ModelError, NotYetSupportedError: as `read_file`.
    """
    data = memoryview(data).toreadonly()
    if len(data) < 8 or data[4:8] != _IDENTIFIER:
        raise ModelError(f"{where}: not a TFLite file, or a truncated one ({len(data)} bytes)")
    return _Reader(Walk(data, where)).model()


class _Reader:
    """One file; what its tables share."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.root = walk.root("Model")
        version = self.root.Version()
        if version != _VERSION:
            raise ModelError(f"{walk.where}: version {version} of the TFLite format is unknown; version 3 is read")
        if self.root.ExternalBuffersLength():
            raise NotYetSupportedError(
                f"not yet: {walk.where}: its weights lie in other files: convert it with the weights inside"
            )
        self.dense = _MOST_DENSE * len(walk.data)
        self.buffers = list(walk.children(self.root, "Buffers"))
        self.codes = [self._code(one) for one in walk.children(self.root, "OperatorCodes")]

    def model(self) -> TfliteModel:
        subgraphs = [self._subgraph(one) for one in self.walk.children(self.root, "Subgraphs")]
        made = TfliteModel(
            subgraphs=subgraphs,
            description=self._text(self.root.Description(), "Model.Description"),
            signatures=[self._signature(one) for one in self.walk.children(self.root, "SignatureDefs")],
            metadata=dict(self._metadata(one) for one in self.walk.children(self.root, "Metadata")),
        )
        check_references(made, where=self.walk.where)
        return made

    def _code(self, table: Any) -> _Code:
        number = max(table.BuiltinCode(), table.DeprecatedBuiltinCode())
        if number not in OPERATOR_NAMES:
            raise ModelError(
                f"{self.walk.where}: {table._tab.label}: operator number {number} is unknown here: a damaged file, or "
                "one made by a newer TFLite"
            )
        if table.Version() < 1:
            raise self.walk.damaged(table._tab.label, f"version {table.Version()} of {OPERATOR_NAMES[number]}")
        return OPERATOR_NAMES[number], table.Version(), self._text(table.CustomCode(), table._tab.label)

    def _subgraph(self, table: Any) -> Subgraph:
        sparse: _Sparse = {}
        tensors = [
            self._tensor(one, index, sparse) for index, one in enumerate(self.walk.children(table, "Tensors"))
        ]  # fmt: skip
        operators = [self._operator(one) for one in self.walk.children(table, "Operators")]
        inputs = tuple(numbers(table.InputsAsNumpy()))
        _fill_empty(tensors, {*inputs, *(index for one in operators for index in one.outputs)})
        return Subgraph(
            name=self._text(table.Name(), table._tab.label),
            tensors=tensors,
            operators=[one for one in operators if not _densified(one, sparse, tensors)],
            inputs=inputs,
            outputs=tuple(numbers(table.OutputsAsNumpy())),
        )

    def _tensor(self, table: Any, index: int, sparse: _Sparse) -> Tensor:
        label = table._tab.label
        dtype = TYPE_NAMES.get(table.Type())
        if dtype is None:
            kind = next((name for name, number in TYPES.items() if number == table.Type()), "")
            if not kind:
                raise self.walk.damaged(label, f"type {table.Type()} is unknown")
            raise NotYetSupportedError(f"not yet: {self.walk.where}: {label} has elements of type {kind}")
        shape = tuple(numbers(table.ShapeAsNumpy()))
        check_shape(shape, dtype, where=self.walk.where, label=label)
        signature = tuple(numbers(table.ShapeSignatureAsNumpy()))
        made = Tensor(
            name=self._text(table.Name(), label),
            shape=shape,
            dtype=dtype,
            signature=self._signed(signature, shape, label) if -1 in signature else None,
            quantization=self._quantization(table, shape),
            variable=table.IsVariable(),
        )
        stored = self._buffer(table.Buffer(), label)
        return made if stored is None else self._constant(table, made, stored, index, sparse)

    def _constant(self, table: Any, made: Tensor, stored: memoryview, index: int, sparse: _Sparse) -> Tensor:
        sparsity = self.walk.child(table.Sparsity(), f"{table._tab.label}.Sparsity")
        try:
            if sparsity is None:
                return replace(made, data=array_of(stored, made))
            made = replace(made, data=self._dense(self._sparsity(sparsity), stored, made))
        except ValueError as cause:
            raise self.walk.damaged(table._tab.label, str(cause)) from cause
        sparse[index] = made
        return made

    def _dense(self, sparsity: Sparsity, stored: memoryview, tensor: Tensor) -> npt.NDArray[np.generic]:
        count = math.prod(tensor.shape)
        self.dense -= count
        if self.dense < 0:
            raise ValueError(f"a sparse constant of {count} elements in a file of {len(self.walk.data)} bytes")
        at = places(sparsity, tensor.shape)
        values = array_of(stored, Tensor("", (len(at),), tensor.dtype))
        dense = np.zeros(count, values.dtype)
        dense[at] = values
        return dense.reshape(tensor.shape)

    def _sparsity(self, table: Any) -> Sparsity:
        axes = []
        for one in self.walk.children(table, "DimMetadata"):
            if one.Format() != _COMPRESSED:
                axes.append(Axis(one.DenseSize(), np.zeros(0, np.int64), np.zeros(0, np.int64)))
                continue
            axes.append(
                Axis(
                    None,
                    self._indices(one, "ArraySegments", one.ArraySegmentsType()),
                    self._indices(one, "ArrayIndices", one.ArrayIndicesType()),
                )
            )
        return Sparsity(numbers(table.TraversalOrderAsNumpy()), numbers(table.BlockMapAsNumpy()), axes)

    def _indices(self, table: Any, field: str, kind: int) -> npt.NDArray[np.int64]:
        if kind not in _INDEX_VECTORS or not kind or getattr(table, field)() is None:
            raise self.walk.damaged(table._tab.label, f"{field} has no known type")
        return np.asarray(self.walk.member(table, field, _INDEX_VECTORS[kind]).ValuesAsNumpy()).astype(np.int64)

    def _quantization(self, tensor: Any, shape: tuple[int, ...]) -> Quantization | None:
        label = f"{tensor._tab.label}.Quantization"
        table = self.walk.child(tensor.Quantization(), label)
        if table is None:
            return None
        if table.DetailsType():
            raise NotYetSupportedError(f"not yet: {self.walk.where}: {label}: quantised in another way than by scales")
        scale = table.ScaleAsNumpy()
        if not isinstance(scale, np.ndarray) or not len(scale):
            return None
        points = table.ZeroPointAsNumpy()
        points = points if isinstance(points, np.ndarray) and len(points) else np.zeros(1, np.int64)
        if len(points) == 1:
            points = np.repeat(points, len(scale))
        made = Quantization(scale.astype(np.float32), points.astype(np.int64), table.QuantizedDimension())
        check_quantization(made, shape, where=self.walk.where, label=label)
        return made

    def _signed(self, signature: tuple[int, ...], shape: tuple[int, ...], label: str) -> tuple[int, ...]:
        if len(signature) != len(shape) or min(signature) < -1:
            raise self.walk.damaged(label, f"the shape {list(shape)} with the signature {list(signature)}")
        return signature

    def _buffer(self, index: int, label: str) -> memoryview | None:
        """The bytes of a buffer; None for what is computed (buffer 0, or an empty one)."""
        if not index:
            return None
        if index >= len(self.buffers):
            raise self.walk.damaged(label, f"buffer {index} of {len(self.buffers)}")
        try:
            return stored_bytes(self.buffers[index], self.walk.data)
        except ValueError as cause:
            raise self.walk.damaged(label, str(cause)) from cause

    def _operator(self, table: Any) -> Operator:
        label = table._tab.label
        if table.OpcodeIndex() >= len(self.codes):
            raise self.walk.damaged(label, f"operator code {table.OpcodeIndex()} of {len(self.codes)}")
        code, version, custom = self.codes[table.OpcodeIndex()]
        try:
            options = self._options(code, table)
        except ValueError as cause:
            raise self.walk.damaged(label, str(cause)) from cause
        return Operator(
            code=code,
            inputs=tuple(numbers(table.InputsAsNumpy())),
            outputs=tuple(numbers(table.OutputsAsNumpy())),
            options=options,
            version=version,
            custom=custom,
            intermediates=tuple(numbers(table.IntermediatesAsNumpy())),
        )

    def _options(self, code: str, table: Any) -> Options:
        if code == "CUSTOM":
            if table.LargeCustomOptionsOffset():
                raise NotYetSupportedError(f"not yet: {self.walk.where}: {table._tab.label}: large custom options")
            found = table.CustomOptionsAsNumpy()
            if not isinstance(found, np.ndarray):
                return {}
            self.walk.read(len(found), table._tab.label)
            return options_of(code, found.tobytes())
        for field, kinds, kind in (
            ("BuiltinOptions", _KINDS, table.BuiltinOptionsType()),
            ("BuiltinOptions2", _KINDS_2, table.BuiltinOptions2Type()),
        ):
            if kind and getattr(table, field)() is not None:
                return self._table(code, table, field, kinds.get(kind, ""))
        return {}

    def _table(self, code: str, table: Any, field: str, kind: str) -> Options:
        if kind not in TABLES.values():
            raise ValueError(f"options of an unknown kind for {code}")
        if code not in TABLES:  # some converters give each operator an empty table
            return {}
        made = getattr(SCHEMA, kind + "T").InitFromObj(self.walk.member(table, field, kind))
        return options_of(code, made)

    def _signature(self, table: Any) -> Signature:
        return Signature(
            key=self._text(table.SignatureKey(), table._tab.label),
            inputs=self._names(table, "Inputs"),
            outputs=self._names(table, "Outputs"),
            subgraph=table.SubgraphIndex(),
        )

    def _names(self, table: Any, field: str) -> Mapping[str, int]:
        entries = list(self.walk.children(table, field))
        return {self._text(one.Name(), one._tab.label): one.TensorIndex() for one in entries}

    def _metadata(self, table: Any) -> tuple[str, bytes]:
        label = table._tab.label
        found = self._buffer(table.Buffer(), label)
        self.walk.read(len(found or b""), label)
        return self._text(table.Name(), label), bytes(found or b"")

    def _text(self, found: bytes | None, label: str) -> str:
        try:
            return (found or b"").decode()
        except UnicodeDecodeError as cause:
            raise self.walk.damaged(label, "a name in it is no UTF-8 text") from cause


def _fill_empty(tensors: list[Tensor], made: AbstractSet[int]) -> None:
    """Constants without elements have no bytes either, so that only what nothing makes shows that they are some."""
    for index, one in enumerate(tensors):
        if one.data is None and not one.variable and index not in made and 0 in one.shape:
            dtype = {"int4": "int8", "bfloat16": "uint16"}.get(one.dtype, one.dtype)
            if dtype not in {"string", "resource", "variant"}:
                tensors[index] = replace(one, data=np.zeros(one.shape, dtype))


def _densified(operator: Operator, sparse: _Sparse, tensors: list[Tensor]) -> bool:
    """Whether it only makes a sparse constant dense; then its output becomes that constant."""
    if operator.code != "DENSIFY" or len(operator.inputs) != 1 or len(operator.outputs) != 1:
        return False
    made, (output,) = sparse.get(operator.inputs[0]), operator.outputs
    if made is None or not 0 <= output < len(tensors) or tensors[output].data is not None:
        return False
    if tensors[output].shape != made.shape or tensors[output].dtype != made.dtype:
        return False
    tensors[output] = replace(tensors[output], data=made.data)
    return True
