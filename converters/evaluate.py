"""How accurate every variant of a model or bundle is on the user's samples, paired with the float one."""

import time
from collections.abc import Mapping
from typing import Any

from converters.data.dataset import Dataset
from converters.data.open import open_data
from converters.data.sequence import recurrence
from converters.host import stand_in
from converters.job import Note, evaluate_artifacts
from converters.judged import accuracy_of
from converters.measure.accuracy import Evaluation
from converters.measure.memory import peak_rss_bytes
from converters.measure.metric import Metric
from converters.measure.metrics import find_metric
from converters.outcome import Outcome, SourceOutcome, SplitOutcome, VariantOutcome
from converters.pack import versions
from converters.subject import Entry, Subject, why_skipped
from lepton_edge.bundle.manifest import Latency, ModelSignature
from lepton_edge.errors import DataError, RuntimeUnavailableError
from lepton_edge.progress import Progress, quiet


def evaluate_subject(
    subject: Subject,
    data: object,
    *,
    metric: str | None = None,
    state: Mapping[str, str] | None = None,
    note: Note = lambda _: None,
    progress: Progress = quiet,
) -> Outcome:
    """Run every sample through every variant that this machine computes right.

    Args:
        subject: the model.
        data: DATA.
        metric: as `convert` takes it.
        state: for recurrent models, input name by the name of the output that is fed back; then samples are sequences.
        note: told what begins, one line each.
        progress: told how far it is.

    Returns:
        The figures; a variant that was not run says why in `skipped`.

    Raises:
        DataError: data that cannot be used, or a metric that they or the bundle cannot give.
        RuntimeUnavailableError: no variant can be run here.
        ModelError: the float model gives NaN or Inf.
    """
    started = time.monotonic()
    skipped = {entry.name: why_skipped(entry, timing=False) for entry in subject.entries}
    able = runnable(subject, skipped)
    steps = recurrence(subject.signature, state, where=subject.card.name) if state else None
    samples = open_samples(subject, data, fitting=steps.sequence_signature() if steps else subject.signature)
    chosen = _metric(subject, metric, samples)
    compared = able[0].is_float
    if not compared and chosen.compares:
        raise DataError(
            f"metric {chosen.name} compares with the float model, which cannot be run here: give labelled data"
        )
    note(f"evaluating {len(able)} variants on {len(samples)} samples ({chosen.name})")
    evaluation = evaluate_artifacts(able, subject.signature, samples, chosen, steps=steps, progress=progress)
    variants = [_variant(entry, evaluation, skipped[entry.name], reference=able[0]) for entry in subject.entries]
    return outcome_of(subject, variants, started=started, evaluation=evaluation if compared else None)


def open_samples(subject: Subject, data: object, *, fitting: ModelSignature) -> Dataset:
    """Open DATA with the subject's own preprocessing and labels; fitting: what the samples must fit."""
    card = subject.card
    return open_data(data, fitting, steps=card.steps, files=card.files, class_names=card.labels)


def _metric(subject: Subject, name: str | None, samples: Dataset) -> Metric:
    card = subject.card
    return find_metric(
        name, targets=samples.targets, signature=subject.signature, labels=card.labels, postprocess=card.postprocess
    )


def runnable(subject: Subject, skipped: Mapping[str, str]) -> list[Entry]:
    """The variants without a reason to skip them, in order. Raises RuntimeUnavailableError where there is none."""
    able = [entry for entry in subject.entries if not skipped[entry.name]]
    if not able:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise RuntimeUnavailableError(f"no variant can be run here: {reasons}")
    return able


def _variant(entry: Entry, evaluation: Evaluation, skipped: str, *, reference: Entry) -> VariantOutcome:
    if skipped:
        return to_outcome(entry, skipped=skipped)
    found = accuracy_of(entry.name, evaluation, is_source=entry is reference)
    # Without the float model there is nothing to have dropped from.
    return to_outcome(entry, **(found if reference.is_float else {"metric": found["metric"]}))


def to_outcome(
    entry: Entry, *, latency: list[Latency] | None = None, skipped: str = "", **found: Any
) -> VariantOutcome:
    """The document's entry of a variant."""
    variant = entry.variant
    return VariantOutcome(
        name=variant.name,
        format=variant.format,
        precision=variant.precision,
        profile=variant.profile,
        file=variant.file,
        bytes=entry.size,
        int8_macs=variant.int8_macs,
        memory=variant.memory,
        tolerance=variant.tolerance,
        judged_with=_judged_with(variant.runtime),
        speed="measured" if latency else "unmeasured",
        latency=latency or [],
        skipped=skipped,
        **found,
    )


def _judged_with(runtime: str) -> str:
    """What answers for a runtime here; "" where it does itself, or nothing does."""
    try:
        return stand_in(runtime)
    except RuntimeUnavailableError:
        return ""


def outcome_of(
    subject: Subject, variants: list[VariantOutcome], *, started: float, evaluation: Evaluation | None = None
) -> Outcome:
    """The document."""
    return Outcome(
        bundle=subject.where,
        name=subject.card.name,
        version=subject.card.version,
        source=SourceOutcome(
            format=subject.format,
            bytes=subject.size,
            metric=evaluation.value(evaluation.source) if evaluation else None,
        ),
        variants=variants,
        seconds=round(time.monotonic() - started, 3),
        peak_rss_mb=round(peak_rss_bytes() / 1e6, 1),
        split=SplitOutcome(evaluation=evaluation.count if evaluation else 0),
        versions=versions("" if subject.where else subject.format),
    )
