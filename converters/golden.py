"""golden.npz and each variant's tolerance: what a file gave here, and how much healthy machines may differ from it."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from converters.artifact import Artifact
from converters.data.dataset import Dataset
from converters.data.split import choose_spread
from converters.ort import open_plain
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.golden import GOLDEN_COUNT, distance
from lepton_edge.bundle.manifest import ModelSignature, Precision, TensorSpec
from lepton_edge.errors import SelfTestError
from lepton_edge.runtimes import Session

FLOORS: dict[Precision, float] = {"float32": 1e-3, "float16": 0.01}
QUANTISED_FLOOR = 0.05
LIMIT = 0.3
"""Above this the test could not tell a healthy machine from a broken file, so the variant is refused."""
SAFETY = 2.0


class Proof(NamedTuple):
    """What golden.npz and the manifest hold of one variant.

    Attributes:
        outputs: of this very file on this host, one thread, all optimisations; the first axis the inputs.
        spread: the largest distance between kernels and thread counts on this host.
        tolerance: of the golden test.
    """

    outputs: Arrays
    spread: float
    tolerance: float

    @property
    def finite(self) -> bool:
        floats = (array for array in self.outputs.values() if np.issubdtype(array.dtype, np.floating))
        return all(bool(np.isfinite(array).all()) for array in floats)


def golden_inputs(data: Dataset | None, signature: ModelSignature, *, seed: int) -> Arrays:
    """Choose GOLDEN_COUNT inputs, spread over the classes; random ones by the signature where there are no data.

    Fewer samples than that are repeated in turn.
    """
    if data is None:
        rng = np.random.default_rng(seed)
        return {spec.name: _random_input(spec, rng) for spec in signature.inputs}
    chosen = choose_spread(data.labels, len(data), GOLDEN_COUNT, seed=seed)
    samples = [data.inputs(chosen[index % len(chosen)]) for index in range(GOLDEN_COUNT)]
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def _random_input(spec: TensorSpec, rng: np.random.Generator) -> Array:
    shape = [GOLDEN_COUNT, *(int(size) for size in spec.shape[1:])]
    if spec.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(spec.dtype)
    if spec.dtype in {"uint8", "int8"}:
        limits = np.iinfo(spec.dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=spec.dtype, endpoint=True)
    # Wider integers are mostly indices (tokens): 0 and 1 lie in every table.
    return rng.integers(0, 2, shape).astype(spec.dtype)


def prove(artifact: Artifact, signature: ModelSignature, inputs: Arrays, folder: Path) -> Proof:
    """Run one file in every way that this host has, and derive the tolerance from how much the ways differ.

    Raises:
        SelfTestError: the runtime does not take the file.
    """
    session = artifact.open(folder, signature)
    outputs = session.run_samples(inputs)
    # The same session again: a random operator repeats itself in a fresh one, so only this shows it.
    ways = [session, *_other_ways(artifact, signature, folder)]
    spread = max(distance(outputs, way.run_samples(inputs)) for way in ways)
    floor = FLOORS.get(artifact.precision, QUANTISED_FLOOR)
    return Proof(outputs, spread, max(floor, SAFETY * spread))


def _other_ways(artifact: Artifact, signature: ModelSignature, folder: Path) -> list[Session]:
    """The same file with two threads, and with the kernels that stand in the graph (no fusion)."""
    file, variant = artifact.write(folder), artifact.variant(signature)
    ways = [artifact.open(folder, signature, threads=2)]
    # Some operators have a kernel only in their fused form; then there is no second way to compare with.
    with suppress(SelfTestError):
        ways.append(Session(open_plain(file, threads=1, optimise=False), signature, variant))
    return ways
