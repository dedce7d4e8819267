"""A subgraph's tensors as ONNX values: in which orders of axes they are there, as steps or as real numbers.

Two rules keep the graph small. An operator that works channels first says so of what it reads and gives; the Transpose
that this takes is made once, when somebody asks for a tensor in an order in which it is not there yet. And a quantised
tensor is held as the steps that the file has; who wants real numbers gets them through a DequantizeLinear right before
it, so that each operator stands between Q and DQ, as runtimes expect where they run integers.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from converters.importers.tflite.graph import Graph
from converters.tflite.model import Quantization, Tensor, TfliteModel

Perm = tuple[int, ...]
"""Axis i of the value is axis perm[i] of the file's tensor; () for the file's own order."""
_STEPS = {"int4", "int8", "uint8", "int16"}


def is_steps(tensor: Tensor) -> bool:
    """Whether its elements are steps of a scale and not numbers of their own."""
    return tensor.dtype in _STEPS and tensor.quantization is not None and bool(np.all(tensor.quantization.scale > 0))


class Read(Protocol):
    def __call__(self, scope: "Scope", /) -> None: ...


class Scope:
    """The values of one subgraph.

    Args:
        model: the file.
        number: of the subgraph.
        graph: where nodes go.
        real: make a float graph: tensors are held as real numbers, and rounding to steps is left out.
        read: reads all operators of a scope whose inputs are bound; those with bodies call it for them.
    """

    def __init__(self, model: TfliteModel, number: int, graph: Graph, *, real: bool, read: "Read") -> None:
        subgraph = model.subgraphs[number]
        self.model = model
        self.read = read
        self.number = number
        self.subgraph = subgraph
        self.graph = graph
        self.all_real = real
        self._held: dict[int, dict[Perm, str]] = {}
        self._folded: dict[int, npt.NDArray[np.generic]] = {}
        self._reals: dict[tuple[int, Perm], str] = {}

    def tensor(self, index: int) -> Tensor:
        return self.subgraph.tensors[index]

    def inner(self, number: int, graph: Graph) -> "Scope":
        """Another subgraph, whose nodes go to `graph`."""
        return Scope(self.model, number, graph, real=self.all_real, read=self.read)

    def bind(self, index: int, name: str, perm: Perm = ()) -> None:
        """Say which value a tensor is, as the file has it (or as real numbers, where all are)."""
        self._held.setdefault(index, {})[plain(perm)] = name

    def give(self, index: int, name: str, perm: Perm = ()) -> None:
        """Say which value a tensor is, in real numbers; it is rounded to steps where the file has them."""
        if is_steps(self.tensor(index)) and not self.all_real:
            quantization = self.tensor(index).quantization
            assert quantization is not None
            scales = self._scales(quantization, self.tensor(index).dtype)
            axis = _axis(quantization, perm)
            name = self.graph.add("QuantizeLinear", name, *scales, wish=self._wish(index, "steps"), **axis)
        self.bind(index, name, perm)

    def fold(self, index: int, array: npt.NDArray[np.generic]) -> None:
        """Say that a computed tensor is a constant."""
        self._folded[index] = array

    def orders(self, index: int) -> list[Perm]:
        """The orders of axes in which a computed tensor is there; none for a constant."""
        return list(self._held.get(index, ()))

    def array(self, index: int) -> npt.NDArray[np.generic] | None:
        """A constant's elements as the file has them; None for what is computed."""
        data = self._folded.get(index, self.tensor(index).data)
        if data is None:
            return None
        return data if isinstance(data, np.ndarray) else data.numpy()

    def stored(self, index: int, perm: Perm = (), rank: int = 0) -> str:
        """The value of a tensor as the file has it.

        Args:
            index: of the tensor.
            perm: order of axes.
            rank: to which axes of size 1 are put before a constant's own.
        """
        perm = plain(perm)
        array = self.array(index)
        if array is not None:
            return self._constant(index, _shaped(array, perm, rank), perm)
        held = self._held[index]
        if perm not in held:
            have = next(iter(held))
            axes = have or tuple(range(len(perm or have)))
            wanted = perm or tuple(range(len(have)))
            order = [axes.index(axis) for axis in wanted]
            held[perm] = self.graph.add("Transpose", held[have], perm=order, wish=self._wish(index, "transposed"))
        return held[perm]

    def real(self, index: int, perm: Perm = (), rank: int = 0) -> str:
        """The value of a tensor in real numbers. Arguments as of `stored`."""
        tensor, perm = self.tensor(index), plain(perm)
        quantization = tensor.quantization
        if not is_steps(tensor) or quantization is None or (self.all_real and self.array(index) is None):
            return self.stored(index, perm, rank)
        key = (index, perm)
        if key not in self._reals or rank:
            self._reals[key] = self._dequantized(index, tensor, quantization, perm, rank)
        return self._reals[key]

    def _dequantized(self, index: int, tensor: Tensor, quantization: Quantization, perm: Perm, rank: int) -> str:
        array = self.array(index)
        if array is not None and (self.all_real or tensor.dtype == "int16"):
            return self._constant(index, _shaped(dequantized(array, quantization), perm, rank), perm)
        lifted = max(rank - len(tensor.shape), 0)
        scales = self._scales(quantization, tensor.dtype)
        name = self.stored(index, perm, rank)
        return self.graph.add(
            "DequantizeLinear", name, *scales, wish=self._wish(index, "real"), **_axis(quantization, perm, lifted)
        )

    def bias(self, index: int, scale: npt.NDArray[np.float32]) -> str:
        """A bias of whole numbers, of which kernels know that one step is input scale x weight scale.

        Args:
            index: of its tensor, a constant.
            scale: shape (1,) or (channels,).
        """
        array = self.array(index)
        assert array is not None
        if self.all_real or array.dtype == np.int64:
            return self._constant(index, (array * scale.astype(np.float64)).astype(np.float32), ())
        steps, wish = self._constant(index, array, ()), self._wish(index, "real")
        value = scale if len(scale) > 1 else scale.reshape(())
        return self.graph.add("DequantizeLinear", steps, self.graph.constant(value, "scale"), axis=0, wish=wish)

    def _constant(self, index: int, array: npt.NDArray[np.generic], perm: Perm) -> str:
        held = self._held.setdefault(index, {})
        own = array.ndim == len(self.tensor(index).shape) and array.dtype == _plain_type(self.tensor(index))
        if not own:
            return self.graph.constant(array, self._wish(index, "constant"))
        if perm not in held:
            held[perm] = self.graph.constant(array, self._wish(index, "constant"))
        return held[perm]

    def _scales(self, quantization: Quantization, dtype: str) -> tuple[str, str]:
        """Scale and zero point as constants, scalars where there is one."""
        dtype = "int8" if dtype == "int4" else dtype
        scale, point = quantization.scale, quantization.zero_point.astype(dtype)
        if not quantization.per_channel:
            scale, point = scale.reshape(()), point.reshape(())
        return self.graph.constant(scale, "scale"), self.graph.constant(point, "zero_point")

    def _wish(self, index: int, what: str) -> str:
        return f"{self.tensor(index).name or f'tensor_{index}'}_{what}"


