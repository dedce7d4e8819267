"""Calibration: every sample once through the float graph, and a histogram of every tensor. Nothing else is kept.

Samples run one by one. Where a run's tensors would take more than GROUP_BYTES, they are observed in groups, each in
a pass of its own: all tensors of a segmentation net at once cost gigabytes, but each pass runs the graph up to its
last tensor, so groups grow, up to MOST_BYTES, before there are more than GROUPS of them.

While one run's tensors are counted, the next run computes in a second thread. Nothing is counted in another order.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, cast

import numpy as np
import onnx_ir as ir

from converters.calibrate.histogram import Histogram
from converters.calibrate.scratch import FLOAT_TYPES, Observed, Scratch
from converters.calibrate.statistics import Statistics
from converters.data.dataset import Dataset, Subset
from converters.data.sequence import Recurrence, recurrence
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import DataType, ModelSignature, TensorSpec
from lepton_edge.errors import DataError, ModelError, UsageError
from lepton_edge.progress import Progress, quiet

GROUP_BYTES = 96 * 1024 * 1024
MOST_BYTES = 512 * 1024 * 1024
GROUPS = 4
LOOKED_AT = 1 << 23
"""About how many values of a tensor are counted over all samples (its extremes are of all values) ..."""
LOOKED_AT_LEAST = 1 << 14
"""... and how many of one sample at least."""
STAGE = "calibrate"
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}


def calibrate(
    model: ir.Model,
    data: Dataset,
    *,
    tensors: Sequence[str] | None = None,
    state: Mapping[str, str] | None = None,
    progress: Progress = quiet,
    where: str = "",
) -> Statistics:
    """Observe a model's tensors on samples.

    A tensor that holds NaN or Inf while the model's outputs stay finite (scores masked with -Inf) is recorded as such
    and gives a warning; where an output is not finite either, the model is refused.

    Args:
        model: the canonical graph; unchanged.
        data: samples of its inputs; with `state`, sequences as `Recurrence.sequence_signature` describes them.
        tensors: which to observe; by default every float tensor that a node of the main graph computes, and every
            float input.
        state: input by the output of the step before that becomes it.
        progress: told after each sample of each pass.
        where: how messages name the model.

    Raises:
        DataError: no samples, or one that cannot be read or does not fit.
        ModelError: ONNX Runtime does not take the model, or an output is NaN or Inf.
        UsageError: `tensors` or `state` name what the model lacks.
    """
    if not len(data):
        raise DataError("no calibration samples: give at least one, better a hundred")
    job = _Job(model, data, recurrence(_signature(model), state, where=where) if state else None, where, _Varied())
    wanted = _wanted(model, tensors, where)
    watched = list(dict.fromkeys([*wanted, *_outputs(model)]))
    found = {name: Histogram.empty() for name in watched}
    with Scratch(model, where=where) as scratch:
        groups = _groups(scratch, job, watched)
        bad = None
        for number, group in enumerate(groups):
            bad = _observe(scratch, job, group, found, _part(progress, number, len(groups), len(data)))
            if bad is not None:
                break
    if bad is not None:
        if tensors is not None:  # only where all are observed can the first that went wrong be named
            calibrate(model, Subset(data, [bad]), state=state, where=where)
        _refuse(job, found, bad)
    observed = {name: found[name] for name in wanted if found[name].seen}
    return Statistics(observed, len(data), tuple(_warnings(job, observed)))


class _Varied:
    """Whether any sample differs from the first one."""

    def __init__(self) -> None:
        self.yes = False
        self._first: Arrays = {}

    def compare(self, sample: Arrays) -> None:
        self._first = self._first or sample
        self.yes = self.yes or any(not np.array_equal(self._first[name], array) for name, array in sample.items())


@dataclass(frozen=True)
class _Job:
    model: ir.Model
    data: Dataset
    how: Recurrence | None
    where: str
    varied: "_Varied"

    def producers(self) -> dict[str, str]:
        """The name of the node that computes each tensor."""
        return {
            value.name: node.name or node.op_type for node in self.model.graph for value in node.outputs if value.name
        }

    def state_outputs(self) -> list[str]:
        return list(self.how.state) if self.how else []

    def state_inputs(self) -> set[str]:
        return set(self.how.state.values()) if self.how else set()

    def steps(self, session: Observed, names: Sequence[str], index: int) -> Iterator[tuple[Arrays, Arrays]]:
        """Inputs and the named outputs of each run of a sample."""
        sample = self.data.inputs(index)
        self.varied.compare(sample)
        if self.how:
            yield from self.how.walk(lambda inputs: session.run(inputs, names), sample)
        else:
            yield sample, session.run(sample, names)

    def first_inputs(self) -> Arrays:
        """What the first run is fed with."""
        sample = self.data.inputs(0)
        return {**next(self.how.steps(sample)), **self.how.zeros()} if self.how else sample


def _inputs(model: ir.Model) -> list[ir.Value]:
    """What a caller feeds."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _outputs(model: ir.Model) -> list[str]:
    """Float outputs of the graph that a node computes."""
    return [value.name for value in model.graph.outputs if value.name and value.dtype in _FLOATS and value.producer()]


