"""How fast every variant of a model or bundle is on this machine, on every runtime that takes it, interleaved.

The machine's mood changes from second to second, so no two variants are timed one after the other: each round times
single inferences of all in turn, and gives one ratio to the float model; the ratios' spread says what they are worth.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from converters.artifact import in_timing_groups
from converters.evaluate import open_samples, outcome_of, runnable, to_outcome
from converters.golden import golden_inputs
from converters.job import Note
from converters.measure.latency import measure_latency, summarise
from converters.measure.memory import release_memory
from converters.outcome import Outcome, Timing
from converters.subject import Entry, Subject, why_skipped
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Latency, ModelSignature
from lepton_edge.errors import RuntimeUnavailableError, UsageError
from lepton_edge.progress import Progress, quiet
from lepton_edge.runtimes import Runtime, Session, installed, runtimes

DEFAULT_ROUNDS = 5
MAX_ROUNDS = 1000
MAX_THREADS = 256
ROUND_S = 1.0
"""About how long a round may take, in seconds, before no further inferences are begun."""
MIN_RUNS, MAX_RUNS = 5, 200
"""Inferences of each file in a round."""


@dataclass(frozen=True)
class Racer:
    """A variant on a runtime."""

    entry: Entry
    runtime: Runtime
    threads: int

    @property
    def name(self) -> str:
        return f"{self.entry.name} on {self.runtime.name}"

    @property
    def size(self) -> int:
        return self.entry.size

    @property
    def is_float(self) -> bool:
        return self.entry.is_float

    @property
    def format(self) -> str:
        return self.entry.format

    def open(self, signature: ModelSignature, *, threads: int = 0) -> Session:
        """Load the file. Raises SelfTestError where the runtime does not take it."""
        provider = self.entry.variant.provider or None
        executor = self.runtime.load(self.entry.path, threads=threads or self.threads, provider=provider)
        return Session(executor, signature, self.entry.variant)


def benchmark_subject(
    subject: Subject,
    *,
    wanted: Sequence[str] = (),
    threads: int = 1,
    rounds: int = DEFAULT_ROUNDS,
    data: object = None,
    note: Note = lambda _: None,
    progress: Progress = quiet,
) -> Outcome:
    """Time every variant.

    Args:
        subject: the model.
        wanted: names of runtimes; all that are installed by default.
        threads: of each runtime.
        rounds: how many ratios to the float model are taken.
        data: DATA to take inputs from; by default a bundle's golden inputs, else random ones.
        note: told what begins, one line each.
        progress: told how far it is.

    Returns:
        Per variant one `Timing` a runtime; a variant that was not timed says why in `skipped`.

    Raises:
        UsageError: an unknown runtime, or numbers out of range.
        RuntimeUnavailableError: a runtime that is asked for is not installed, or no variant can be run here.
        DataError: data that cannot be used.
    """
    started = time.monotonic()
    chosen = _chosen(wanted, threads=threads, rounds=rounds)
    skipped = {entry.name: _why_skipped(entry, chosen) for entry in subject.entries}
    racers = [
        Racer(entry, runtime, threads)
        for entry in runnable(subject, skipped)
        for runtime in chosen
        if runtime.format == entry.variant.format
    ]
    inputs = _inputs(subject, data)
    note(f"timing {len(racers)} variants in {rounds} interleaved rounds on {threads} thread{'s' * (threads > 1)}")
    timings = _race(racers, subject.signature, inputs, rounds=rounds, progress=progress)
    variants = [
        to_outcome(entry, latency=timings.get(entry.name, []), skipped=skipped[entry.name]) for entry in subject.entries
    ]
    return outcome_of(subject, variants, started=started)


def _chosen(wanted: Sequence[str], *, threads: int, rounds: int) -> list[Runtime]:
    for what, value, most in (("--threads", threads, MAX_THREADS), ("--rounds", rounds, MAX_ROUNDS)):
        if not 1 <= value <= most:
            raise UsageError(f"{what} {value}: give 1 to {most}")
    for name in wanted:
        if name not in runtimes():
            raise UsageError(f"unknown runtime {name!r}; there are {', '.join(sorted(runtimes()))}")
        if name not in installed():
            raise RuntimeUnavailableError(f"the runtime {name} is not installed here")
    return [runtime for name, runtime in sorted(installed().items()) if not wanted or name in wanted]


def _why_skipped(entry: Entry, chosen: Sequence[Runtime]) -> str:
    if not any(runtime.format == entry.variant.format for runtime in chosen):
        return f"none of the runtimes {', '.join(one.name for one in chosen)} takes {entry.variant.format} files"
    return why_skipped(entry, timing=True)


def _inputs(subject: Subject, data: object) -> Arrays:
    if data is None:
        return subject.golden
    samples = open_samples(subject, data, fitting=subject.signature)
    return golden_inputs(samples, subject.signature, seed=0)


def _race(
    racers: Sequence[Racer], signature: ModelSignature, inputs: Arrays, *, rounds: int, progress: Progress
) -> dict[str, list[Latency]]:
    """Timings by variant, one a runtime. Files that are large together run in pairs with the float one's."""
    found: dict[str, list[Latency]] = {}
    known: set[str] = set()
    groups = in_timing_groups(racers)
    for number, group in enumerate(groups):

        def told(done: int, before: int = number * rounds) -> None:
            progress("timing", before + done, len(groups) * rounds)

        times = _time(group, signature, inputs, rounds=rounds, told=told)
        release_memory()
        for racer in group:
            if racer.name in known:  # the float one, beside another file again
                continue
            known.add(racer.name)
            base = _base(racer, group)
            timing = _timing(racer, times[racer.name], times[base.name] if base else [])
            found.setdefault(racer.entry.name, []).append(timing)
    return found


def _time(
    group: Sequence[Racer], signature: ModelSignature, inputs: Arrays, *, rounds: int, told: Callable[[int], None]
) -> dict[str, list[list[float]]]:
    """Seconds of each inference, by racer and round."""
    sessions = {racer.name: racer.open(signature) for racer in group}
    times: dict[str, list[list[float]]] = {name: [] for name in sessions}
    for number in range(1, rounds + 1):
        once = measure_latency(sessions, inputs, budget_s=ROUND_S, min_rounds=MIN_RUNS, max_rounds=MAX_RUNS)
        for name, seconds in once.items():
            times[name].append(seconds)
        told(number)
    return times


def _base(racer: Racer, group: Sequence[Racer]) -> Racer | None:
    """The float model on the same runtime, else the one that it runs beside; None where there is none."""
    floats = [one for one in group if one.entry.is_float]
    return next((one for one in floats if one.runtime is racer.runtime), floats[0] if floats else None)


def _timing(racer: Racer, times: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> Timing:
    pooled, base_pooled = ([second for once in rounds for second in once] for rounds in (times, base))
    provider = racer.entry.variant.provider
    plain = summarise(pooled, base_pooled, runtime=racer.runtime.name, threads=racer.threads, provider=provider)
    ratios = [float(np.median(slow) / np.median(fast)) for fast, slow in zip(times, base, strict=False)]
    return Timing(
        **structs.asdict(plain),
        ratio=round(float(np.median(ratios)), 4) if ratios else None,
        ratio_low=round(min(ratios), 4) if ratios else None,
        ratio_high=round(max(ratios), 4) if ratios else None,
        rounds=len(times),
        runs=len(pooled),
    )
