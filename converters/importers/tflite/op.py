"""One operator of a file, as the small functions that read operators see it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from converters.importers.tflite.graph import Attribute
from converters.importers.tflite.known import known_numbers
from converters.importers.tflite.scope import Perm, Scope, is_steps, orders_in_common
from converters.importers.tflite.widths import WIDE
from converters.tflite.model import Operator, Tensor
from lepton_edge.errors import UnsupportedOperatorError

Array = npt.NDArray[np.generic]
T = TypeVar("T", int, float, bool, str)

ONNX_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "string": 8, "bool": 9,
    "float16": 10, "float64": 11, "uint32": 12, "uint64": 13, "bfloat16": 16, "int4": 3,
}  # fmt: skip
"""Type -> TensorProto.DataType."""


class Op:
    """An operator with its surroundings.

    Args:
        scope: the values around it.
        operator: of the file.
        label: how messages name it.
    """

    def __init__(self, scope: Scope, operator: Operator, label: str) -> None:
        self.scope = scope
        self.operator = operator
        self.label = label
        self.code = operator.code

    # what the file says

    def has(self, position: int) -> bool:
        return position < len(self.operator.inputs) and self.operator.inputs[position] >= 0

    @property
    def count(self) -> int:
        """Of inputs."""
        return len(self.operator.inputs)

    def index(self, position: int) -> int:
        if not self.has(position):
            raise self.refuse(f"it lacks its input {position}")
        return self.operator.inputs[position]

    def tensor(self, position: int) -> Tensor:
        return self.scope.tensor(self.index(position))

    def result(self, position: int = 0) -> Tensor:
        if position >= len(self.operator.outputs):
            raise self.refuse(f"it lacks its output {position}")
        return self.scope.tensor(self.operator.outputs[position])

    def shape(self, position: int) -> tuple[int, ...]:
        return self.tensor(position).shape

    def sizes(self, position: int) -> list[int | None]:
        """The sizes of an input, None for open ones."""
        return sizes(self.tensor(position))

    def rank(self, position: int, *allowed: int) -> int:
        """The rank of an input; raises where it is none of those that the kernel takes."""
        found = len(self.shape(position))
        if allowed and found not in allowed:
            raise self.refuse(f"its input {position} has {found} axes")
        return found

    def option(self, name: str, default: T) -> T:
        value = self.operator.options.get(name, default)
        if not isinstance(value, type(default)) and not (isinstance(default, float) and isinstance(value, int)):
            raise self.refuse(f"its option {name} is {value!r}")
        return type(default)(value)

    def flag(self, name: str) -> bool:
        """An option that is off where the file says nothing of it."""
        return self.option(name, default=False)

    def constant(self, position: int) -> Array | None:
        """The elements of a constant input; None for a computed or an absent one."""
        return self.scope.array(self.index(position)) if self.has(position) else None

    def array(self, position: int, what: str) -> Array:
        """The elements of an input that must be a constant."""
        found = self.constant(position)
        if found is None:
            raise self.refuse(f"its {what} is computed; it must be a constant")
        return found

    def known(self, position: int) -> list[int | None]:
        """The elements of an input of whole numbers, None for those that are not known before the file runs."""
        found = self.constant(position)
        if found is not None:
            return [int(one) for one in found.reshape(-1).tolist()]
        return known_numbers(self.scope.subgraph, self.index(position))

    def is_known(self, *positions: int) -> bool:
        """Whether all elements of these inputs are known."""
        return not any(None in self.known(one) for one in positions)

    def numbers(self, position: int, what: str) -> list[int]:
        """The whole numbers of an input that must be a constant, or be computed from nothing but what is known."""
        if self.constant(position) is None:
            known = self.known(position)
            if known and None not in known:
                return [one for one in known if one is not None]
        found = self.array(position, what)
        if not np.issubdtype(found.dtype, np.integer):
            raise self.refuse(f"its {what} is {found.dtype}")
        return [int(one) for one in found.reshape(-1).tolist()]

    def axis(self, value: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= value < rank:
            raise self.refuse(f"axis {value} of {rank}")
        return value % rank

    @property
    def quantised(self) -> bool:
        """Whether its first input is held in steps."""
        return is_steps(self.tensor(0))

    @property
    def in_steps(self) -> bool:
        """Whether its first input is held in steps in the graph too."""
        return self.quantised and not self.scope.all_real

    def refuse(self, why: str) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(f"{self.label}: {why}", operator=self.code)

    # values

    def real(self, position: int, perm: Perm = ()) -> str:
        """An input in real numbers."""
        return self._widened(position, self.scope.real(self.index(position), perm))

    def _widened(self, position: int, name: str) -> str:
        """In a type that ONNX Runtime computes in, where it does not in this one; `out` makes it narrow again."""
        tensor = self.tensor(position)
        wide = "" if is_steps(tensor) else WIDE.get(self.code, {}).get(tensor.dtype, "")
        return self.add("Cast", name, to=ONNX_TYPES[wide]) if wide else name

    def working(self, position: int) -> str:
        """The type in which `real` gives an input."""
        tensor = self.tensor(position)
        return "float32" if is_steps(tensor) else WIDE.get(self.code, {}).get(tensor.dtype, tensor.dtype)

    def stored(self, position: int, perm: Perm = ()) -> str:
        """An input as the file has it."""
        return self.scope.stored(self.index(position), perm)

    def ints(self, position: int) -> str:
        """An input of whole numbers as int64."""
        found = self.constant(position)
        if found is not None:
            return self.scope.graph.constant(found.astype(np.int64), "ints")
        return self.add("Cast", self.stored(position), to=ONNX_TYPES["int64"])

    def order(self, *positions: int) -> Perm:
        """The order of axes that costs least, for an operator to which all orders are alike."""
        given = positions or tuple(range(self.count))
        indices = [self.index(one) for one in given if self.has(one)]
        return orders_in_common(self.scope, indices, len(self.result().shape))

    def aligned(self, position: int, perm: Perm, *, condition: bool = False) -> str:
        """An input of a broadcasting operator, in an order of the result's axes; a condition stays of its type."""
        index, rank = self.index(position), len(self.result().shape)
        missing = rank - len(self.shape(position))
        if not perm or not missing or self.constant(position) is not None:
            real = self.scope.real(index, perm, rank if perm else 0)
            return real if condition else self._widened(position, real)
        real = self.scope.real(index) if condition else self.real(position)
        lifted = self.add("Unsqueeze", real, self.scope.graph.ints(range(missing)))
        return self.add("Transpose", lifted, perm=list(perm))

    # what it becomes

    def add(self, op_type: str, *inputs: str, **attributes: Attribute) -> str:
        """A node with one output."""
        return self.scope.graph.add(op_type, *inputs, wish=f"{self.result().name or self.code}_{op_type}", **attributes)

    def several(self, op_type: str, *inputs: str, count: int, **attributes: Attribute) -> list[str]:
        return self.scope.graph.several(op_type, *inputs, count=count, wish=f"{self.code}_{op_type}", **attributes)

    def ints_of(self, values: Sequence[int]) -> str:
        return self.scope.graph.ints(values)

    def number(self, value: float, dtype: str = "float32") -> str:
        return self.scope.graph.scalar(value, dtype)

    def out(self, name: str, perm: Perm = (), *, at: int = 0) -> None:
        """Give an output in real numbers; the operator's fused activation comes before it."""
        if self.option("fused_activation_function", "NONE") == "TANH":
            raise self.refuse("its fused activation is TANH, which no kernel computes")
        name = self.activated(name)
        tensor = self.result(at)
        if tensor.dtype in WIDE.get(self.code, {}) and not is_steps(tensor):
            name = self.add("Cast", name, to=ONNX_TYPES[tensor.dtype])
        self.scope.give(self.operator.outputs[at], name, perm)

    def activated(self, name: str) -> str:
        """A value through the operator's fused activation."""
        fused = self.option("fused_activation_function", "NONE")
        if fused not in _FUSED:
            raise self.refuse(f"its fused activation is {fused}, which no kernel computes")
        return _FUSED[fused](self, name)

    def out_stored(self, name: str, perm: Perm = (), *, at: int = 0) -> None:
        """Give an output as the file has it."""
        self.scope.bind(self.operator.outputs[at], name, perm)

    def clip(self, name: str, low: float, high: float) -> str:
        dtype = self.result().dtype
        dtype = dtype if dtype in {"int32", "int64", "float64", "float16"} else "float32"
        return self.add("Clip", name, self.number(low, dtype), self.number(high, dtype))


Rule = Callable[[Op], None]

_FUSED: dict[str, Callable[[Op, str], str]] = {
    "NONE": lambda _, name: name,
    "RELU": lambda op, name: op.add("Relu", name),
    "RELU6": lambda op, name: op.clip(name, 0.0, 6.0),
    "RELU_N1_TO_1": lambda op, name: op.clip(name, -1.0, 1.0),
    "TANH": lambda op, name: op.add("Tanh", name),
}
"""Source: LiteRT, kernels/kernel_util.h. TANH is of recurrent operators alone: others say nothing and leave it out."""


def sizes(tensor: Tensor) -> list[int | None]:
    """The sizes of a tensor, None for open ones."""
    return [None if size == -1 else size for size in tensor.signature or tensor.shape]
