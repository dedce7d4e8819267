"""LSTM, GRU and RNN in float, written out: the input's part for all steps at once, then step by step.

Short sequences are unrolled, longer ones a WHILE whose state is (step, states.., outputs). TFLite's own recurrent
operators keep their state between runs, which ONNX's do not.

Weights (ONNX operators, LSTM, GRU, RNN): W (directions, gates x hidden, input), R (directions, gates x hidden, hidden),
B (directions, 2 x gates x hidden). X is (time, batch, input), or (batch, time, input) with layout 1.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.channels import concatenated, cut, split
from converters.write.tflite.ops.formula import Formula
from converters.write.tflite.ops.matmul import fully_connected
from converters.write.tflite.program import Body, Program, Size, Value
from converters.write.tflite.table import lowers

Activation = Callable[[Formula, Value], Value]
_UNROLLED = 8
"""Steps up to which a sequence is unrolled."""
_ACTIVATIONS: dict[str, str] = {"sigmoid": "LOGISTIC", "tanh": "TANH", "relu": "RELU"}


class Cell(NamedTuple):
    """One direction of a layer.

    Attributes:
        recurrent: (R, its bias) of this direction, for all gates; of a GRU those of update and reset, and of hidden.
        activations: in ONNX's order.
        hidden: size of the state.
        clip: bound of what enters the activations; 0 for none.
        peepholes: (hidden,) each, of an LSTM: input, output, forget.
        reset_after: of a GRU, linear_before_reset.
    """

    recurrent: Sequence[tuple[Value, Value]]
    activations: Sequence[Activation]
    hidden: int
    clip: float
    peepholes: Sequence[Value]
    reset_after: bool


Step = Callable[[Lowering, Cell, Value, Sequence[Value]], list[Value]]


def _activations(low: Lowering, defaults: Sequence[str], directions: int) -> list[Activation]:
    names = [name.lower() for name in low.node.attributes.get_strings("activations", ())] or list(defaults) * directions
    if low.node.attributes.get("activation_alpha") or low.node.attributes.get("activation_beta"):
        low.refuse("activation_alpha or activation_beta")
    unknown = [name for name in names if name not in _ACTIVATIONS]
    if unknown or len(names) != len(defaults) * directions:
        low.refuse(f"the activations {names}")
    return [_activation(_ACTIVATIONS[name]) for name in names]


def _activation(code: str) -> Activation:
    return lambda formula, x: formula.unary(code, x)


@lowers("LSTM", since=7, hybrid=True)
def lstm(low: Lowering) -> None:
    if low.integer("input_forget", 0):
        low.refuse("input_forget")
    _layer(low, 4, ("sigmoid", "tanh", "tanh"), _lstm_step)


@lowers("GRU", since=7, hybrid=True)
def gru(low: Lowering) -> None:
    _layer(low, 3, ("sigmoid", "tanh"), _gru_step)


@lowers("RNN", since=7, hybrid=True)
def rnn(low: Lowering) -> None:
    _layer(low, 1, ("tanh",), _rnn_step)


def _layer(low: Lowering, gates: int, defaults: Sequence[str], step: Step) -> None:
    """All directions of a layer, and its outputs (Y, Y_h and, of an LSTM, Y_c)."""
    x = low.input(0) if not low.integer("layout", 0) else low.transpose(low.input(0), (1, 0, 2))
    _check_lengths(low, x)
    kind = low.text("direction", "forward")
    directions = 2 if kind == "bidirectional" else 1
    activations = _activations(low, defaults, directions)
    sequences, lasts = [], []
    for number in range(directions):
        own = activations[number * len(defaults) : (number + 1) * len(defaults)]
        cell, entered = _cell(low, x, number, gates, own)
        states = _initial(low, number, x, cell.hidden, 2 if gates == 4 else 1)
        backwards = kind == "reverse" or number == 1
        made, last = _run(low, cell, entered, states, step, backwards=backwards)
        sequences.append(made)
        lasts.append(last)
    _outputs(low, sequences, lasts)


def _cell(low: Lowering, x: Value, number: int, gates: int, activations: Sequence[Activation]) -> tuple[Cell, Value]:
    """One direction's numbers, and what its inputs add to the gates: (time, batch, gates x hidden)."""
    weights, recurrent = (_direction(low, low.input(index), number) for index in (1, 2))
    hidden = recurrent.shape[1]
    if not isinstance(hidden, int):
        low.refuse("the size of its state is not known")
    size, whole = gates * hidden, low.optional(3)
    bias = low.constant(np.zeros(2 * size, np.float32)) if whole is None else _direction(low, whole, number)
    bounds = [0, 2 * hidden, size] if gates == 3 else [0, size]
    parts = [
        (_rows(low, recurrent, begin, end), _rows(low, bias, size + begin, size + end))
        for begin, end in itertools.pairwise(bounds)
    ]
    given = low.optional(7) if gates == 4 else None
    held = None if given is None else _direction(low, given, number)
    peepholes = [] if held is None else [_rows(low, held, at * hidden, (at + 1) * hidden) for at in range(3)]
    after = bool(low.integer("linear_before_reset", 0))
    cell = Cell(parts, activations, hidden, low.number("clip", 0), peepholes, after)
    entered = low.like(x, (*x.shape[:2], size))
    fully_connected(low, x, weights, _rows(low, bias, 0, size), entered, turned=True)
    return cell, entered