def _wanted(model: ir.Model, tensors: Sequence[str] | None, where: str) -> list[str]:
    """The tensors to observe, in the graph's order."""
    inputs = [value.name for value in _inputs(model) if value.name and value.dtype in _FLOATS]
    # A type that nobody inferred may be float: ONNX Runtime tells, once the model is loaded.
    computed = [
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name and (value.dtype in _FLOATS or value.type is None)
    ]
    everything = [*inputs, *computed]
    if tensors is None:
        return everything
    unknown = sorted(set(tensors) - set(everything))
    if unknown:
        raise UsageError(f"{where}: {unknown[0]!r} is no float tensor of the model's main graph")
    asked = set(tensors)
    return [name for name in everything if name in asked]


class _Group(NamedTuple):
    """Tensors that are observed in one pass; nbytes: of one run, as far as it is known."""

    names: list[str]
    nbytes: float


def _groups(scratch: Scratch, job: _Job, watched: Sequence[str]) -> list[_Group]:
    """Part the tensors, in the graph's order, so that one run's are not too many bytes."""
    values = {value.name: value for node in job.model.graph for value in node.outputs}
    first = job.first_inputs()
    fed = [name for name in watched if name in first]
    computed = [name for name in watched if name not in first]
    batches = {str(value.shape[0]) for value in _inputs(job.model) if value.shape}
    sizes = {name: _static_size(values[name], batches) for name in computed}
    open_ones = [name for name in computed if sizes[name] is None and values[name].type is not None]
    if open_ones:
        sizes |= scratch.sizes(first, open_ones)
    weights = [(sizes[name] or 0) * _itemsize(values[name]) for name in computed]
    groups = [_Group(fed, 0.0)]
    most = max(GROUP_BYTES, min(MOST_BYTES, sum(weights) / GROUPS))
    for name, size in zip(computed, weights, strict=True):
        names, held = groups[-1]
        if held and held + size > most:
            names, held = [], 0.0
            groups.append(_Group(names, held))
        names.append(name)
        groups[-1] = _Group(names, held + size)
    return groups


def _itemsize(value: ir.Value) -> float:
    return value.dtype.itemsize if value.dtype else 8


def _static_size(value: ir.Value, batches: set[str]) -> int | None:
    """How many values, where every axis but a leading batch has a size."""
    if value.shape is None:
        return None
    axes = list(value.shape)
    if axes and str(axes[0]) in batches:
        axes = axes[1:]
    sizes = [axis for axis in axes if isinstance(axis, int)]
    return math.prod(sizes) if len(sizes) == len(axes) else None


class _Run(NamedTuple):
    """One run of one sample. last: whether it is the sample's last."""

    sample: int
    turn: int
    tensors: Arrays
    last: bool = False