def plain(perm: Perm) -> Perm:
    """The same order, () where it is the file's own."""
    return () if perm == tuple(range(len(perm))) else perm


def dequantized(array: npt.NDArray[np.generic], quantization: Quantization) -> npt.NDArray[np.float32]:
    """A constant in real numbers."""
    shape = [1] * array.ndim
    if quantization.per_channel:
        shape[quantization.axis] = -1
    steps = array.astype(np.float32) - quantization.zero_point.astype(np.float32).reshape(shape)
    made: npt.NDArray[np.float32] = steps * quantization.scale.reshape(shape)
    return made.reshape(array.shape)


def _shaped(array: npt.NDArray[np.generic], perm: Perm, rank: int) -> npt.NDArray[np.generic]:
    if rank > array.ndim:
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    return array.transpose(perm) if perm else array


def _axis(quantization: Quantization, perm: Perm, lifted: int = 0) -> dict[str, int]:
    if not quantization.per_channel:
        return {}
    axis = quantization.axis + lifted
    return {"axis": perm.index(axis) if perm else axis}


def _plain_type(tensor: Tensor) -> npt.DTypeLike:
    return {"int4": "int8", "bfloat16": "uint16", "string": "object"}.get(tensor.dtype, tensor.dtype)


def orders_in_common(scope: Scope, indices: Sequence[int], rank: int) -> Perm:
    """The order that elementwise operators keep: that of the first computed input which is not there in the file's."""
    for index in indices:
        orders = scope.orders(index)
        if orders and () not in orders and len(orders[0]) == rank and scope.array(index) is None:
            return orders[0]
    return ()
