"""The tensors and operators of one subgraph as they are added, one after another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from converters.tflite.model import Data, DType, Operator, Option, Quantization, Tensor
from converters.tflite.versions import needed_version
from converters.write.tflite.program import Size

OPEN = -1


class Builder:
    """Gives tensors their numbers and names, and operators their versions."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self._sizes: list[tuple[Size, ...]] = []
        self._names: set[str] = set()
        self._numbers: dict[tuple[str, bytes, tuple[int, ...]], int] = {}
        self._shapes: dict[int, int] = {}

    def reserve(self, name: str) -> None:
        """Keep a name for a tensor that comes later."""
        self._names.add(name)

    def tensor(
        self,
        name: str,
        sizes: Sequence[Size],
        dtype: DType,
        quantization: Quantization | None = None,
        data: Data | None = None,
    ) -> int:
        """Add a tensor under a name like `name`; open sizes are names."""
        signature = tuple(OPEN if isinstance(size, str) else size for size in sizes)
        shape = tuple(1 if size == OPEN else size for size in signature)
        made = Tensor(self._free(name), shape, dtype, signature if OPEN in signature else None, quantization, data)
        self._names.add(made.name)
        self.tensors.append(made)
        self._sizes.append(tuple(sizes))
        return len(self.tensors) - 1

    def like(self, index: int, sizes: Sequence[Size]) -> int:
        """A tensor of the same type and scale with other sizes."""
        old = self.tensors[index]
        return self.tensor(old.name, sizes, old.dtype, old.quantization)

    def sizes(self, index: int) -> tuple[Size, ...]:
        """Of a tensor; names for open ones."""
        return self._sizes[index]

    def rename(self, index: int, name: str) -> None:
        """Give a tensor a name that was kept for it."""
        self.tensors[index] = replace(self.tensors[index], name=name)

    def numbers(self, array: npt.NDArray[np.generic]) -> int:
        """A small constant of integers; equal ones are one tensor."""
        dtype: DType = "int64" if array.dtype == np.int64 else "int32"
        data = np.asarray(array, dtype, order="C")
        key = (dtype, data.tobytes(), data.shape)
        if key not in self._numbers:
            self._numbers[key] = self.tensor("numbers", data.shape, dtype, data=data)
        return self._numbers[key]

    def operator(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Mapping[str, Option] | None = None,
    ) -> None:
        """Add an operator in the lowest version that says it."""
        made = Operator(code, tuple(inputs), tuple(outputs), dict(options or {}))
        self.operators.append(replace(made, version=needed_version(made, self.tensors)))

    def reshape(self, source: int, made: int) -> None:
        """Read one tensor with the shape of another."""
        sizes = self.sizes(made)
        if not sizes:
            # An empty shape would be a constant without bytes, which runtimes take for one that somebody computes.
            self.operator("SQUEEZE", (source,), (made,))
            return
        opened = [size for size in sizes if isinstance(size, str)]
        if len(opened) <= 1:
            shape = [OPEN if isinstance(size, str) else size for size in sizes]
            self.operator("RESHAPE", (source, self.numbers(np.array(shape, np.int32))), (made,), {"new_shape": shape})
        else:
            self.operator("RESHAPE", (source, self._computed_shape(source, sizes)), (made,))

    def transpose(self, source: int, order: Sequence[int], made: int) -> None:
        """Axis i of `made` is axis order[i] of `source`."""
        self.operator("TRANSPOSE", (source, self.numbers(np.array(order, np.int32))), (made,))

    def _computed_shape(self, source: int, sizes: Sequence[Size]) -> int:
        """Several open sizes: those that the source has are taken from its shape, and one more may follow."""
        known = self.sizes(source)
        given = self._shapes.get(source)
        if given is None:
            given = self._shapes[source] = self.tensor("shape", (len(known),), "int32")
            self.operator("SHAPE", (source,), (given,), {"out_type": "int32"})
        constants = [size for size in sizes if isinstance(size, int)] + [OPEN]
        both = self.tensor("shape", (len(known) + len(constants),), "int32")
        joined = (given, self.numbers(np.array(constants, np.int32)))
        self.operator("CONCATENATION", joined, (both,), {"axis": 0})
        places = [self._place(size, known, constants) for size in sizes]
        made = self.tensor("shape", (len(sizes),), "int32")
        self.operator("GATHER", (both, self.numbers(np.array(places, np.int32))), (made,), {"axis": 0})
        return made

    @staticmethod
    def _place(size: Size, known: Sequence[Size], constants: Sequence[int]) -> int:
        if isinstance(size, str):
            return known.index(size) if size in known else len(known) + len(constants) - 1
        return len(known) + constants.index(size)

    def _free(self, name: str) -> str:
        if name not in self._names:
            return name
        count = 1
        while f"{name}_{count}" in self._names:
            count += 1
        return f"{name}_{count}"
