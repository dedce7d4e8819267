"""The table of lowerings: (operator, since-opset) -> how TFLite says it."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from converters.write.tflite.lowering import Lowering

Lower = Callable[["Lowering"], None]


class Entry(NamedTuple):
    """One row.

    Attributes:
        lower: emits the steps.
        int8: whether the steps are right when all data are int8 with scales.
        moves: whether inputs and output must then share one scale, because the operator only moves values.
        hybrid: whether it looks at how its constants are `stored` (int8, float16) itself.
        parameters: positions of inputs that are no data (scales of a Resize): an int8 unit may have them in float.
    """

    lower: Lower
    int8: bool = False
    moves: bool = False
    hybrid: bool = False
    parameters: frozenset[int] = frozenset()


TABLE: dict[str, dict[int, Entry]] = {}


def lowers(
    *operators: str,
    since: int = 1,
    int8: bool = False,
    moves: bool = False,
    hybrid: bool = False,
    parameters: Iterable[int] = (),
) -> Callable[[Lower], Lower]:
    """Enter a function for operators of the ONNX domain; raises where there is one for that opset already."""

    def enter(function: Lower) -> Lower:
        for operator in operators:
            rows = TABLE.setdefault(operator, {})
            if since in rows:
                raise RuntimeError(f"two lowerings of {operator}, opset {since}")
            rows[since] = Entry(function, int8, moves, hybrid, frozenset(parameters))
        return function

    return enter


def find(operator: str, opset: int) -> Entry | None:
    """The newest row that is not newer than `opset`."""
    rows = TABLE.get(operator, {})
    since = max((one for one in rows if one <= opset), default=None)
    return None if since is None else rows[since]
