"""Recurrent operators that see a whole sequence at once. Their state is zero where it begins.

LiteRT keeps the state of one run for the next, unless somebody resets it; a graph has no memory, and the runtimes here
reset it before each run. So a sequence is read as it computes from zero, and what makes a single step (LSTM, RNN,
SVDF), where all is in the state that stays, is not read.
Source: LiteRT, kernels/lstm_eval.cc, kernels/internal/kernel_utils.cc (RNN).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from converters.importers.tflite.graph import Attribute
from converters.importers.tflite.op import Op, Rule
from converters.importers.tflite.scope import dequantized, is_steps

Array = npt.NDArray[np.float32]
_MOST_STEPS = 256
"""Of a sequence that is written out step by step."""
_ACTIVATIONS = {"TANH": "Tanh", "RELU": "Relu"}
_NORMAL = 1e-8
"""What layer normalisation adds to the variance."""


class _Cell:
    """One direction of an LSTM: weights of the gates i, f, c, o, and what some have besides.

    Args:
        op: the operator.
        first: position of its first weights; 17 follow.
        norm: position of the four weights of layer normalisation, -1 for none.
    """

    def __init__(self, op: Op, first: int, norm: int) -> None:
        names = range(4)
        self.op = op
        self.weights = [_array(op, first + gate) for gate in names]
        self.recurrent = [_array(op, first + 4 + gate) for gate in names]
        peep = [_array(op, first + 8 + gate) for gate in range(3)]
        self.peep = [peep[0], peep[1], None, peep[2]]
        self.bias = [_array(op, first + 11 + gate) for gate in names]
        self.projection, self.offset = _array(op, first + 15), _array(op, first + 16)
        self.norm = [_array(op, norm + gate) if norm >= 0 else None for gate in names]
        if self.weights[0] is None:
            self._couple()

    def _couple(self) -> None:
        """An input gate that is 1 less the forget gate: the sigmoid of the same with the other sign."""
        for one in (self.weights, self.recurrent, self.peep, self.bias):
            one[0] = None if one[1] is None else -one[1]
        self.norm[0] = self.norm[1]

    @property
    def is_plain(self) -> bool:
        """Whether it is an LSTM of ONNX."""
        clipped = self.op.option("cell_clip", 0.0) or self.op.option("proj_clip", 0.0)
        bare = self.projection is None and not any(one is not None for one in self.norm) and not clipped
        return bare and self.op.option("fused_activation_function", "TANH") in _ACTIVATIONS

    def read(self, x: str, steps: int | None, *, reverse: bool) -> str:
        """Its outputs over time.

        Args:
            x: shape (time, batch, inputs).
            steps: how many; None where that is open.
            reverse: from the end.
        """
        if self.is_plain:
            return self._whole(x, reverse=reverse)
        if steps is None or steps > _MOST_STEPS:
            raise self.op.refuse(
                f"projection, layer normalisation, clipping and rare activations are read for at most {_MOST_STEPS} "
                f"steps of time, not for {'an open number' if steps is None else steps}"
            )
        size = _some(self.op, self.weights[1]).shape[0]
        width = size if self.projection is None else self.projection.shape[0]
        return _unrolled(self.op, x, steps, [width, size], self._step, reverse=reverse)

    def _whole(self, x: str, *, reverse: bool) -> str:
        """ONNX has the gates in the order i, o, f, c, and two biases."""
        op, order = self.op, (0, 3, 1, 2)
        gates = [[_some(op, one[gate]) for gate in order] for one in (self.weights, self.recurrent, self.bias)]
        weights, recurrent, bias = (np.concatenate(one)[None] for one in gates)
        bias = np.concatenate([bias, np.zeros_like(bias)], axis=1)
        peep = ""
        if self.peep[1] is not None:
            peep = _constant(op, np.concatenate([_some(op, self.peep[gate]) for gate in (0, 3, 1)])[None])
        activation = _ACTIVATIONS[op.option("fused_activation_function", "TANH")]
        how: dict[str, Attribute] = {"hidden_size": recurrent.shape[2]}
        if activation != "Tanh":
            how["activations"] = ["Sigmoid", activation, activation]
        values = [_constant(op, one) for one in (weights, recurrent, bias)]
        made = op.add("LSTM", x, *values, "", "", "", peep, direction="reverse" if reverse else "forward", **how)
        return op.add("Squeeze", made, op.ints_of([1]))

    def _step(self, x: str, state: Sequence[str]) -> list[str]:
        op, (hidden, cell) = self.op, state
        gain, forget = (op.add("Sigmoid", self._gate(gate, x, hidden, cell)) for gate in (0, 1))
        fresh = _activated(op, self._gate(2, x, hidden, ""))
        cell = op.add("Add", op.add("Mul", forget, cell), op.add("Mul", gain, fresh))
        cell = _clipped(op, cell, op.option("cell_clip", 0.0))
        shown = op.add("Sigmoid", self._gate(3, x, hidden, cell))
        hidden = op.add("Mul", shown, _activated(op, cell))
        if self.projection is not None:
            hidden = op.add("MatMul", hidden, _constant(op, self.projection.T))
            hidden = op.add("Add", hidden, _constant(op, self.offset)) if self.offset is not None else hidden
            hidden = _clipped(op, hidden, op.option("proj_clip", 0.0))
        return [hidden, cell]

    def _gate(self, gate: int, x: str, hidden: str, cell: str) -> str:
        op, norm, peep = self.op, self.norm[gate], self.peep[gate]
        total = op.add("MatMul", x, _constant(op, _some(op, self.weights[gate]).T))
        total = op.add("Add", total, op.add("MatMul", hidden, _constant(op, _some(op, self.recurrent[gate]).T)))
        if peep is not None and cell:
            total = op.add("Add", total, op.add("Mul", cell, _constant(op, peep)))
        if norm is not None:
            total = op.add("LayerNormalization", total, _constant(op, norm), axis=-1, epsilon=_NORMAL)
        return op.add("Add", total, _constant(op, _some(op, self.bias[gate])))


def sequence_lstm(op: Op) -> None:
    _float_only(op)
    cell = _Cell(op, 1, 20 if op.count > 20 and (op.has(21) or op.has(22)) else -1)
    x, steps = _timed(op)
    op.out_stored(_timed_back(op, cell.read(x, steps, reverse=False)))


def bidirectional_lstm(op: Op) -> None:
    _float_only(op)
    _no_auxiliary(op, range(39, op.count))
    x, steps = _timed(op)
    _both(op, [_Cell(op, first, -1).read(x, steps, reverse=back) for first, back in ((1, False), (18, True))])


def sequence_rnn(op: Op) -> None:
    _float_only(op)
    x, steps = _timed(op)
    op.out_stored(_timed_back(op, _rnn(op, x, steps, 1, reverse=False)))


def bidirectional_rnn(op: Op) -> None:
    _float_only(op)
    _no_auxiliary(op, range(9, op.count))
    x, steps = _timed(op)
    _both(op, [_rnn(op, x, steps, first, reverse=back) for first, back in ((1, False), (5, True))])


def _rnn(op: Op, x: str, steps: int | None, first: int, *, reverse: bool) -> str:
    weights, recurrent, bias = (_some(op, _array(op, first + at)) for at in range(3))
    kind = op.option("fused_activation_function", "NONE")
    if kind in _ACTIVATIONS:
        biases = np.concatenate([bias, np.zeros_like(bias)])[None]
        values = [_constant(op, one) for one in (weights[None], recurrent[None], biases)]
        how: dict[str, Attribute] = {"hidden_size": len(bias), "direction": "reverse" if reverse else "forward"}
        made = op.add("RNN", x, *values, activations=[_ACTIVATIONS[kind]], **how)
        return op.add("Squeeze", made, op.ints_of([1]))
    if steps is None or steps > _MOST_STEPS:
        raise op.refuse(f"with the activation {kind} it is read for at most {_MOST_STEPS} steps of time")

    def step(part: str, state: Sequence[str]) -> list[str]:
        given = op.add("MatMul", part, _constant(op, weights.T))
        total = op.add("Add", given, op.add("MatMul", state[0], _constant(op, recurrent.T)))
        return [_activated(op, op.add("Add", total, _constant(op, bias)))]

    return _unrolled(op, x, steps, [len(bias)], step, reverse=reverse)


def _unrolled(
    op: Op, x: str, steps: int, sizes: Sequence[int], step: Callable[[str, Sequence[str]], list[str]], *, reverse: bool
) -> str:
    """A sequence step by step from states of zeros, shape (batch, size) each; the first state is what is given."""
    parts = op.several("Split", x, count=steps, axis=0, num_outputs=steps) if steps > 1 else [x]
    parts = [op.add("Squeeze", part, op.ints_of([0])) for part in parts]
    batch = op.add("Slice", op.add("Shape", parts[0]), op.ints_of([0]), op.ints_of([1]))
    state = [op.add("Expand", op.number(0.0), op.add("Concat", batch, op.ints_of([one]), axis=0)) for one in sizes]
    shown = []
    for part in parts[::-1] if reverse else parts:
        state = step(part, state)
        shown.append(op.add("Unsqueeze", state[0], op.ints_of([0])))
    return op.add("Concat", *(shown[::-1] if reverse else shown), axis=0)


def _timed(op: Op) -> tuple[str, int | None]:
    """The input with time as its first axis, and how many steps that has."""
    op.rank(0, 3)
    first = _time_first(op)
    return op.real(0, () if first else (1, 0, 2)), op.sizes(0)[0 if first else 1]


def _time_first(op: Op) -> bool:
    """The schema's default of that option is another for one of them."""
    return op.option("time_major", default=op.code == "BIDIRECTIONAL_SEQUENCE_LSTM")


