"""Rules on who writes which tensor, and when."""

from collections.abc import Iterator, Mapping, Sequence

from converters.tflite.model import Operator, Subgraph

_BODIES: Mapping[str, Sequence[str]] = {
    "CALL_ONCE": ("init_subgraph_index",),
    "IF": ("then_subgraph_index", "else_subgraph_index"),
    "STABLEHLO_COMPOSITE": ("decomposition_subgraph_index",),
    "WHILE": ("cond_subgraph_index", "body_subgraph_index"),
}
"""Operator -> the options that are indices of subgraphs."""


def structure_problems(subgraph: Subgraph, subgraphs: Sequence[Subgraph]) -> Iterator[str]:
    """What is wrong with the order and the wiring of a subgraph's operators, each as a sentence without its end."""
    count = len(subgraph.tensors)
    ends = [("input", subgraph.inputs), ("output", subgraph.outputs)]
    outside = [f"{what} {index} is no tensor" for what, indices in ends for index in indices if not 0 <= index < count]
    if outside:
        yield from outside
        return
    known = _known_from_start(subgraph)
    for index, operator in enumerate(subgraph.operators):
        place = f"operator {index} ({operator.code})"
        yield from (f"{place} {problem}" for problem in _operator_problems(operator, subgraph, known, count))
        yield from (f"{place} {problem}" for problem in _body_problems(operator, subgraphs))
        known.update(one for one in operator.outputs if one >= 0)
    for index in subgraph.outputs:
        if index not in known:
            yield f"nothing writes the output {subgraph.tensors[index].name!r}"


def _known_from_start(subgraph: Subgraph) -> set[int]:
    given = {index for index, tensor in enumerate(subgraph.tensors) if tensor.data is not None or tensor.variable}
    return given | set(subgraph.inputs)


def _operator_problems(operator: Operator, subgraph: Subgraph, known: set[int], count: int) -> Iterator[str]:
    outside = [index for index in (*operator.inputs, *operator.outputs) if not -1 <= index < count]
    if outside:
        yield f"names the tensors {outside} of {count}"
        return
    for index in operator.inputs:
        if index >= 0 and index not in known:
            yield f"reads {subgraph.tensors[index].name!r} before anything has written it"
    for index in operator.outputs:
        if index in known:
            yield f"writes {subgraph.tensors[index].name!r}, which is an input, a constant or written already"


def _body_problems(operator: Operator, subgraphs: Sequence[Subgraph]) -> Iterator[str]:
    for name in _BODIES.get(operator.code, ()):
        index = operator.options.get(name)
        if not isinstance(index, int) or not 0 <= index < len(subgraphs):
            yield f"has {name} {index}, of {len(subgraphs)} subgraphs"
            return
        body = subgraphs[index]
        given = len(operator.inputs) - (operator.code == "IF")
        if len(body.inputs) != given:
            yield f"gives {given} inputs to subgraph {index}, which has {len(body.inputs)}"
        if name not in {"cond_subgraph_index", "init_subgraph_index"} and len(body.outputs) != len(operator.outputs):
            yield f"takes {len(operator.outputs)} outputs of subgraph {index}, which has {len(body.outputs)}"