def _observe(
    scratch: Scratch, job: _Job, group: _Group, found: Mapping[str, Histogram], progress: Progress
) -> int | None:
    """One pass over all samples for some of the tensors; gives the sample that made an input or output not finite."""
    inputs = {value.name for value in _inputs(job.model) if value.name}
    names = list(dict.fromkeys([*(name for name in group.names if name not in inputs), *job.state_outputs()]))
    session = scratch.open(names or [value.name for value in job.model.graph.outputs if value.name][:1])
    kept = [name for name in group.names if name in inputs or session.types[name] in FLOAT_TYPES]
    most = max(LOOKED_AT_LEAST, LOOKED_AT // len(job.data))
    ends = (inputs | set(_outputs(job.model))) & set(kept)
    runs = _runs(job, session, names)
    for run in _ahead(runs) if group.nbytes <= GROUP_BYTES else runs:
        for name in kept if not run.last else ():
            found[name].add(run.tensors[name], most=most, sample=run.sample, turn=run.turn)
        if run.last:
            if any(found[name].not_finite for name in ends):
                return run.sample
            progress(STAGE, run.sample + 1, len(job.data))
        del run  # a run's tensors must be gone before another gives as many
    return None


def _runs(job: _Job, session: Observed, names: Sequence[str]) -> Iterator[_Run]:
    """Every run of every sample, and an empty one behind each sample."""
    for index in range(len(job.data)):
        turns = itertools.count()
        # No enumerate here, and all names dropped: they would hold a run's tensors.
        for given, results in job.steps(session, names, index):
            tensors = {**given, **results}
            del given, results
            yield _Run(index, next(turns), tensors)
            del tensors
        yield _Run(index, 0, {}, last=True)


def _ahead(runs: Iterator[_Run]) -> Iterator[_Run]:
    """The same, each computed while the one before is counted."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, runs, None)
        while (run := coming.result()) is not None:
            coming = pool.submit(next, runs, None)
            yield run
            del run


def _refuse(job: _Job, found: Mapping[str, Histogram], index: int) -> NoReturn:
    """Name the first tensor that went wrong in the graph's order: later ones only pass it on."""
    name = next(name for name, histogram in found.items() if histogram.not_finite)
    sample = job.data.describe(index)
    source = job.producers().get(name)
    if source is None and name not in job.state_inputs():
        raise DataError(f"{sample}: input {name!r} holds NaN or Inf; remove or repair it")
    raise ModelError(
        f"{job.where}: the float model gives NaN or Inf: tensor {name!r} of node {source!r} does so first, on "
        f"{sample}: check that the samples are preprocessed as in training, or repair the model"
    )


def _part(progress: Progress, number: int, count: int, samples: int) -> Progress:
    """One pass's share of the whole stage."""

    def part(stage: str, done: int, total: int) -> None:
        progress(stage, number * samples + done, count * total)

    return part


def _warnings(job: _Job, observed: Mapping[str, Histogram]) -> Iterator[str]:
    data = job.data
    if len(data) == 1:
        yield "there is one calibration sample: ranges that others need are not known; give some dozens"
    elif not job.varied.yes:
        yield f"all {len(data)} calibration samples are equal, and count as one; give samples that differ"
    for value in _inputs(job.model):
        histogram = observed.get(value.name or "")
        if histogram and histogram.minimum == histogram.maximum and histogram.seen > 1:
            yield f"input {value.name!r} is {histogram.minimum:.6g} throughout the calibration data"
    sources = job.producers()
    for name, histogram in observed.items():
        if histogram.not_finite:
            yield (
                f"tensor {name!r} of node {sources.get(name, 'input')!r} holds NaN or Inf, first in "
                f"{data.describe(histogram.first_not_finite)}; the outputs stay finite, so it is taken as intended"
            )


def _signature(model: ir.Model) -> ModelSignature:
    """The graph's inputs and outputs; an output of unknown shape is taken as it comes."""
    return ModelSignature(
        inputs=[_spec(value) for value in _inputs(model)], outputs=[_spec(value) for value in model.graph.outputs]
    )


def _spec(value: ir.Value) -> TensorSpec:
    if value.dtype is None or value.shape is None or not value.name:
        raise ModelError(f"{value.name!r} has no type or shape: canonicalise the model first")
    shape: list[int | str] = [size if isinstance(size, int) else str(size) for size in value.shape]
    return TensorSpec(name=value.name, dtype=cast("DataType", value.dtype.numpy().name), shape=shape)
