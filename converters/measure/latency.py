"""Latency of several files in one run, interleaved: what disturbs the machine disturbs all of them alike."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Latency
from lepton_edge.cpu import this_cpu
from lepton_edge.progress import Progress, quiet
from lepton_edge.runtimes import Session, runtimes

WARM_UP = 5
MIN_ROUNDS = 20
MAX_ROUNDS = 400
BUDGET_S = 2.0


def measure_latency(
    sessions: Mapping[str, Session],
    inputs: Arrays,
    *,
    budget_s: float = BUDGET_S,
    min_rounds: int = MIN_ROUNDS,
    max_rounds: int = MAX_ROUNDS,
    progress: Progress = quiet,
) -> dict[str, list[float]]:
    """Time single inferences, one of each file in turn.

    Args:
        sessions: by name.
        inputs: samples by input name, the first axis the samples; taken in turn, one a round.
        budget_s: about how long all rounds may take together, in seconds.
        min_rounds, max_rounds: at least so many are done whatever they take, and at most.
        progress: told the percentage done.

    Returns:
        Seconds, one a round, by name.
    """
    count = len(next(iter(inputs.values())))
    samples = [{name: array[index : index + 1] for name, array in inputs.items()} for index in range(count)]
    for session in sessions.values():
        for _ in range(WARM_UP):
            session.run(samples[0])
    times: dict[str, list[float]] = {name: [] for name in sessions}
    start = time.perf_counter()
    for round_index in range(max_rounds):
        spent = (time.perf_counter() - start) / budget_s
        if round_index >= min_rounds and spent > 1:
            break
        progress("timing", int(100 * min(1.0, max(spent, round_index / max_rounds))), 100)
        for name, session in sessions.items():
            before = time.perf_counter()
            session.run(samples[round_index % count])
            times[name].append(time.perf_counter() - before)
    progress("timing", 100, 100)
    return times


def summarise(
    times: Sequence[float], float_times: Sequence[float], *, runtime: str, threads: int, provider: str = ""
) -> Latency:
    """The manifest's entry: quantiles in milliseconds; 0 for the float model's where it was not timed.

    provider: of the runtime, where another one than devices use.
    """
    return Latency(
        runtime=runtime,
        version=runtimes()[runtime].version() or "",
        provider=provider or "CPU",
        threads=threads,
        p50_ms=round(1e3 * float(np.quantile(times, 0.5)), 4),
        p90_ms=round(1e3 * float(np.quantile(times, 0.9)), 4),
        p99_ms=round(1e3 * float(np.quantile(times, 0.99)), 4),
        float_p50_ms=round(1e3 * float(np.quantile(float_times, 0.5)), 4) if float_times else 0.0,
        place=this_cpu().model,
    )