def _direction(low: Lowering, value: Value, number: int) -> Value:
    """One direction of a weight; a constant of a constant."""
    if value.constant:
        return low.constant(value.array()[number].astype(np.float32), what="weights")
    piece = value if value.shape[0] == 1 else cut(low, value, {0: (number, number + 1, 1)})
    return low.reshape(piece, value.shape[1:])


def _rows(low: Lowering, value: Value, begin: int, end: int) -> Value:
    if (begin, end) == (0, value.shape[0]):
        return value
    if value.constant:
        return low.constant(value.array()[begin:end], what="weights")
    return cut(low, value, {0: (begin, end, 1)})


def _check_lengths(low: Lowering, x: Value) -> None:
    lengths = low.optional(4)
    if x.dtype != "float32":
        low.refuse(f"a recurrent layer of {x.dtype}")
    if not isinstance(x.shape[0], int) or x.shape[0] < 1:
        low.refuse("a sequence of open length")
    if lengths is not None and not (lengths.constant and (lengths.array() == x.shape[0]).all()):
        low.refuse("sequence_lens")


def _initial(low: Lowering, number: int, x: Value, hidden: int, count: int) -> list[Value]:
    """States before the first step, (batch, hidden) each: given ones, else zeros."""
    states = []
    for index in range(5, 5 + count):
        given = low.optional(index)
        if given is None:
            states.append(_zeros(low, x.shape[1], hidden, x))
            continue
        order = (1, 0, 2) if low.integer("layout", 0) else (0, 1, 2)
        if given.constant:
            states.append(low.constant(given.array().transpose(order)[number].astype(np.float32), what="state"))
            continue
        turned = low.transpose(given, order)
        states.append(low.reshape(cut(low, turned, {0: (number, number + 1, 1)}), (x.shape[1], hidden)))
    return states


def _zeros(low: Lowering, batch: Size, hidden: int, x: Value) -> Value:
    if isinstance(batch, int):
        return low.constant(np.zeros((batch, hidden), np.float32), what="state")
    return _filled(low, x, 1, (), (hidden,))


def _filled(low: Lowering, x: Value, axis: int, before: Sequence[int], behind: Sequence[int]) -> Value:
    """Zeros of a shape whose one open size is that of an axis of x."""
    whole = low.temp((x.rank,), "int32")
    low.emit("SHAPE", [x], [whole], {"out_type": "int32"})
    size = cut(low, whole, {0: (axis, axis + 1, 1)})
    shape = low.temp((len(before) + 1 + len(behind),), "int32")
    sides = [low.constant(np.array(side, np.int32)) for side in (before, behind)]
    parts = [part for part in (sides[0], size, sides[1]) if part.shape != (0,)]
    low.emit("CONCATENATION", parts, [shape], {"axis": 0})
    made = low.temp((*before, x.shape[axis], *behind), "float32")
    low.emit("FILL", [shape, low.constant(np.float32(0))], [made])
    return made


