"""golden.npz and each variant's tolerance: what a file gave here, and how much healthy machines may differ from it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from converters.artifact import Artifact
from converters.data.dataset import Dataset
from converters.data.random import random_inputs
from converters.data.split import choose_spread
from converters.host import host_runtime
from converters.ort import WORKERS, open_plain
from converters.quantize.profiles import host_flags, runs_right
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.golden import GOLDEN_COUNT, distance
from lepton_edge.bundle.manifest import ModelSignature, Precision
from lepton_edge.errors import SelfTestError
from lepton_edge.runtimes import Executor, Session
from lepton_edge.runtimes._tflite import BUILTIN, XNNPACK

FLOORS: dict[Precision, float] = {"float32": 1e-3, "float16": 0.01}
QUANTISED_FLOOR = 0.05
LIMIT = 0.3
"""Above this the test could not tell a healthy machine from a broken file, so the variant is refused."""
SAFETY = 2.0
MOST_SEEN = 8 * GOLDEN_COUNT
"""Samples that are looked at for a common shape."""
REPEATED = 2
"""Inputs that are run again to see whether the answers repeat."""
DEAR_BYTES = 64 * 1024 * 1024
"""The other ways of a larger file are tried on some of the golden inputs alone, and it is loaded once at a time."""
FEWER = 4
"""So many, spread over all. Measured on MobileNetV2: 0.070 where all 16 show 0.096, which SAFETY covers. A net that
is exact on most inputs and far off on few may show less than it should."""
_XNNPACK, _BUILTIN = "XNNPACK's kernels", "TFLite's own kernels"
_SHARED = {"onnxruntime"}
"""Runtimes that let two threads into one loaded file."""


class Proof(NamedTuple):
    """What golden.npz and the manifest hold of one variant.

    Attributes:
        outputs: of this very file on this host, one thread, all optimisations; the first axis the inputs.
        spread: the largest distance between kernels and thread counts on this host.
        tolerance: of the golden test.
        note: what a device must have for the test to pass; "" where any will do.
        builtin: of TFLite's own kernels, where they are too far from those that served here for one test of both.
    """

    outputs: Arrays
    spread: float
    tolerance: float
    note: str = ""
    builtin: "Proof | None" = None

    @property
    def finite(self) -> bool:
        floats = (array for array in self.outputs.values() if np.issubdtype(array.dtype, np.floating))
        return all(bool(np.isfinite(array).all()) for array in floats)


def golden_inputs(data: Dataset | None, signature: ModelSignature, *, seed: int) -> Arrays:
    """Choose GOLDEN_COUNT inputs, spread over the classes; random ones by the signature where there are no data.

    Fewer samples than that are repeated in turn. Where samples differ in shape (an open axis), those of the commonest
    shape are taken.
    """
    if data is None:
        return random_inputs(signature, GOLDEN_COUNT, np.random.default_rng(seed))
    chosen = choose_spread(data.labels, len(data), GOLDEN_COUNT, seed=seed)
    alike = _commonest_shape([data.inputs(index) for index in chosen])
    if len(alike) < len(chosen):
        more = choose_spread(data.labels, len(data), MOST_SEEN, seed=seed)
        alike = _commonest_shape([data.inputs(index) for index in more])[:GOLDEN_COUNT]
    samples = [alike[index % len(alike)] for index in range(GOLDEN_COUNT)]
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def _commonest_shape(samples: list[Arrays]) -> list[Arrays]:
    """The largest group of samples of one shape; the first of the largest."""
    groups: dict[tuple[tuple[int, ...], ...], list[Arrays]] = {}
    for sample in samples:
        groups.setdefault(tuple(array.shape for array in sample.values()), []).append(sample)
    return max(groups.values(), key=len)


def is_dear(artifact: Artifact) -> bool:
    """Whether a file is too large for several of it to be held at a time."""
    return artifact.size > DEAR_BYTES


def prove(artifact: Artifact, signature: ModelSignature, inputs: Arrays) -> Proof:
    """Run one file in every way that this host has, and derive the tolerance from how much the ways differ.

    TFLite's two sets of kernels round differently, which a net that magnifies rounding shows in its outputs. Where a
    tolerance for both could tell no broken file, each has its own: a file that is for both is proven on XNNPACK, which
    nearly all devices with LiteRT have and which rounds alike on all CPUs, and its twin for a runtime without it on
    TFLite's own. A device with the wrong ones refuses the file in its own test, and takes the next.

    Where the variant's own runtime is not installed, what stands in for it here answers (`host_runtime`).

    One file is loaded at a time: it holds the weights again, in the kernels' own order. Of a large file the other
    ways are tried on a few inputs alone, and the distance is that of these: an estimate. So they are of a file for
    another kind of CPU, whose own kernels are not at hand anyway.

    Raises:
        SelfTestError: the runtime does not take the file.
    """
    outputs, repeats = _run_twice(artifact, signature, inputs)
    count = len(outputs) if not is_dear(artifact) and _is_at_home(artifact) else FEWER
    chosen = slice(None, None, max(1, len(outputs) // count))
    host = _joined(outputs[chosen])

    def apart(other: Sequence[Arrays] | None) -> float:
        return 0.0 if other is None else distance(host, _joined(other))

    # Threads part the same sums, or none at all: a few inputs show which.
    few = slice(None, None, max(1, len(outputs) // FEWER))
    threads = distance(_joined(outputs[few]), _joined(_two_threads(artifact, signature, inputs, few)))
    alike = max(repeats, threads)
    kernels = apart(_OTHER_KERNELS[artifact.format](artifact, signature, inputs, chosen))
    floor = FLOORS.get(artifact.precision, QUANTISED_FLOOR)
    if artifact.format == "tflite" and SAFETY * alike <= LIMIT < SAFETY * kernels:
        tolerance = max(floor, SAFETY * alike)
        own, others = (_BUILTIN, _XNNPACK) if artifact.profile.provider == BUILTIN else (_XNNPACK, _BUILTIN)
        note = f"proven on {own} alone: {others} differ by {kernels:.2f} of the outputs' spread"
        builtin = _other_set(artifact, signature, inputs, slice(None)) if others == _BUILTIN else None
        apart_from_it = Proof(_joined(builtin), alike, tolerance) if builtin else None
        return Proof(_joined(outputs), alike, tolerance, note, apart_from_it)
    spread = max(alike, kernels)
    return Proof(_joined(outputs), spread, max(floor, SAFETY * spread))


def _is_at_home(artifact: Artifact) -> bool:
    flags, machine = host_flags()
    return runs_right(artifact.profile, flags=flags, machine=machine)


def _run_twice(artifact: Artifact, signature: ModelSignature, inputs: Arrays) -> tuple[Sequence[Arrays], float]:
    """The outputs of each run, and how far a few of them are from those of a second run.

    In the same session: a random operator repeats itself in a fresh one, so only this shows it.
    """
    executors = _loaded(artifact, threads=1)
    outputs = _run(executors, artifact, signature, inputs, slice(None))
    again = _run(executors, artifact, signature, inputs, slice(REPEATED))
    return outputs, distance(_joined(outputs[:REPEATED]), _joined(again))


def _two_threads(artifact: Artifact, signature: ModelSignature, inputs: Arrays, chosen: slice) -> Sequence[Arrays]:
    return _run(_loaded(artifact, threads=2)[:1], artifact, signature, inputs, chosen)


def _unfused(artifact: Artifact, signature: ModelSignature, inputs: Arrays, chosen: slice) -> Sequence[Arrays] | None:
    """With the kernels that stand in the graph; None where an operator has a kernel only in its fused form."""
    try:
        plain = open_plain(artifact.path, threads=1, optimise=False)
    except SelfTestError:
        return None
    return _run([plain] * WORKERS, artifact, signature, inputs, chosen)


def _other_set(artifact: Artifact, signature: ModelSignature, inputs: Arrays, chosen: slice) -> Sequence[Arrays] | None:
    """With TFLite's own kernels where XNNPACK's served, else with XNNPACK's; None where they do not take the file."""
    try:
        executors = _loaded(artifact, threads=1, provider=XNNPACK if artifact.profile.provider == BUILTIN else BUILTIN)
    except SelfTestError:
        return None
    return _run(executors, artifact, signature, inputs, chosen)


