"""What a loaded variant shows when it is run: the golden ratio, and the latency of single inferences."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lepton_edge.bundle.binding import Array
from lepton_edge.bundle.golden import Golden, distance
from lepton_edge.bundle.manifest import Variant
from lepton_edge.errors import BundleError, DataError, SelfTestError
from lepton_edge.runtimes import Session


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    warm_up: runs that do not count. enough_runs: at which to stop at once. least_runs, least_s: both wanted before
    that. most_s: at which to stop in any case, warm-up aside; one run always counts.
    """

    warm_up: int = 5
    least_runs: int = 30
    enough_runs: int = 1000
    least_s: float = 1.0
    most_s: float = 3.0


def golden_check(session: Session, variant: Variant, golden: Golden) -> float:
    """Run the golden inputs and compare with what this very file gave on the host.

    Returns:
        The golden ratio, at most the variant's tolerance.

    Raises:
        SelfTestError: it is above the tolerance, something is NaN or infinite, or the runtime failed.
    """
    try:
        expected = golden.expected(variant.name)
        outputs = session.run_samples(golden.inputs)
    except (BundleError, DataError) as cause:
        raise SelfTestError(f"variant {variant.name}: the golden test cannot be run: {cause}") from cause
    ratio = distance(expected, outputs)
    if not ratio <= variant.tolerance:  # also NaN
        raise SelfTestError(
            f"variant {variant.name}: the golden test gave {ratio:.3g}, at most {variant.tolerance:.3g} is accepted"
        )
    return ratio


def measure(
    session: Session,
    samples: Mapping[str, Array],
    *,
    effort: Effort | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Time single inferences, one sample after another.

    Args:
        session: a variant that has passed the golden test.
        samples: the golden inputs.
        effort: when to stop.
        clock: seconds, monotonic.

    Returns:
        The median and the 99th percentile in milliseconds.
    """
    effort = effort or Effort()
    inputs = session.split_samples(samples)
    start = clock()
    for run in range(effort.warm_up):
        session.run(inputs[run % len(inputs)])
        if clock() - start > effort.most_s:
            break
    times: list[float] = []
    start = before = clock()
    while not _is_enough(effort, len(times), before - start):
        session.run(inputs[len(times) % len(inputs)])
        after = clock()
        times.append(after - before)
        before = after
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return float(p50), float(p99)


def _is_enough(effort: Effort, runs: int, elapsed_s: float) -> bool:
    if runs == 0:
        return False
    if runs >= effort.enough_runs or elapsed_s >= effort.most_s:
        return True
    return runs >= effort.least_runs and elapsed_s >= effort.least_s
