"""Variants against the source model, paired, sample by sample: every file answers each sample once."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converters.data.dataset import Dataset
from converters.data.targets import Target
from converters.measure.intervals import (
    F64,
    Counts,
    Interval,
    at_least_rule_of_three,
    bootstrap,
    count_pairs,
    paired_difference,
    wilson,
)
from converters.measure.metric import Answered, Collected, Metric, Row
from converters.measure.metrics import check_label, is_class_scores
from converters.ort import WORKERS
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import Metric as MetricRecord
from lepton_edge.errors import DataError, ModelError
from lepton_edge.runtimes import Session

MAX_EXAMPLES = 24
"""Disagreements that are kept for the report."""
MAX_KEPT_BYTES = 2 * 1024 * 1024 * 1024
"""What rows may take: those of most metrics are a few numbers, a user's function gets all outputs."""


@dataclass(frozen=True)
class Example:
    """A sample on which a variant chose another class than the source model."""

    sample: str
    label: int | None
    float_class: int
    variant_class: int


@dataclass
class Marks:
    """What one file did: one entry a sample.

    agrees: whether its best class was the source model's; empty where the outputs are no class scores.
    """

    rows: list[Row] = field(default_factory=list)
    agrees: list[bool] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    not_finite: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Marks of the source model and of each variant over the same samples.

    Attributes:
        metric: what the rows mean.
        source: the float model's.
        variants: by name.
        left_out: samples that equal a calibration sample, and so were not used.
    """

    metric: Metric
    source: Marks
    variants: dict[str, Marks]
    left_out: int
    _known: dict[tuple[str, int], Interval] = field(default_factory=dict, repr=False, compare=False)

    @property
    def count(self) -> int:
        return len(self.source.rows)

    def value(self, marks: Marks) -> MetricRecord:
        """The metric with its 95 % interval."""
        found = self._once("value", marks, self._value)
        return MetricRecord(
            name=self.metric.name,
            value=found.value,
            low=found.low,
            high=found.high,
            n=self.count,
            unit=self.metric.unit,
        )

    def drop(self, name: str) -> Interval:
        """By how much a variant is worse than the source model, with the 95 % interval; below 0 where it is better.

        In points (100 x fraction) for metrics that are fractions, else in the metric's own unit.
        """
        drop = self._once("drop", self.variants[name], self._drop)
        scale = 100.0 if self.metric.unit == "fraction" else 1.0
        return Interval(*(scale * one for one in drop))

    def agreement(self, name: str) -> float | None:
        """Share of samples on which the variant's best class is the source model's; None without classes."""
        agrees = self.variants[name].agrees
        return sum(agrees) / len(agrees) if agrees else None

    def _once(self, what: str, marks: Marks, found: Callable[[Marks], Interval]) -> Interval:
        # The bootstrap is not cheap, and several readers ask. Keyed by identity: marks live as long as this does.
        key = (what, id(marks))
        if key not in self._known:
            self._known[key] = found(marks)
        return self._known[key]

    def _value(self, marks: Marks) -> Interval:
        if self.metric.rate:
            return wilson(int(np.count_nonzero(_right(marks))), self.count)
        found = self._bootstrap(lambda counts: self.metric.values(marks.rows, counts))
        if self.metric.unit == "own" or (self.metric.compares and marks is self.source):
            return found
        value, low, high = at_least_rule_of_three(found, self.count)
        return Interval(value, max(min(0.0, value), low), min(max(1.0, value), high))

    def _drop(self, variant: Marks) -> Interval:
        if self.metric.rate:
            # Against itself the source is always right, so that drop is one rate and not a difference.
            if self.metric.compares:
                return wilson(int(np.count_nonzero(~_right(variant))), self.count)
            return paired_difference(count_pairs(_right(self.source), _right(variant)))
        sign = 1.0 if self.metric.higher_is_better else -1.0

        def worse(counts: Counts) -> F64:
            source, other = (self.metric.values(marks.rows, counts) for marks in (self.source, variant))
            return np.asarray(sign * (source - other), np.float64)

        found = self._bootstrap(worse)
        return found if self.metric.unit == "own" else at_least_rule_of_three(found, self.count)

    def _bootstrap(self, statistic: Callable[[Counts], F64]) -> Interval:
        first = self.source.rows[0]
        width = 1 if isinstance(first, Collected) else first.size
        return bootstrap(statistic, self.count, resamples=self.metric.resamples(self.count, width))


def evaluate(
    data: Dataset,
    source: Session,
    variants: Mapping[str, Session],
    metric: Metric,
    *,
    exclude: Collection[bytes] = (),
) -> Evaluation:
    """Run every sample once through every file.

    Args:
        data: decoded one sample at a time.
        source: the float model.
        variants: by name.
        metric: what is measured.
        exclude: fingerprints of the calibration samples.

    Raises:
        DataError: a sample cannot be read or does not fit, a label names no class or is of the wrong kind, nothing is
            left to evaluate, or the source model is worse than guessing.
        ModelError: the source model gives NaN or Inf.
        NotYetSupportedError: the metric judges classes and the model's first output is no list of class scores.
    """
    result = Evaluation(metric, Marks(), {name: Marks() for name in variants}, left_out=0)
    left_out, classes = 0, 0
    with ThreadPoolExecutor(WORKERS) as pool:
        for index in range(len(data)):
            inputs = data.inputs(index)
            if exclude and fingerprint(inputs) in exclude:
                left_out += 1
                continue
            sample = _Sample(data.describe(index), data.target(index), inputs)
            # One thread a file: each has its own session, and answers as it would alone.
            answers = pool.map(partial(_answers, metric=metric, inputs=inputs), (source, *variants.values()))
            wanted, *given = answers
            if not result.count:
                classes = _check_labels(data, metric, wanted)
            _mark_sample(result, sample, wanted, dict(zip(variants, given, strict=True)))
    result = Evaluation(metric, result.source, result.variants, left_out)
    _check_source(result, classes)
    return result


def fingerprint(inputs: Mapping[str, Array]) -> bytes:
    """A hash of one sample's values, so that equal samples are found whatever file they came in."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        digest.update(np.ascontiguousarray(inputs[name]).tobytes())
    return digest.digest()


