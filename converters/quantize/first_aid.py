"""When int8 loses too much: which layers go back to float, and in what order.

What is lost lies in tensors and in weights. To keep a tensor whole, its writer and its readers must all be float, so
these are tried together; weights are tried alone. What the outputs' deviation falls by, over what the layers then cost
more by the profile's table, is a trial's worth. Costs come from the table and ties go by node order, so that two runs
agree; a clock that is read now would not.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from converters.measure.blame import Blame
from converters.quantize.compiler import Compiler
from converters.quantize.constraints import Constraints
from converters.quantize.deviation import Deviation
from converters.quantize.plan import Plan
from lepton_edge.progress import Progress, quiet

STAGE = "first aid"
REASON = "int8 lost too much accuracy here"
MAX_TRIED = 128
"""Trials; of a larger graph those with the most work."""


class Cure(NamedTuple):
    """Layers that go back to float together.

    Attributes:
        layers: their names.
        blame: what is gained: `error` is the deviation without them in int8, `added` what they add.
    """

    layers: tuple[str, ...]
    blame: Blame


def worth(compiler: Compiler, made: Plan, deviation: Deviation, *, progress: Progress = quiet) -> list[Cure]:
    """Rank what could go back to float by accuracy gained for cost lost, the best trade first.

    Args:
        compiler: of the graph.
        made: the plan that loses too much.
        deviation: of the float outputs on a few samples.
        progress: told after each trial.

    Returns:
        The trials that gain anything.
    """
    whole = compiler.deviation(made, deviation)
    tried = _trials(made)
    found: list[tuple[float, int, Cure]] = []
    for done, layers in enumerate(tried, start=1):
        without = compiler.deviation(replace(made, int8=made.int8 - set(layers)), deviation)
        gained, lost = whole**2 - without**2, max(1.0, made.cost(keep_float=frozenset(layers)) - made.cost())
        first = made.units[layers[0]]
        blame = Blame(layer=first.name, operator=first.operator, error=without, added=whole - without)
        if gained > 0:
            found.append((-gained / lost, done, Cure(tuple(made.units[index].name for index in layers), blame)))
        progress(STAGE, done, len(tried))
    return [cure for _, _, cure in sorted(found, key=lambda one: one[:2])]


def heal(constraints: Constraints, cures: Sequence[Cure], fits: Callable[[Constraints], bool]) -> Constraints | None:
    """Return layers to float, the best trade first, until the result fits.

    Args:
        constraints: that lose too much.
        cures: from `worth`.
        fits: makes the files under constraints, and says whether they keep the budget.

    Returns:
        About the fewest cures that were found to fit; None where even all of them do not.
    """
    good = _first_fit(constraints, cures, fits)
    if good is None:
        return None
    bad = good // 2
    while good - bad > max(1, good // 8):
        middle = (good + bad) // 2
        if fits(_with(constraints, cures[:middle])):
            good = middle
        else:
            bad = middle
    return _with(constraints, cures[:good])


def _first_fit(constraints: Constraints, cures: Sequence[Cure], fits: Callable[[Constraints], bool]) -> int | None:
    """Double the number of cures until they fit."""
    count = 1
    while count < 2 * len(cures):
        if fits(_with(constraints, cures[:count])):
            return min(count, len(cures))
        count *= 2
    return None


def _with(constraints: Constraints, cures: Sequence[Cure]) -> Constraints:
    returned = {layer: REASON for cure in cures for layer in cure.layers}
    return replace(constraints, keep_float=constraints.keep_float | returned)


def _trials(made: Plan) -> list[tuple[int, ...]]:
    """Sets of units: those around each int8 tensor, its writer first, and each unit with weights alone."""
    alone = [(index,) for index in sorted(made.int8) if made.units[index].weight is not None]
    around: dict[str, list[int]] = {}
    for index in sorted(made.int8):
        unit = made.units[index]
        for value in (*unit.outputs, *unit.data):
            around.setdefault(value.name or "", []).append(index)
    trials = list(dict.fromkeys([*alone, *(tuple(dict.fromkeys(units)) for units in around.values())]))
    if len(trials) > MAX_TRIED:
        heaviest = sorted(trials, key=lambda units: (-sum(made.work(index) for index in units), units))
        trials = heaviest[:MAX_TRIED]
    return sorted(trials)
