"""Keeps LiteRT's own kernels from overwriting a tensor that is read later.

Some kernels write over their input where nobody else reads it, and a RESHAPE's output is its input's memory. LiteRT
2.3 asks how often the input is read, and how often the first tensor in that memory is, but not whether a third tensor
in it is read later: with a = x * c (written over x) and b = RESHAPE(a), b + c destroys a. XNNPACK plans its memory
otherwise, and tflite-runtime 2.14 is right too. (tensorflow/lite/arena_planner.cc, `IdentifyInPlaceTensors`; measured:
tests/converters/tflite/test_inplace.py.)

A second reader of b keeps its memory as it is. A SHAPE that nobody reads is one, and costs next to nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

from converters.tflite.model import Operator, Subgraph, Tensor
from converters.tflite.versions import needed_version

VIEWS = frozenset({"BITCAST", "EXPAND_DIMS", "RESHAPE", "SQUEEZE"})
"""Kernels whose output is their first input's memory."""
OVERWRITE = frozenset({"ADD", "DIV", "MUL", "SOFTMAX", "SUB"})
"""Kernels that may write over an input."""


def kept_apart(subgraph: Subgraph) -> Subgraph:
    """The subgraph, with a SHAPE beside each tensor that an operator would wrongly be given to write over."""
    memory = _Memory(subgraph)
    tensors, operators = list(subgraph.tensors), []
    for position, operator in enumerate(subgraph.operators):
        for index in memory.endangered(position, operator):
            tensors.append(Tensor(f"{tensors[index].name}/read_{position}", (len(tensors[index].shape),), "int32"))
            reader = Operator("SHAPE", (index,), (len(tensors) - 1,), {"out_type": "int32"})
            operators.append(replace(reader, version=needed_version(reader, tensors)))
        operators.append(operator)
        memory.share(operator)
    return replace(subgraph, tensors=tensors, operators=operators)


class _Memory:
    """Which tensors may lie in the same memory; where it is not certain, they may."""

    def __init__(self, subgraph: Subgraph) -> None:
        self._tensors = subgraph.tensors
        self._fed = set(subgraph.inputs)
        self._given = set(subgraph.outputs)
        self._reads: dict[int, list[int]] = {}
        for position, operator in enumerate(subgraph.operators):
            for index in operator.inputs:
                self._reads.setdefault(index, []).append(position)
        for index in (*subgraph.inputs, *subgraph.outputs):
            self._reads.setdefault(index, []).append(len(subgraph.operators))
        self._beside: dict[int, frozenset[int]] = {}

    def endangered(self, position: int, operator: Operator) -> list[int]:
        """Inputs that an operator may write over though another tensor there is read then or later."""
        return [index for index in self._written_over(operator) if self._is_needed(index, position)]

    def share(self, operator: Operator) -> None:
        """An operator's output comes to lie with its input."""
        if operator.code in VIEWS:
            sources: Sequence[int] = operator.inputs[:1]
        else:
            sources = self._written_over(operator)
        for index in sources:
            if self._tensors[index].data is None and index not in self._fed:
                group = self._group(index) | self._group(operator.outputs[0])
                self._beside |= dict.fromkeys(group, group)

    def _written_over(self, operator: Operator) -> list[int]:
        if operator.code not in OVERWRITE or operator.outputs[0] in self._given:
            return []
        found = dict.fromkeys(index for index in operator.inputs if self._tensors[index].data is None)
        return [index for index in found if len(self._reads[index]) == 1]

    def _is_needed(self, index: int, position: int) -> bool:
        """Whether another tensor in the same memory is."""
        return any(max(self._reads.get(other, [-1])) >= position for other in self._group(index) - {index})

    def _group(self, index: int) -> frozenset[int]:
        return self._beside.get(index, frozenset({index}))
