"""When int8 loses too much: which layers go back to float, and in what order.

Each int8 unit is tried in float alone; what the outputs' deviation falls by, over what the unit then costs more by the
profile's table, is its worth. Costs come from the table and ties go by node order, so that two runs agree; a clock that
is read now would not.
"""

from collections.abc import Callable
from dataclasses import replace

from converters.measure.blame import Blame
from converters.quantize.compiler import Compiler
from converters.quantize.constraints import Constraints
from converters.quantize.deviation import Deviation
from converters.quantize.plan import Plan
from converters.quantize.units import Unit
from lepton_edge.progress import Progress, quiet

STAGE = "first aid"
REASON = "int8 lost too much accuracy here"
MAX_TRIED = 96
"""Units that are tried one by one; of a larger graph those with the most work."""

Loss = Callable[[Constraints], float]


def worth(compiler: Compiler, made: Plan, deviation: Deviation, *, progress: Progress = quiet) -> list[Blame]:
    """Rank the int8 units by accuracy gained for cost lost, the best trade first.

    Args:
        compiler: of the graph.
        made: the plan that loses too much.
        deviation: of the float outputs on a few samples.
        progress: told after each unit.

    Returns:
        One entry a unit that gains anything; `error` is the deviation without it, `added` what it adds.
    """
    whole = deviation.of(compiler.quantised(made))
    tried = _candidates(made)
    found: list[tuple[float, int, Blame]] = []
    for done, index in enumerate(tried, start=1):
        without = deviation.of(compiler.quantised(replace(made, int8=made.int8 - {index})))
        gained, lost = whole**2 - without**2, max(1.0, made.cost(keep_float=index) - made.cost())
        unit = made.units[index]
        blame = Blame(layer=unit.name, operator=unit.operator, error=without, added=whole - without)
        if gained > 0:
            found.append((-gained / lost, index, blame))
        progress(STAGE, done, len(tried))
    return [blame for _, _, blame in sorted(found, key=lambda one: one[:2])]


def heal(constraints: Constraints, ranking: list[Blame], fits: Callable[[Constraints], bool]) -> Constraints | None:
    """Return layers to float, the best trade first, until the result fits.

    Args:
        constraints: that lose too much.
        ranking: from `worth`.
        fits: makes the files under constraints and says whether they keep the budget; ends the search early by
            raising nothing but returning False.

    Returns:
        The fewest returned layers that were found to fit; None where even all of them do not.
    """
    good = _first_fit(constraints, ranking, fits)
    if good is None:
        return None
    bad = good // 2
    while good - bad > max(1, good // 8):
        middle = (good + bad) // 2
        if fits(_with(constraints, ranking[:middle])):
            good = middle
        else:
            bad = middle
    return _with(constraints, ranking[:good])


def _first_fit(constraints: Constraints, ranking: list[Blame], fits: Callable[[Constraints], bool]) -> int | None:
    """Double the number of returned layers until they fit."""
    count = 1
    while count < 2 * len(ranking):
        if fits(_with(constraints, ranking[: min(count, len(ranking))])):
            return min(count, len(ranking))
        count *= 2
    return None


def _with(constraints: Constraints, returned: list[Blame]) -> Constraints:
    return replace(constraints, keep_float=constraints.keep_float | {one.layer: REASON for one in returned})


def _candidates(made: Plan) -> list[int]:
    """The units that could be to blame: those that compute, not those that only move values."""
    computing = [index for index in sorted(made.int8) if not _moves(made.units[index])]
    if len(computing) <= MAX_TRIED:
        return computing
    heaviest = sorted(computing, key=lambda index: (made.units[index].weight is None, -made.work(index), index))
    return sorted(heaviest[:MAX_TRIED])


def _moves(unit: Unit) -> bool:
    return unit.rule is None or unit.rule.same_scale