def _run(
    low: Lowering, cell: Cell, entered: Value, states: Sequence[Value], step: Step, *, backwards: bool
) -> tuple[Value, list[Value]]:
    """All steps: (time, batch, hidden), in the order of the input, and the states after the last."""
    length = entered.shape[0]
    assert isinstance(length, int)
    if length > _UNROLLED:
        return _looped(low, cell, entered, states, step, backwards=backwards)
    pieces = split(low, entered, 0, length) if length > 1 else [entered]
    made: list[Value] = []
    now = list(states)
    for piece in reversed(pieces) if backwards else pieces:
        now = step(low, cell, low.reshape(piece, entered.shape[1:]), now)
        made.append(low.reshape(now[0], (1, *now[0].shape)))
    ordered = made[::-1] if backwards else made
    if length == 1:
        return ordered[0], now
    out = low.like(ordered[0], (length, *ordered[0].shape[1:]))
    concatenated(low, ordered, 0, out)
    return out, now


def _looped(
    low: Lowering, cell: Cell, entered: Value, states: Sequence[Value], step: Step, *, backwards: bool
) -> tuple[Value, list[Value]]:
    """WHILE over (step number, what has entered, outputs so far, states..)."""
    length, batch, _ = entered.shape
    numbers = [*cell.peepholes, *(one for pair in cell.recurrent for one in pair)]
    if not all(one.constant for one in numbers):
        low.refuse(f"computed weights, and more than {_UNROLLED} steps")
    assert isinstance(length, int)
    if isinstance(batch, int):
        buffer = low.constant(np.zeros((length, batch, cell.hidden), np.float32), what="outputs")
    else:
        buffer = _filled(low, entered, 1, (length,), (cell.hidden,))
    start = low.constant(np.array([length - 1 if backwards else 0], np.int32), what="start")
    carried = [start, entered, buffer, *states]
    outs = [low.like(value) for value in carried]
    options = {
        "cond_subgraph_index": Body(_condition(low, carried, length, backwards=backwards)),
        "body_subgraph_index": Body(_body(low, cell, carried, step, backwards=backwards)),
    }
    low.emit("WHILE", carried, outs, options)
    return outs[2], outs[3:]


def _ports(carried: Sequence[Value], name: str) -> list[Value]:
    return [Value(f"{name}_{index}", value.shape, value.dtype) for index, value in enumerate(carried)]


def _condition(low: Lowering, carried: Sequence[Value], length: int, *, backwards: bool) -> Program:
    inputs = _ports(carried, "carried")
    program = Program("condition", inputs)
    inner = Lowering(low.node, [], [], program)
    more = inner.temp((1,), "bool")
    bound = inner.constant(np.array([-1 if backwards else length], np.int32), what="bound")
    inner.emit("GREATER" if backwards else "LESS", [inputs[0], bound], [more])
    program.outputs = [more]
    return program


def _body(low: Lowering, cell: Cell, carried: Sequence[Value], step: Step, *, backwards: bool) -> Program:
    inputs = _ports(carried, "carried")
    program = Program("step", inputs)
    inner = Lowering(low.node, [], [], program)
    number, entered, buffer, *states = inputs
    piece = inner.like(entered, (1, *entered.shape[1:]))
    inner.emit("GATHER", [entered, number], [piece], {"axis": 0, "batch_dims": 0})
    now = step(inner, cell, inner.reshape(piece, entered.shape[1:]), states)
    written = inner.like(buffer)
    place = inner.temp((3,), "int32")
    zeros = inner.constant(np.zeros(2, np.int32), what="zeros")
    inner.emit("CONCATENATION", [number, zeros], [place], {"axis": 0})
    inner.emit("DYNAMIC_UPDATE_SLICE", [buffer, inner.reshape(now[0], (1, *now[0].shape)), place], [written])
    following = inner.like(number)
    inner.emit("ADD", [number, inner.constant(np.array([-1 if backwards else 1], np.int32))], [following])
    program.outputs = [following, entered, written, *now]
    return program


