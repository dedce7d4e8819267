"""What stands between a graph and a TFLite file: TFLite's operators on tensors with the graph's order of axes.

Lowerings speak of logical axes only. Which axis lies where in the file is chosen for the whole program at once
(`layout`), and what depends on it (axes, per-axis numbers, constants) is kept in a form from which it follows (`emit`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from converters.tflite.model import Data, DType, Option, Quantization

Size = int | str
"""Of an axis; a name where it is open."""
Order = tuple[int, ...]
"""Axes from the slowest to the fastest in memory."""


@dataclass(eq=False)
class Value:
    """A tensor with its axes in the graph's order.

    Attributes:
        name: need not be unique.
        shape: sizes.
        dtype: as the file holds it.
        quantization: its axis is a logical one.
        data: of a constant, axes in the graph's order.
        stored: of a float constant that came as int8 or float16: what it came as, for kernels that take it so.
    """

    name: str
    shape: tuple[Size, ...]
    dtype: DType
    quantization: Quantization | None = None
    data: Data | None = None
    stored: "Value | None" = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def constant(self) -> bool:
        return self.data is not None

    def array(self) -> npt.NDArray[np.generic]:
        """The data of a constant."""
        if self.data is None:
            raise AssertionError(f"{self.name} is no constant")
        return self.data if isinstance(self.data, np.ndarray) else self.data.numpy()


@dataclass(frozen=True)
class Axis:
    """An option that names a logical axis; becomes where that axis lies."""

    index: int


@dataclass(frozen=True)
class AxisMask:
    """An option with one bit an axis (strided slices)."""

    indices: frozenset[int]


@dataclass(frozen=True)
class Axes:
    """A constant input of axes, int32; `scalar` where the kernel wants one of rank 0."""

    indices: tuple[int, ...]
    scalar: bool = False


@dataclass(frozen=True, eq=False)
class PerAxis:
    """A constant input with one row an axis of the first input, in the graph's order (shape (rank,) or (rank, n))."""

    values: npt.NDArray[np.generic]


@dataclass(frozen=True)
class Body:
    """An option that is the index of a subgraph."""

    program: "Program"


Input = Value | Axes | PerAxis | None
OptionOrAxis = Option | Axis | AxisMask | Body


@dataclass(frozen=True)
class Fixed:
    """The kernel wants its tensors in these orders; without orders, in the graph's own.

    Attributes:
        inputs: by position; absent or None: the graph's order.
        outputs: likewise.
        ties: groups of axes ((position, axis), outputs counted from -1 downwards) along which constants can be
            re-ordered, so that the entries of that axis may lie in any order, the same for the whole group.
        options: that go with these orders.
    """

    inputs: Mapping[int, Order] = field(default_factory=dict)
    outputs: Mapping[int, Order] = field(default_factory=dict)
    ties: tuple[tuple[tuple[int, int], ...], ...] = ()
    options: Mapping[str, OptionOrAxis] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """The kernel takes any of these."""

    ways: tuple[Fixed, ...]


@dataclass(frozen=True)
class Together:
    """The kernel takes any order of axes, if all of its tensors have the same; they are all of one rank.

    Constants of a lower rank, and activations of one element, may stand beside them.

    Attributes:
        last: the axis that must lie last, if any.
        straight: axes whose entries must lie in their own order (concatenation, slices, padding, argmax).
    """

    last: int | None = None
    straight: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Reshaped:
    """The output is the input read in the graph's order with another shape. The step's code is RESHAPE."""


@dataclass(frozen=True)
class Transposed:
    """Output axis i is input axis order[i]. Never an operator: a transpose gives axes other names."""

    order: Order


Rule = Fixed | Choice | Together | Reshaped | Transposed
PLAIN = Fixed()
"""All tensors in the graph's own order."""


@dataclass(eq=False)
class Step:
    """One operator.

    Attributes:
        code: of TFLite's enum BuiltinOperator.
        inputs: activations, constants, and what follows from the layout.
        outputs: each is written by one step.
        options: by the schema's names.
        rule: which layouts the kernel takes.
        node: of the graph, for messages.
    """

    code: str
    inputs: list[Input]
    outputs: list[Value]
    options: dict[str, OptionOrAxis] = field(default_factory=dict)
    rule: Rule = PLAIN
    node: str = ""


@dataclass(eq=False)
class Program:
    """Steps in the order in which they run."""

    name: str
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def readers(self) -> dict[Value, list[Step]]:
        """Activation -> the steps that read it, once for each time."""
        found: dict[Value, list[Step]] = {}
        for step in self.steps:
            for value in step.inputs:
                if isinstance(value, Value) and not value.constant:
                    found.setdefault(value, []).append(step)
        return found


def nhwc(rank: int) -> Order:
    """Channels last: for a tensor whose axis 1 are the channels."""
    return (0, *range(2, rank), 1)


def activations(values: Sequence[Input]) -> list[Value]:
    """Those of a step's inputs that are computed or fed."""
    return [value for value in values if isinstance(value, Value) and not value.constant]