def _check_labels(data: Dataset, metric: Metric, outputs: Arrays) -> int:
    """The model's classes (0 where its outputs are none), with all labels checked before the long run begins."""
    first = next(iter(outputs.values()))
    if not is_class_scores(first):
        return 0
    if metric.needs_labels and data.labels is not None:
        wrong = np.flatnonzero((data.labels < 0) | (data.labels >= first.size))
        if len(wrong):
            check_label(int(data.labels[wrong[0]]), first.size, where=data.describe(int(wrong[0])))
    return first.size


def _check_source(result: Evaluation, classes: int) -> None:
    """A source model that is worse than guessing says that the data do not belong to it.

    Raises:
        DataError: that, nothing to evaluate, or a metric that has no value here.
    """
    metric = result.metric
    if not result.count:
        raise DataError("every evaluation sample is a calibration sample too: give other data")
    if not metric.rate and result.count < 2:
        raise DataError(f"metric {metric.name} needs two evaluation samples or more, there is {result.count}")
    value = result.value(result.source)
    if not np.isfinite([value.value, value.low, value.high]).all():
        raise DataError(f"metric {metric.name} has no value on these samples: does every class occur, and another?")
    chance = metric.chance(max(2, classes)) if metric.chance else None
    if chance is not None and value.high < chance:
        raise DataError(
            f"the source model itself is worse than guessing: {metric.name} {100 * value.value:.1f} % "
            f"({100 * value.low:.1f} to {100 * value.high:.1f} with n={value.n}), guessing gives {100 * chance:.1f} %: "
            "the labels or the preprocessing do not fit the model (is the order of the classes another?)"
        )


class _Sample(NamedTuple):
    where: str
    target: Target
    inputs: Arrays


def _mark_sample(result: Evaluation, sample: _Sample, wanted: Arrays, given: Mapping[str, Arrays]) -> None:
    if not _finite(wanted):
        raise ModelError(f"the source model itself gives NaN or Inf on {sample.where}: repair the model or the data")
    metric = result.metric
    row = metric.row(Answered(wanted, sample.target, wanted, sample.where))
    _check_kept(metric, row, result.count, 1 + len(given))
    result.source.rows.append(row)
    for name, got in given.items():
        _mark_variant(result.variants[name], metric, sample, got, wanted)


def _check_kept(metric: Metric, row: Row, count: int, files: int) -> None:
    size = sum(one.nbytes for one in row.outputs.values()) if isinstance(row, Collected) else row.nbytes
    if size * (count + 1) * files > MAX_KEPT_BYTES:
        raise DataError(
            f"metric {metric.name} keeps {size} bytes a sample and file, and {count + 1} samples of {files} files are "
            f"more than {MAX_KEPT_BYTES}: give fewer samples, or a metric that needs less"
        )


def _mark_variant(marks: Marks, metric: Metric, sample: _Sample, got: Arrays, wanted: Arrays) -> None:
    finite = _finite(got)
    marks.not_finite += not finite
    if finite:
        marks.rows.append(metric.row(Answered(got, sample.target, wanted, sample.where)))
    else:
        # It is refused for that anyway; the figure only must not be NaN itself, nor look right.
        zeros = {name: np.zeros_like(one) for name, one in got.items()}
        row = metric.row(Answered(zeros, sample.target, wanted, sample.where))
        marks.rows.append(np.zeros(1) if metric.rate else row)
    first, reference = next(iter(got.values())), next(iter(wanted.values()))
    if is_class_scores(reference):
        _mark_classes(marks, sample, int(np.argmax(first)), int(np.argmax(reference)), finite=finite)


def _mark_classes(marks: Marks, sample: _Sample, best: int, float_best: int, *, finite: bool) -> None:
    agrees = finite and best == float_best
    marks.agrees.append(agrees)
    if not agrees and len(marks.examples) < MAX_EXAMPLES:
        label = sample.target if isinstance(sample.target, int) else None
        marks.examples.append(Example(sample.where, label, float_best, best))


def _answers(session: Session, *, metric: Metric, inputs: Arrays) -> Arrays:
    """The outputs that the metric looks at."""
    outputs = session.run(inputs)
    return outputs if metric.every_output else dict(list(outputs.items())[:1])


def _finite(outputs: Arrays) -> bool:
    return all(bool(np.isfinite(one).all()) for one in outputs.values() if one.dtype.kind == "f")


def _right(marks: Marks) -> npt.NDArray[np.bool_]:
    return np.array([bool(row[0]) for row in marks.rows if not isinstance(row, Collected)], dtype=np.bool_)
