"""Branches and loops: subgraphs that take and give back everything that they touch."""

import numpy as np

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.program import Body, Program, Step, Value
from converters.write.tflite.table import lowers


def _like(value: Value, name: str = "") -> Value:
    return Value(name or value.name, value.shape, value.dtype, value.quantization)


def _whole(low: Lowering) -> None:
    """A body with an operator that TFLite lacks has been told of already, and gives nothing."""
    if any(not program.outputs for program in low.bodies.values()):
        low.refuse("TFLite cannot say what stands inside")


@lowers("If", since=11)
def branch(low: Lowering) -> None:
    """Both branches are given what either reads from outside."""
    then, other = low.bodies["then_branch"], low.bodies["else_branch"]
    of_then, of_other = low.captures["then_branch"], low.captures["else_branch"]
    _whole(low)
    then.inputs += [_like(value) for value in of_other]
    other.inputs[:0] = [_like(value) for value in of_then]
    outputs = [low.output(index) for index in range(len(low.outputs))]
    for program in (then, other):
        for outside, inside in zip(outputs, program.outputs, strict=True):
            if outside.dtype != inside.dtype:
                low.refuse(f"its branch {program.name!r} gives {inside.dtype}, not {outside.dtype}")
    options = {"then_subgraph_index": low.body("then_branch"), "else_subgraph_index": low.body("else_branch")}
    condition = low.reshape(low.input(0), ())
    low.emit("IF", [condition, *of_then, *of_other], outputs, dict(options))


@lowers("Loop", since=11)
def loop(low: Lowering) -> None:
    """State: the count of trips, whether to go on, what is carried, the limit, and what the body reads from outside."""
    _whole(low)
    body, captures = low.bodies["body"], low.captures["body"]
    carried = [low.input(index) for index in range(2, len(low.inputs))]
    if len(low.outputs) > len(carried):
        low.refuse("TFLite does not collect what each trip of a loop gives")
    if body.inputs[0].rank or body.inputs[1].rank or body.outputs[0].rank:
        low.refuse("its count or its condition is no single number")
    inside = body.inputs[2 : 2 + len(carried)]
    for outer, inner, after in zip(carried, inside, body.outputs[1:], strict=True):
        if not outer.shape == inner.shape == after.shape or outer.dtype != after.dtype:
            low.refuse(f"what it carries as {inner.name!r} changes its shape or type from trip to trip")
    limit, go_on = low.optional(0), low.optional(1)
    start = [
        low.constant(np.int64(0)),
        low.constant(np.bool_(True)) if go_on is None else low.reshape(go_on, ()),  # noqa: FBT003
        *carried,
        low.constant(np.int64(2**63 - 1)) if limit is None else low.reshape(limit, ()),
        *captures,
    ]
    state = [_like(value, f"state_{index}") for index, value in enumerate(start)]
    _give_back(body, len(carried), state)
    outputs = [
        made if made is not None else _like(value)
        for made, value in zip((low.optional_output(index) for index in range(len(carried))), carried, strict=True)
    ]
    results = [_like(state[0]), _like(state[1]), *outputs, *(_like(value) for value in state[2 + len(carried) :])]
    options = {"cond_subgraph_index": Body(_going_on(state, len(carried))), "body_subgraph_index": Body(body)}
    low.emit("WHILE", list(start), results, dict(options))


def _going_on(state: list[Value], carried: int) -> Program:
    """Count < limit, and the condition."""
    made = Program("go_on", inputs=[_like(value) for value in state])
    within, both = Value("within", (), "bool"), Value("both", (), "bool")
    made.steps.append(Step("LESS", [made.inputs[0], made.inputs[2 + carried]], [within]))
    made.steps.append(Step("LOGICAL_AND", [within, made.inputs[1]], [both]))
    made.outputs = [both]
    return made


def _give_back(body: Program, carried: int, state: list[Value]) -> None:
    """Let a body count its trips, and take and give back the limit and what it reads from outside."""
    limit = _like(state[2 + carried], "limit")
    body.inputs.insert(2 + carried, limit)
    following = _like(state[0], "next")
    one = Value("one", (), "int64", data=np.array(1, np.int64))
    body.steps.append(Step("ADD", [body.inputs[0], one], [following]))
    body.outputs = [following, *body.outputs[: 1 + carried], *body.inputs[2 + carried :]]
