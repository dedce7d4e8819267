"""A TFLite file as values: what the flatbuffer schema says, without its offsets and buffers.

Names of operators, options and fields are the schema's own (tensorflow/compiler/mlir/lite/schema/schema.fbs), fields in
its snake case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Data = npt.NDArray[np.generic] | ir.TensorProtocol
"""Constants: an array, or a tensor that reads its array when it is asked (so that weights may stay on disk)."""

DType = Literal[
    "float16", "float32", "float64", "bfloat16", "int4", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "string", "resource", "variant",
]  # fmt: skip

Option = int | float | bool | str | Sequence[int] | Sequence[float]
Options = Mapping[str, Option]


@dataclass(frozen=True, eq=False)
class Quantization:
    """real = scale * (step - zero_point), per tensor or along one axis.

    Attributes:
        scale: float32, shape (1,) or (channels,).
        zero_point: int64, of the same shape.
        axis: of the tensor's shape; 0 where there is one scale.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int = 0

    @property
    def per_channel(self) -> bool:
        return len(self.scale) > 1

    def same(self, other: "Quantization | None") -> bool:
        """Whether both say the same of every step."""
        return (
            other is not None
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a subgraph.

    Attributes:
        name: need not be unique in the format; what we write is.
        shape: sizes; 1 stands where `signature` has -1.
        dtype: NumPy's name where NumPy has the type.
        signature: shape with -1 for open axes (the schema's shape_signature); None where no axis is open.
        quantization: None for a tensor without scales.
        data: of `shape`; None for what is computed or fed.
        variable: state that stays between runs (is_variable).
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    signature: tuple[int, ...] | None = None
    quantization: Quantization | None = None
    data: Data | None = None
    variable: bool = False


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        code: of the enum BuiltinOperator ("CONV_2D"); "CUSTOM" with `custom` naming it.
        inputs: indices of the subgraph's tensors; -1 where an optional one is absent.
        outputs: likewise.
        options: the fields of the operator's options table by the schema's names; absent ones have its defaults.
        version: as the operator code says.
        custom: name of a custom operator.
        intermediates: of operators that have some (LSTM).
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options = field(default_factory=dict)
    version: int = 1
    custom: str = ""
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Subgraph:
    """The first one of a model is what runs; others are the branches and bodies of control flow."""

    name: str
    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """A named way to run a subgraph: names of its inputs and outputs, with the tensors' indices."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    subgraph: int = 0


@dataclass(frozen=True, eq=False)
class TfliteModel:
    """A whole file."""

    subgraphs: Sequence[Subgraph]
    description: str = ""
    signatures: Sequence[Signature] = ()
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def main(self) -> Subgraph:
        return self.subgraphs[0]
