"""The layout of every tensor of a program, chosen at once so that the fewest bytes are moved.

Each step can run in some combinations of layouts (`signatures`). A tensor is moved once for each layout that its
readers want and that is not the writer's, at a cost of its bytes plus those of one call. The choice that costs least is
found exactly, by eliminating one variable after the other (`solve`).
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.write.tflite.digits import Layout, Symbols, axes_of, cut_alike, ordered, plain, same_bytes
from converters.write.tflite.program import Program, Step, Value
from converters.write.tflite.signatures import Signature, signatures
from converters.write.tflite.solve import Factor, TooWideError, minimise

CALL = 64
"""What a call of an operator costs, in bytes moved."""
WIDEST = 6
"""Most layouts that one tensor is tried in."""


@dataclass(frozen=True)
class Borders:
    """What layouts the program's inputs and outputs may have: the graph's own alone, or any order of whole axes."""

    native: bool = False


AS_THE_GRAPH = Borders()


@dataclass(frozen=True)
class Layouts:
    """The choice.

    Attributes:
        steps: how each step runs.
        inputs: of the program's inputs.
        outputs: in which its outputs are given.
        cost: bytes moved, and `CALL` for each move.
    """

    steps: Mapping[Step, Signature]
    inputs: Mapping[Value, Layout]
    outputs: Mapping[Value, Layout]
    cost: int


def choose_layouts(program: Program, symbols: Symbols, borders: Borders = AS_THE_GRAPH) -> Layouts:
    """The layouts of the least cost; the same program gives the same ones."""
    for widest in (WIDEST, 2, 1):
        ways = _ways(program, symbols, borders, widest=widest)
        try:
            return _Costs(program, ways, symbols).choose()
        except TooWideError:
            continue
    raise AssertionError("a program with one way for each step needs no search")


def layout_problem(
    program: Program, symbols: Symbols, borders: Borders = AS_THE_GRAPH
) -> tuple[list[list[Signature]], Callable[[Sequence[int]], int]]:
    """The search itself, for those who want to try every choice.

    Returns:
        The ways of each step (the borders are steps too), and what a choice of one way for each costs.
    """
    ways = _ways(program, symbols, borders, widest=WIDEST)
    costs = _Costs(program, ways, symbols)
    return [ways.signatures[step] for step in ways.steps], costs.of


@dataclass(eq=False)
class _Ways:
    """Steps, and the borders as steps of their own, with their signatures."""

    steps: list[Step]
    signatures: dict[Step, list[Signature]]
    sources: dict[Value, Step]
    sinks: dict[Value, Step]


def _ways(program: Program, symbols: Symbols, borders: Borders, *, widest: int) -> _Ways:
    candidates = _candidates(program, symbols, widest=widest)
    sources = {value: Step("INPUT", [], [value]) for value in program.inputs}
    sinks = {value: Step("OUTPUT", [value], []) for value in dict.fromkeys(program.outputs) if not value.constant}
    found = {step: signatures(step, candidates, symbols) for step in program.steps}
    if widest == 1:
        found = {step: ways[:1] for step, ways in found.items()}
    for value, step in sources.items():
        found[step] = [Signature((), (layout,)) for layout in _at_border(value, candidates, symbols, borders)]
    for value, step in sinks.items():
        found[step] = [Signature((layout,), ()) for layout in _at_border(value, candidates, symbols, borders)]
    return _Ways([*sources.values(), *program.steps, *sinks.values()], found, sources, sinks)


def _at_border(
    value: Value, candidates: Mapping[Value, Sequence[Layout]], symbols: Symbols, borders: Borders
) -> list[Layout]:
    sizes = symbols.sizes(value.shape)
    own = plain(sizes)
    if not borders.native:
        return [own]
    orders = [axes_of(layout) for layout in candidates.get(value, ())]
    whole = [ordered(sizes, order) for order in orders if order is not None and len(order) == len(sizes)]
    return list(dict.fromkeys([own, *whole]))


def _candidates(program: Program, symbols: Symbols, *, widest: int) -> dict[Value, list[Layout]]:
    """What layouts each tensor might have: those that some kernel wants, carried on through all that lets them."""
    found: dict[Value, list[Layout]] = {}
    readers = program.readers()
    writers = {value: step for step in program.steps for value in step.outputs}
    waiting = deque(program.steps)
    queued = set(program.steps)
    while waiting:
        step = waiting.popleft()
        queued.discard(step)
        for value, layout in _wanted(signatures(step, found, symbols), step):
            held = found.setdefault(value, [])
            if layout not in held and len(held) < widest:
                held.append(layout)
                beside = [*readers.get(value, ()), *([writers[value]] if value in writers else [])]
                again = [one for one in dict.fromkeys(beside) if one not in queued]
                waiting.extend(again)
                queued.update(again)
    return found


def _wanted(ways: Iterable[Signature], step: Step) -> Iterable[tuple[Value, Layout]]:
    for way in ways:
        for value, layout in zip((*step.inputs, *step.outputs), (*way.inputs, *way.outputs), strict=True):
            if isinstance(value, Value) and not value.constant and layout is not None:
                yield value, layout


class _Costs:
    """The search as variables and factors: a variable for each step (which way it runs), and for each tensor with
    several readers one more (in which layouts it is at hand), so that no factor has more than two.
    """

    def __init__(self, program: Program, ways: _Ways, symbols: Symbols) -> None:
        self._ways = ways
        self._symbols = symbols
        self._number = {step: index for index, step in enumerate(ways.steps)}
        self._sizes = [len(ways.signatures[step]) for step in ways.steps]
        self._factors: list[Factor] = []
        writers = {value: step for step in ways.steps for value in step.outputs}
        readers: dict[Value, list[tuple[Step, int]]] = {}
        for step in ways.steps:
            for index, value in enumerate(step.inputs):
                if isinstance(value, Value) and value in writers:
                    readers.setdefault(value, []).append((step, index))
        self._uses = {value: (writers[value], uses) for value, uses in readers.items()}
        for value, (writer, uses) in self._uses.items():
            self._tensor(value, writer, uses)
        self._program = program

    def choose(self) -> Layouts:
        chosen, cost = minimise(self._sizes, self._factors)
        picked = {step: self._ways.signatures[step][chosen[self._number[step]]] for step in self._ways.steps}
        inputs = {value: picked[step].outputs[0] for value, step in self._ways.sources.items()}
        outputs = {value: picked[step].inputs[0] or () for value, step in self._ways.sinks.items()}
        steps = {step: picked[step] for step in self._program.steps}
        return Layouts(steps, inputs, outputs, round(cost))

    def of(self, choice: Sequence[int]) -> int:
        """What one choice costs, counted tensor by tensor."""
        picked = {step: self._ways.signatures[step][at] for step, at in zip(self._ways.steps, choice, strict=True)}
        total = 0.0
        for value, (writer, uses) in self._uses.items():
            given = picked[writer].outputs[writer.outputs.index(value)]
            asked = {picked[step].inputs[index] or () for step, index in uses}
            total += sum(self._price(value, given, layout) for layout in asked)
        return round(total)

    def _tensor(self, value: Value, writer: Step, uses: Sequence[tuple[Step, int]]) -> None:
        place = writer.outputs.index(value)
        given = [way.outputs[place] for way in self._ways.signatures[writer]]
        asked = [[way.inputs[index] or () for way in self._ways.signatures[step]] for step, index in uses]
        kinds = list(dict.fromkeys([*given, *(layout for one in asked for layout in one)]))
        if len(kinds) == 1:
            return
        price = np.array([[self._price(value, one, other) for other in kinds] for one in kinds])
        made = [kinds.index(layout) for layout in given]
        wanted = [[kinds.index(layout) for layout in one] for one in asked]
        if len(uses) == 1:
            self._add((self._number[writer], self._number[uses[0][0]]), price[np.ix_(made, wanted[0])])
        else:
            self._held(writer, [step for step, _ in uses], made, wanted, price)

    def _held(
        self,
        writer: Step,
        readers: Sequence[Step],
        made: Sequence[int],
        wanted: Sequence[Sequence[int]],
        price: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> None:
        """A variable that is a set of layouts, as bits: the writer pays for all in it, readers find theirs there."""
        asked = sorted({kind for one in wanted for kind in one})
        sets = np.arange(1 << len(asked))
        inside = (sets[:, None] >> np.arange(len(asked))) & 1
        number = len(self._sizes)
        self._sizes.append(len(sets))
        self._add((self._number[writer], number), price[np.ix_(made, asked)] @ inside.T)
        for reader, kinds in zip(readers, wanted, strict=True):
            places = [asked.index(kind) for kind in kinds]
            self._add((self._number[reader], number), np.where(inside[:, places].T == 1, 0.0, np.inf))

    def _add(self, variables: tuple[int, int], table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
        if variables[0] == variables[1]:
            self._factors.append(Factor((variables[0],), np.diagonal(table).copy()))
        else:
            self._factors.append(Factor(variables, table))

    def _price(self, value: Value, one: Layout, other: Layout) -> float:
        if one == other:
            return 0.0
        if same_bytes(one, other):
            return CALL
        moves = 1 if cut_alike(one, other) is not None else 2  # by way of the graph's own order
        return moves * (CALL + self._symbols.bytes_of(value.shape, ITEM_BYTES.get(value.dtype, 4)))


ITEM_BYTES = {
    "float32": 4,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
    "float16": 2,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of an entry."""