_OTHER_KERNELS: Mapping[str, Callable[[Artifact, ModelSignature, Arrays, slice], Sequence[Arrays] | None]] = {
    "onnx": _unfused,
    "tflite": _other_set,
}
"""By format: the kernels that devices may have in place of those that serve here."""


def _loaded(artifact: Artifact, *, threads: int, provider: str | None = None) -> list[Executor]:
    """The file for each worker: one that all share where the runtime lets two threads into it; one of a large file."""
    runtime = host_runtime(artifact.profile.runtime)

    def load() -> Executor:
        return runtime.load(artifact.path, threads=threads, provider=provider or artifact.profile.provider or None)

    # One with threads of its own is run by one worker.
    if runtime.name in _SHARED or threads > 1:
        return [load()] * WORKERS
    return [load() for _ in range(1 if is_dear(artifact) else WORKERS)]


def _run(
    executors: Sequence[Executor], artifact: Artifact, signature: ModelSignature, inputs: Arrays, chosen: slice
) -> Sequence[Arrays]:
    """The outputs of each single run that is chosen, one worker an executor; the runs are `Session.split_samples`'."""
    variant = artifact.variant(signature)
    sessions = [Session(executor, signature, variant) for executor in executors]
    runs = sessions[0].split_samples(inputs)[chosen]
    # A session lets one thread in at a time, so each worker has its own.
    with ThreadPoolExecutor(len(sessions)) as pool:
        return list(pool.map(lambda at: sessions[at % len(sessions)].run(runs[at]), range(len(runs))))


def _joined(outputs: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([np.atleast_1d(one[name]) for one in outputs]) for name in outputs[0]}
