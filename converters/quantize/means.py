"""The mean of each channel of what layers with weights read: what rounded weights err by on average follows from it.

Only a few samples are looked at: a channel of an image or a text is a mean over many positions already.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from converters.calibrate.scratch import Scratch
from converters.quantize.units import Unit, constant
from converters.quantize.weights import Floats
from lepton_edge.bundle.binding import Array, Arrays

ENOUGH = 100_000_000
"""Values that are looked at in all, about half a second's work ..."""
FEWEST, MOST = 6, 64
"""... within these numbers of samples."""
MOST_BYTES = 256 * 1024 * 1024
"""Of tensors that one run holds at a time."""


def channel_means(
    model: ir.Model, units: Sequence[Unit], elements: Mapping[str, int], samples: Sequence[Arrays], *, where: str
) -> dict[str, Floats]:
    """Run the float graph and take means.

    Args:
        model: the canonical graph.
        units: of the graph.
        elements: how many a tensor has in one run.
        samples: inputs of single runs.
        where: how messages name the model.

    Returns:
        By unit, shape (input channels,): axis 1 for a convolution, the last axis for a matrix product.
    """
    readers: dict[str, list[Unit]] = {}
    for unit in units:
        if unit.weight is not None and constant(unit.data[0]) is None:
            readers.setdefault(unit.data[0].name or "", []).append(unit)
    rows: dict[str, list[Floats]] = {}
    for name, array in _tensors(model, list(readers), elements, samples, where):
        for unit in readers[name]:
            rows.setdefault(unit.name, []).append(_mean(array, channel_axis(unit)))
    return {name: _over_samples(found) for name, found in rows.items()}


def samples_for_means(elements: Mapping[str, int]) -> int:
    """How many samples are worth looking at: the fewer values a run has, the more runs."""
    return int(np.clip(ENOUGH // max(1, sum(elements.values())), FEWEST, MOST))


def channel_axis(unit: Unit) -> int:
    """The axis of its input whose elements its weights tell apart."""
    return 1 if unit.operator in {"Conv", "ConvTranspose"} else -1


def _tensors(
    model: ir.Model, names: Sequence[str], elements: Mapping[str, int], samples: Sequence[Arrays], where: str
) -> Iterator[tuple[str, Array]]:
    """Each tensor on each sample."""
    inputs = {value.name for value in model.graph.inputs}
    for name in names:
        if name in inputs:
            yield from ((name, sample[name]) for sample in samples)
    with Scratch(model, where=where) as scratch:
        for group in _groups([name for name in names if name not in inputs], elements):
            session = scratch.open(group)
            for sample in samples:
                yield from session.run(sample, group).items()


def _over_samples(rows: Sequence[Floats]) -> Floats:
    mean: Floats = np.stack(rows).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _mean(array: Array, channel: int) -> Floats:
    others = tuple(axis for axis in range(array.ndim) if axis != channel % array.ndim)
    mean: Floats = array.mean(axis=others, dtype=np.float64).astype(np.float32)
    return mean


def _groups(names: Sequence[str], elements: Mapping[str, int]) -> Iterator[list[str]]:
    group: list[str] = []
    held = 0
    for name in names:
        size = 4 * elements.get(name, 0)
        if group and held + size > MOST_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group