def _timed_back(op: Op, made: str) -> str:
    return made if _time_first(op) else op.add("Transpose", made, perm=[1, 0, 2])


def _both(op: Op, made: Sequence[str]) -> None:
    if op.flag("merge_outputs"):
        op.out_stored(_timed_back(op, op.add("Concat", *made, axis=2)))
        return
    for at, one in enumerate(made):
        op.out_stored(_timed_back(op, one), at=at)


def _no_auxiliary(op: Op, positions: Sequence[int]) -> None:
    if any(op.has(at) for at in positions):
        raise op.refuse("it has a second input, for which ONNX has no form")


def _float_only(op: Op) -> None:
    if op.tensor(0).dtype != "float32" or op.quantised:
        raise op.refuse(f"it computes in {op.tensor(0).dtype}; only float activations are read")


def _array(op: Op, position: int) -> Array | None:
    """Weights as floats."""
    if not op.has(position):
        return None
    found, tensor = op.array(position, "weights"), op.tensor(position)
    if is_steps(tensor) and tensor.quantization is not None:
        return dequantized(found, tensor.quantization)
    return found.astype(np.float32)


def _some(op: Op, found: Array | None) -> Array:
    if found is None:
        raise op.refuse("it lacks some of its weights")
    return found


def _constant(op: Op, array: Array) -> str:
    return op.scope.graph.constant(np.ascontiguousarray(array, np.float32), f"{op.code}_weights")


def _clipped(op: Op, name: str, bound: float) -> str:
    return op.clip(name, -bound, bound) if bound > 0 else name


def _activated(op: Op, name: str) -> str:
    return op.activated(name)


RECURRENT: Mapping[str, Rule] = {
    "BIDIRECTIONAL_SEQUENCE_LSTM": bidirectional_lstm,
    "BIDIRECTIONAL_SEQUENCE_RNN": bidirectional_rnn,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": sequence_rnn,
}
"""Their last inputs are the states."""
