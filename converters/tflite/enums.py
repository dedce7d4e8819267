"""The schema's enums as names, and the schema's generated code (which has no types: nothing of it leaves this package).

Operators carry the schema's names ("CONV_2D"), tensor types NumPy's ("float32", which is the schema's FLOAT32), enums
inside options the schema's ("SAME", "RELU6").
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import get_args

from converters.tflite.model import DType

SCHEMA: ModuleType = import_module("ai_edge_litert.schema_py_generated")
"""Classes made by flatc from tensorflow/compiler/mlir/lite/schema/schema.fbs; its attributes have no types."""


def members(enum: str) -> dict[str, int]:
    """Name -> number of an enum or of a union's kinds."""
    return {name: number for name, number in vars(getattr(SCHEMA, enum)).items() if isinstance(number, int)}


OPERATORS: Mapping[str, int] = MappingProxyType(members("BuiltinOperator"))
OPERATOR_NAMES: Mapping[int, str] = MappingProxyType({number: name for name, number in OPERATORS.items()})

TYPES: Mapping[str, int] = MappingProxyType({name.lower(): number for name, number in members("TensorType").items()})
"""All types of the schema, also those that a `Tensor` cannot have yet."""
TYPE_NAMES: Mapping[int, DType] = MappingProxyType({TYPES[name]: name for name in get_args(DType)})
"""Those that a `Tensor` can have."""
