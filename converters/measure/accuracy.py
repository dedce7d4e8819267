"""Variants against the source model, paired, sample by sample: every file answers each sample once."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converters.data.dataset import Dataset
from converters.measure.intervals import Interval, count_pairs, paired_difference, wilson
from converters.measure.metrics import RateMetric, Scores, check_label, class_scores
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Metric
from lepton_edge.errors import DataError, ModelError
from lepton_edge.runtimes import Session

MAX_EXAMPLES = 24
"""Disagreements that are kept for the report."""


@dataclass(frozen=True)
class Example:
    """A sample on which a variant chose another class than the source model."""

    sample: str
    label: int | None
    float_class: int
    variant_class: int


@dataclass
class Marks:
    """What one file did: one entry a sample."""

    hits: list[bool] = field(default_factory=list)
    agrees: list[bool] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    not_finite: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Marks of the source model and of each variant over the same samples.

    Attributes:
        metric: what a hit means.
        source: the float model's.
        variants: by name.
        left_out: samples that equal a calibration sample, and so were not used.
    """

    metric: RateMetric
    source: Marks
    variants: dict[str, Marks]
    left_out: int

    @property
    def count(self) -> int:
        return len(self.source.hits)

    def value(self, marks: Marks) -> Metric:
        """The metric with its 95 % interval."""
        rate = wilson(sum(marks.hits), self.count)
        return Metric(name=self.metric.name, value=rate.value, low=rate.low, high=rate.high, n=self.count)

    def drop(self, name: str) -> Interval:
        """Points (100 x fraction) by which a variant is below the source model, with the 95 % interval.

        Against itself the source always agrees, so the drop in agreement is one rate and not a difference.
        """
        variant = _bools(self.variants[name].hits)
        if self.metric.needs_labels:
            drop = paired_difference(count_pairs(_bools(self.source.hits), variant))
        else:
            drop = wilson(int(np.count_nonzero(~variant)), self.count)
        return Interval(100 * drop.value, 100 * drop.low, 100 * drop.high)

    def agreement(self, name: str) -> float:
        """Share of samples on which the variant's best class is the source model's."""
        return sum(self.variants[name].agrees) / self.count


def evaluate(
    data: Dataset,
    source: Session,
    variants: Mapping[str, Session],
    metric: RateMetric,
    *,
    exclude: Collection[bytes] = (),
) -> Evaluation:
    """Run every sample once through every file.

    Args:
        data: decoded one sample at a time.
        source: the float model.
        variants: by name.
        metric: what counts as a hit.
        exclude: fingerprints of the calibration samples.

    Raises:
        DataError: a sample cannot be read or does not fit, a label names no class, or nothing is left to evaluate.
        ModelError: the source model gives NaN or Inf.
        NotYetSupportedError: the model's first output is no list of class scores.
    """
    result = Evaluation(metric, Marks(), {name: Marks() for name in variants}, left_out=0)
    left_out = 0
    for index, inputs in _samples(data):
        if exclude and fingerprint(inputs) in exclude:
            left_out += 1
            continue
        label = -1 if data.labels is None else int(data.labels[index])
        _mark_sample(result, _Sample(data.describe(index), label, inputs), source, variants)
    if not result.count:
        raise DataError("every evaluation sample is a calibration sample too: give other data")
    return Evaluation(metric, result.source, result.variants, left_out)


def fingerprint(inputs: Mapping[str, Scores]) -> bytes:
    """A hash of one sample's values, so that equal samples are found whatever file they came in."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        digest.update(np.ascontiguousarray(inputs[name]).tobytes())
    return digest.digest()


def _samples(data: Dataset) -> Iterator[tuple[int, Arrays]]:
    for index in range(len(data)):
        yield index, data.inputs(index)


class _Sample(NamedTuple):
    where: str
    label: int
    """-1 where the data carry none."""
    inputs: Arrays


def _mark_sample(result: Evaluation, sample: _Sample, source: Session, variants: Mapping[str, Session]) -> None:
    wanted = _scores(source, sample.inputs)
    if not np.isfinite(wanted).all():
        raise ModelError(f"the source model itself gives NaN or Inf on {sample.where}: repair the model or the data")
    if result.metric.needs_labels:
        check_label(sample.label, wanted, where=sample.where)
    result.source.hits.append(result.metric.hit(wanted, sample.label, wanted))
    result.source.agrees.append(True)
    for name, session in variants.items():
        got = _scores(session, sample.inputs)
        _mark_variant(result.variants[name], sample, got, wanted, hit=result.metric.hit(got, sample.label, wanted))


def _mark_variant(marks: Marks, sample: _Sample, got: Scores, wanted: Scores, *, hit: bool) -> None:
    finite = bool(np.isfinite(got).all())
    best, float_best = int(np.argmax(got)), int(np.argmax(wanted))
    agrees = finite and best == float_best
    marks.not_finite += not finite
    marks.hits.append(finite and hit)
    marks.agrees.append(agrees)
    if not agrees and len(marks.examples) < MAX_EXAMPLES:
        marks.examples.append(Example(sample.where, sample.label if sample.label >= 0 else None, float_best, best))


def _scores(session: Session, inputs: Arrays) -> Scores:
    outputs = session.run(inputs)
    return class_scores(outputs[session.signature.outputs[0].name])


def _bools(values: list[bool]) -> npt.NDArray[np.bool_]:
    return np.array(values, dtype=np.bool_)
