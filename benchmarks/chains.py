"""What profile_ort.py and profile_tflite.py share: cases, chains of equal blocks, and a profile's table out of times.

A block is put into a chain, where its output is the next one's input, or beside others of its kind on the chain's
input. A long chain and a short one differ by blocks alone: the difference of their times is free of the ends.
"""

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from lines import Line, Work, error, fit

FOLDER = Path(__file__).parent.parent / "converters" / "quantize" / "profile_data"
SHORT = 2
SIZES = ((32, 56), (96, 28), (192, 14), (384, 7), (24, 14))
"""Channels and sides of what operators that move bytes are measured on."""
GEMMS = ((1, 512, 1000), (1, 1280, 1000), (1, 64, 128), (64, 256, 256), (1, 128, 10))
ATTENTIONS = ((3, 197, 64), (4, 32, 32), (6, 64, 64))
GROUPED = ((64, 28, 8), (128, 14, 4), (128, 28, 32), (256, 14, 32))

N = TypeVar("N")
"""A net that is being built."""
V = TypeVar("V")
"""A value of it."""


@dataclass(frozen=True)
class Case(Generic[N, V]):
    """One measurement.

    Attributes:
        kind: the key in a profile.
        shape: of the chain's input.
        block: adds one block to a net.
        work: (multiply-accumulates, elements read, elements written) of one block.
        base: adds what the block contains beside the operator; its time is taken off.
        beside: blocks stand side by side on the chain's input rather than in a row.
        rewriting: the name of the int8 form, where there are several.
    """

    kind: str
    shape: tuple[int, ...]
    block: Callable[[N, V], V]
    work: Work
    base: Callable[[N, V], V] | None = None
    beside: bool = False
    rewriting: str = ""

    @property
    def chains(self) -> list[tuple[Callable[[N, V], V], int]]:
        """Blocks and lengths of the chains to time; small blocks need a longer one to stand out of the noise."""
        long = 6 if max(self.work[0] / 20, *self.work) > 200_000 else 14
        blocks = [self.block] + ([self.base] if self.base else [])
        return [(block, length) for block in blocks for length in (SHORT, long)]

    def ends(self, net: N, x: V, block: Callable[[N, V], V], length: int) -> list[V]:
        """Add a chain to a net; returns its outputs: of every block where they stand side by side."""
        made = [x]
        for _ in range(length):
            made.append(block(net, x if self.beside else made[-1]))
        return made[1:] if self.beside else made[-1:]

    def one_block(self, times: Sequence[float]) -> float:
        """Nanoseconds of the operator in one block, from those of `chains`."""
        lengths = [length for _, length in self.chains]
        pairs = range(0, len(times), 2)
        each = [(times[at + 1] - times[at]) / (lengths[at + 1] - lengths[at]) for at in pairs]
        return each[0] - sum(each[1:])


def there_and_back(cin: int, cout: int, side: int, k: int, group: int) -> Work:
    """Of two convolutions, after which the shape is as it was."""
    elements = (cin + cout) * side * side
    return 2 * cout * (cin // group) * k * k * side * side, elements, elements


def one_way(cin: int, cout: int, side: int, k: int, stride: int) -> Work:
    """Of a convolution that has no way back."""
    area = (side // stride) ** 2
    return cout * cin * k * k * area, cin * side * side, cout * area


def linear_layers(rows: int, width: int, inner: int) -> Work:
    """Of a layer from width to inner and one back."""
    elements = rows * (width + inner)
    return 2 * rows * width * inner, elements, elements


def attended(heads: int, rows: int, width: int) -> Work:
    """Of x @ x^T, then that @ x."""
    scores, values = heads * rows * rows, heads * rows * width
    return 2 * scores * width, 3 * values + scores, scores + values


class Measured(NamedTuple, Generic[N, V]):
    """Nanoseconds of one block; None where the runtime does not take it."""

    case: Case[N, V]
    in_float: float | None
    in_int8: float | None

    @property
    def share(self) -> float:
        """Time in int8 as a share of that in float, so that each size counts alike."""
        return (self.in_int8 or 0.0) / max(self.in_float or 0.0, 1.0)

    def tell(self, profile: str) -> None:
        if self.in_float is not None and self.in_int8 is not None:
            name = f"{self.case.kind} {self.case.rewriting}"
            ratio = self.in_float / max(self.in_int8, 1)
            sys.stderr.write(
                f"{profile:20} {name:26} {self.case.shape!s:20} {self.in_float:>10.0f} ns float, {ratio:.2f}x\n"
            )


class Table(NamedTuple):
    """operators: kind -> lines of both forms. rewritings: operator -> the form that costs least."""

    operators: dict[str, dict[str, Line]]
    rewritings: dict[str, str]

    def with_like(self, like: Mapping[str, str]) -> "Table":
        """With operators that were not measured, each as one that moves as many bytes; sorted."""
        operators = self.operators | {kind: self.operators[other] for kind, other in like.items()}
        rewritings = self.rewritings | {
            kind: self.rewritings[other] for kind, other in like.items() if other in self.rewritings
        }
        return Table(dict(sorted(operators.items())), dict(sorted(rewritings.items())))


def table(found: Sequence[Measured[N, V]]) -> Table:
    """The lines of each kind, in its best form."""
    kinds: dict[str, dict[str, list[Measured[N, V]]]] = {}
    for one in found:
        if one.in_float is not None and one.in_int8 is not None:
            kinds.setdefault(one.case.kind, {}).setdefault(one.case.rewriting, []).append(one)
    made = Table({}, {})
    for kind, forms in kinds.items():
        best = min(forms, key=lambda form: sum(one.share for one in forms[form]))
        # What one float operator costs does not depend on the int8 form beside it: all measurements count.
        every = [(one.case.work, one.in_float or 0.0) for form in forms.values() for one in form]
        chosen = [(one.case.work, one.in_int8 or 0.0) for one in forms[best]]
        lines = {"in_float": _fitted(every), "in_int8": _fitted(chosen)}
        made.operators[kind] = lines
        if best:
            made.rewritings[kind] = best
        errors = [
            statistics.median(error(line, work, time) for work, time in pairs)
            for line, pairs in zip(lines.values(), (every, chosen), strict=True)
        ]
        sys.stderr.write(f"{kind:20} {best:14} median error of the line: {errors[0]:.0%} float, {errors[1]:.0%} int8\n")
    return made


def _fitted(pairs: Sequence[tuple[Work, float]]) -> Line:
    return fit([work for work, _ in pairs], [time for _, time in pairs])


def update(profile: str, fields: Mapping[str, object]) -> None:
    """Put what was measured into a profile's file; what else it says stays."""
    path = FOLDER / f"{profile}.json"
    document = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