def _gates(low: Lowering, cell: Cell, state: Value, part: int = 0) -> Value:
    """R state, and R's bias, for some gates."""
    recurrent, bias = cell.recurrent[part]
    made = low.like(state, (state.shape[0], recurrent.shape[0]))
    fully_connected(low, state, recurrent, bias, made, turned=True)
    return made


def _clipped(formula: Formula, x: Value, clip: float) -> Value:
    return formula.minimum(formula.maximum(x, -clip), clip) if clip else x


def _rnn_step(low: Lowering, cell: Cell, entered: Value, states: Sequence[Value]) -> list[Value]:
    formula = Formula(low)
    total = formula.add(entered, _gates(low, cell, states[0]))
    return [cell.activations[0](formula, _clipped(formula, total, cell.clip))]


def _lstm_step(low: Lowering, cell: Cell, entered: Value, states: Sequence[Value]) -> list[Value]:
    """Gates in the order input, output, forget, cell."""
    formula = Formula(low)
    state, memory = states
    f, g, h = cell.activations
    total = formula.add(entered, _gates(low, cell, state))
    into, out, keep, new = split(low, total, 1, 4)
    if cell.peepholes:
        into = formula.add(into, formula.mul(memory, cell.peepholes[0]))
        keep = formula.add(keep, formula.mul(memory, cell.peepholes[2]))
    into, keep, new = (_clipped(formula, one, cell.clip) for one in (into, keep, new))
    kept = formula.mul(f(formula, keep), memory)
    now = formula.add(kept, formula.mul(f(formula, into), g(formula, new)))
    if cell.peepholes:
        out = formula.add(out, formula.mul(now, cell.peepholes[1]))
    shown = f(formula, _clipped(formula, out, cell.clip))
    return [formula.mul(shown, h(formula, now)), now]


def _gru_step(low: Lowering, cell: Cell, entered: Value, states: Sequence[Value]) -> list[Value]:
    """Gates in the order update, reset, hidden; the reset comes before or after the product with R."""
    formula, state = Formula(low), states[0]
    f, g = cell.activations
    update_in, reset_in, hidden_in = split(low, entered, 1, 3)
    update_by, reset_by = split(low, _gates(low, cell, state), 1, 2)
    update, reset = (
        f(formula, _clipped(formula, formula.add(one, other), cell.clip))
        for one, other in ((update_in, update_by), (reset_in, reset_by))
    )
    if cell.reset_after:
        before = formula.mul(reset, _gates(low, cell, state, 1))
    else:
        before = _gates(low, cell, formula.mul(reset, state), 1)
    new = g(formula, _clipped(formula, formula.add(hidden_in, before), cell.clip))
    # (1 - z) new + z state
    return [formula.add(new, formula.mul(update, formula.sub(state, new)))]


def _outputs(low: Lowering, sequences: Sequence[Value], lasts: Sequence[Sequence[Value]]) -> None:
    """Y (time, directions, batch, hidden), Y_h and Y_c (directions, batch, hidden); batch first with layout 1."""
    first = bool(low.integer("layout", 0))
    whole = low.optional_output(0)
    if whole is not None:
        _stacked(low, sequences, 1, (2, 0, 1, 3) if first else None, whole)
    for index in range(len(lasts[0])):
        out = low.optional_output(index + 1)
        if out is not None:
            _stacked(low, [last[index] for last in lasts], 0, (1, 0, 2) if first else None, out)


def _stacked(low: Lowering, values: Sequence[Value], axis: int, order: tuple[int, ...] | None, out: Value) -> None:
    """Values beside each other along a new axis, their axes then in another order."""
    wide = [low.reshape(value, (*value.shape[:axis], 1, *value.shape[axis:])) for value in values]
    shape = (*wide[0].shape[:axis], len(wide), *wide[0].shape[axis + 1 :])
    made = out if order is None else low.like(out, shape)
    if len(wide) > 1:
        concatenated(low, wide, axis, made)
    else:
        low.reshape(wide[0], shape, made)
    if order is not None:
        low.transpose(made, order, out)
