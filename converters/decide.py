"""Which variants are kept: rules without I/O, the first that refuses gives the reason."""

from dataclasses import dataclass

from converters.golden import LIMIT
from lepton_edge.figures import Unit, drop_text


@dataclass(frozen=True)
class Facts:
    """What the rules look at; None where it was not measured.

    Attributes:
        drop: how far it is below the source model: in points, or in the metric's own unit.
        finite: whether all outputs were finite numbers.
        tolerance: what the golden test would need.
        p50_ms: the latency on a host of the variant's profile.
        float_p50_ms: the float model's in the same run.
        unit: of the drop.
    """

    drop: float | None
    finite: bool
    tolerance: float
    p50_ms: float | None = None
    float_p50_ms: float | None = None
    unit: Unit = "fraction"


@dataclass(frozen=True)
class Verdict:
    """kept, or why not; over_budget: whether accuracy was the reason."""

    kept: bool
    reason: str = ""
    over_budget: bool = False


def judge(facts: Facts, *, budget: float | None, keep_all: bool) -> Verdict:
    """Apply the rules to one variant.

    Args:
        facts: what was measured.
        budget: the most that it may drop; None where nothing was promised.
        keep_all: keep a variant that is not faster. Accuracy has no such exception: no file differs in silence.
    """
    if not facts.finite:
        return Verdict(kept=False, reason="gives NaN or Inf", over_budget=budget is not None)
    if budget is not None and facts.drop is not None and facts.drop > budget:
        lost = drop_text(facts.drop, None, None, unit=facts.unit).removeprefix("+")
        reason = f"over the budget: {lost} below the source model, {budget:g} allowed"
        return Verdict(kept=False, reason=reason, over_budget=True)
    if facts.tolerance > LIMIT:
        reason = (
            f"its outputs depend too much on the kernel: the golden test would need a tolerance of "
            f"{facts.tolerance:.2f}, and above {LIMIT:g} it could not tell a broken file"
        )
        return Verdict(kept=False, reason=reason)
    if facts.p50_ms is not None and facts.float_p50_ms is not None and not keep_all:
        return _judge_speed(facts.p50_ms, facts.float_p50_ms)
    return Verdict(kept=True)


def _judge_speed(p50_ms: float, float_p50_ms: float) -> Verdict:
    if p50_ms < float_p50_ms:
        return Verdict(kept=True)
    return Verdict(
        kept=False,
        reason=f"not faster than float here: {p50_ms:.3f} ms against {float_p50_ms:.3f} ms (--keep-all keeps)",
    )


def not_proven(name: str, *, drop_high: float, budget: float, count: int, unit: Unit = "fraction") -> str | None:
    """The warning for a drop whose interval reaches over the budget; None where it does not."""
    if drop_high <= budget:
        return None
    most = drop_text(drop_high, None, None, unit=unit).removeprefix("+")
    return (
        f"{name}: not proven with n={count}: the drop may be up to {most} (95 %), the budget is "
        f"{budget:g}; more evaluation samples narrow it"
    )
