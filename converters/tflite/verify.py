"""What a file says of itself, held against itself: indices, sizes, order, calls. The rest assumes all of it."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from converters.tflite.model import Operator, Quantization, Subgraph, TfliteModel
from lepton_edge.errors import ModelError

MAX_RANK = 32
MAX_ELEMENTS = 2**31 - 1
"""Kernels count elements in 32 bits."""
_CALLS = (
    "then_subgraph_index", "else_subgraph_index", "cond_subgraph_index", "body_subgraph_index",
    "decomposition_subgraph_index", "init_subgraph_index",
)  # fmt: skip
"""Options that name another subgraph."""


def check_shape(shape: Sequence[int], dtype: str, *, where: str, label: str) -> None:
    """Refuse sizes that no tensor can have.

    Raises:
        ModelError: negative sizes, too many axes or too many elements.
    """
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise ModelError(f"{where}: damaged: {label}: a tensor of {len(shape)} axes {list(shape[:MAX_RANK])}")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"{where}: {label}: {math.prod(shape)} elements of {dtype}: TFLite counts them in 32 bits")


def check_quantization(quantization: Quantization, shape: Sequence[int], *, where: str, label: str) -> None:
    """Refuse scales that do not belong to the shape, or that are no scales.

    Raises:
        ModelError: naming what does not fit.
    """
    scale, points, axis = quantization.scale, quantization.zero_point, quantization.axis
    if len(points) != len(scale):
        raise ModelError(f"{where}: damaged: {label}: {len(scale)} scales and {len(points)} zero points")
    if quantization.per_channel and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        raise ModelError(f"{where}: damaged: {label}: {len(scale)} scales along axis {axis} of {list(shape)}")
    if not np.all(np.isfinite(scale)) or np.any(scale < 0):
        raise ModelError(f"{where}: damaged: {label}: a scale that is negative, infinite or no number")


def check_references(model: TfliteModel, *, where: str) -> None:
    """Refuse indices that name nothing, tensors that are read before they are computed, and calls in a circle.

    Raises:
        ModelError: naming the subgraph and the operator.
    """
    if not model.subgraphs:
        raise ModelError(f"{where}: it holds no subgraph, so there is nothing to run")
    for number, subgraph in enumerate(model.subgraphs):
        _check_subgraph(subgraph, f"{where}: damaged: subgraph {number}")
    for one in model.signatures:
        if one.subgraph >= len(model.subgraphs):
            raise ModelError(f"{where}: damaged: signature {one.key!r} names subgraph {one.subgraph}")
        _check_indices(
            [*one.inputs.values(), *one.outputs.values()],
            model.subgraphs[one.subgraph],
            f"{where}: damaged: signature {one.key!r}",
        )
    _check_calls(model, where)


def _check_subgraph(subgraph: Subgraph, where: str) -> None:
    _check_indices(subgraph.inputs, subgraph, f"{where}: inputs")
    _check_indices(subgraph.outputs, subgraph, f"{where}: outputs")
    if len(set(subgraph.inputs)) < len(subgraph.inputs):
        raise ModelError(f"{where}: a tensor is listed twice among its inputs")
    known = {index for index, tensor in enumerate(subgraph.tensors) if tensor.data is not None or tensor.variable}
    fed = set(subgraph.inputs)
    if fed & known - {index for index in fed if subgraph.tensors[index].variable}:
        raise ModelError(f"{where}: a constant is an input")
    known |= fed
    for number, operator in enumerate(subgraph.operators):
        _check_operator(operator, subgraph, known, f"{where}, operator {number} ({operator.code})")
    missing = [index for index in subgraph.outputs if index not in known]
    if missing:
        raise ModelError(f"{where}: nothing computes its output {missing[0]}")


def _check_operator(operator: Operator, subgraph: Subgraph, known: set[int], where: str) -> None:
    """`known` gains what the operator computes."""
    _check_indices([index for index in operator.inputs if index != -1], subgraph, where)
    _check_indices(operator.outputs, subgraph, where)
    _check_indices([index for index in operator.intermediates if index != -1], subgraph, where)
    early = [index for index in operator.inputs if index != -1 and index not in known]
    if early:
        raise ModelError(f"{where}: it reads tensor {early[0]}, which nothing before it computes")
    twice = [index for index in operator.outputs if index in known]
    if twice or len(set(operator.outputs)) < len(operator.outputs):
        raise ModelError(f"{where}: it computes a tensor that is there already: {sorted(set(twice))}")
    known.update(operator.outputs)


def _check_indices(indices: Sequence[int], subgraph: Subgraph, where: str) -> None:
    count = len(subgraph.tensors)
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise ModelError(f"{where}: there is no tensor {wrong[0]}, only {count}")


def called(operator: Operator) -> Iterator[int]:
    """The subgraphs that an operator runs."""
    for option in _CALLS:
        value = operator.options.get(option)
        if isinstance(value, int):
            yield value


def _check_calls(model: TfliteModel, where: str) -> None:
    """Take away subgraphs that nothing calls, again and again; a circle stays. Source: Kahn, CACM 5 (1962)."""
    calls = [sorted({one for op in subgraph.operators for one in called(op)}) for subgraph in model.subgraphs]
    for number, found in enumerate(calls):
        wrong = [one for one in found if not 0 <= one < len(calls)]
        if wrong:
            raise ModelError(f"{where}: damaged: subgraph {number} calls subgraph {wrong[0]} of {len(calls)}")
    callers = Counter(one for found in calls for one in found)
    ready = [one for one in range(len(calls)) if not callers[one]]
    for one in ready:
        for callee in calls[one]:
            callers[callee] -= 1
            if not callers[callee]:
                ready.append(callee)
    if len(ready) < len(calls):
        raise ModelError(f"{where}: damaged: subgraphs that call each other in a circle")
