"""Subgraphs read into nodes: every operator through the table, and one error that names all which cannot be read."""

from collections.abc import Sequence

from converters.importers.tflite.op import ONNX_TYPES, Op
from converters.importers.tflite.ops.recurrent import RECURRENT
from converters.importers.tflite.scope import Scope, is_steps
from converters.importers.tflite.table import RULES
from converters.tflite.check_scales import unscaled
from converters.tflite.model import Operator, Subgraph, Tensor, TfliteModel
from converters.tflite.use import Use
from converters.tflite.verify import called
from lepton_edge.errors import UnsupportedOperatorError

_STATE = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "LSTM", "RNN", "SVDF"}
"""The last three make one step of time: their sense is the state that stays until the next one."""
_NO_STEPS = {"ATAN2", "BITWISE_XOR", "FLOOR_DIV", "FLOOR_MOD", "POW", "RIGHT_SHIFT"}
"""Operators whose kernels take steps of a scale for numbers of their own."""
_SHOWN = 20
"""Operators that an error names in full."""


def check_operators(model: TfliteModel, *, where: str) -> None:
    """Refuse what nothing here reads, all of it at once.

    Raises:
        UnsupportedOperatorError: with the numbers and outputs of all such operators.
    """
    found: list[tuple[str, str]] = []
    for number in _reached(model):
        subgraph = model.subgraphs[number]
        for index, operator in enumerate(subgraph.operators):
            why = _unreadable(operator, subgraph)
            if why:
                found.append((operator.custom or operator.code, f"{label(operator, index, subgraph, number)}: {why}"))
    refuse(found, where)


def refuse(found: Sequence[tuple[str, str]], where: str) -> None:
    """Raise for (operator, complaint), where there is any."""
    if not found:
        return
    shown = [complaint for _, complaint in found[:_SHOWN]]
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise UnsupportedOperatorError(
        f"{where}: {len(found)} operators cannot be read: {'; '.join(shown)}{more}: convert the model that the file "
        "was made from",
        operator=found[0][0],
    )


def label(operator: Operator, index: int, subgraph: Subgraph, number: int) -> str:
    """How messages name an operator: by its place, its kind and what it gives."""
    names = [subgraph.tensors[output].name for output in operator.outputs]
    within = f" of subgraph {number}" if number else ""
    return f"operator {index}{within} ({operator.custom or operator.code}, gives {', '.join(map(repr, names))})"


def _reached(model: TfliteModel) -> list[int]:
    """The subgraphs that the first one calls, itself included."""
    found = [0]
    for number in found:
        for operator in model.subgraphs[number].operators:
            found += [one for one in dict.fromkeys(called(operator)) if one not in found]
    return found


def _unreadable(operator: Operator, subgraph: Subgraph) -> str:
    if operator.code == "CUSTOM":
        return f"a custom operator ({operator.custom})"
    tensors = [subgraph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
    kept = any(tensor.variable for tensor in tensors) and operator.code not in RECURRENT
    if kept or operator.code in _STATE:
        return "state that stays between runs"
    if operator.code not in RULES:
        return "there is no ONNX form of it here"
    return _strange(operator, tensors) or next(unscaled(Use.of(operator, subgraph.tensors)), "")


def _strange(operator: Operator, tensors: Sequence[Tensor]) -> str:
    """Types that ONNX has no form of, or that a kernel takes for what they are not."""
    if operator.code in _NO_STEPS and any(is_steps(one) for one in tensors):
        return "its kernel computes with steps of a scale as if they were numbers"
    strange = {tensor.dtype for tensor in tensors} - set(ONNX_TYPES) | ({"string"} & {one.dtype for one in tensors})
    return f"tensors of type {', '.join(sorted(strange))}" if strange else ""


def read_subgraph(scope: Scope) -> None:
    """Read all operators of a subgraph whose inputs are bound.

    Raises:
        UnsupportedOperatorError: uses of operators that have no ONNX form; all of them.
    """
    found: list[tuple[str, str]] = []
    for index, operator in enumerate(scope.subgraph.operators):
        op = Op(scope, operator, label(operator, index, scope.subgraph, scope.number))
        try:
            RULES[operator.code](op)
        except UnsupportedOperatorError as error:
            found.append((error.operator, str(error)))
            for output in operator.outputs:  # so that what comes after it is looked at too
                scope.bind(output, "")
    refuse(found, f"subgraph {scope.number}")
