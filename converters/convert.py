"""The whole job of `lepton-edge convert`: import, calibrate, quantise, measure, judge, write.

Files are written at the very end: the bundle where something may be kept, the report always.
"""

import time
from collections.abc import Callable

import msgspec

from converters.data.open import read_class_names
from converters.importers import import_model
from converters.job import Measured, measure
from converters.judged import to_outcome
from converters.measure.memory import bound_heap, peak_rss_bytes
from converters.outcome import Outcome, SourceOutcome, SplitOutcome
from converters.pack import Card, pack, versions
from converters.report.page import render
from converters.request import Request, check_request
from converters.twins import find_twins
from converters.workspace import Workspace, disk_full_named
from lepton_edge import durable
from lepton_edge.preprocess.recipe import Recipe, load_preprocess
from lepton_edge.progress import Progress, quiet

Note = Callable[[str], None]


def convert(request: Request, *, note: Note = lambda _: None, progress: Progress = quiet) -> Outcome:
    """Convert a model; see INTERFACE for what each outcome means.

    For the rest of the process large freed blocks go straight back to the system (`bound_heap`).

    Args:
        request: what the user asked.
        note: told what begins, one line each.
        progress: told how far it is.

    Returns:
        The outcome; where its `kept` is False nothing was written but the report.

    Raises:
        UsageError, NotYetSupportedError: an option that makes no sense, or comes later.
        ModelError, DataError: a model or data that cannot be used. Nothing was written then.
        DiskFullError, StorageError: nothing half-written is left.
    """
    started = time.monotonic()
    check_request(request)
    card = _card(request)
    bound_heap()
    with Workspace() as workspace, disk_full_named(workspace.path):
        measured = measure(
            lambda: import_model(request.model, shapes=request.shapes, inputs=request.inputs, trust=request.trust),
            request,
            card,
            workspace.path,
            note=note,
            progress=progress,
        )
        return _write(measured, request, card, started)


def _write(measured: Measured, request: Request, card: Card, started: float) -> Outcome:
    """Write the bundle, where one is kept, and the report."""
    outcome = _outcome(measured, request)
    bundle = None
    if outcome.kept:
        bundle = pack(measured.source, measured.judged, measured.inputs, measured.evaluation, card=card)
    outcome = _clocked(outcome, started)
    page = render(outcome, measured.evaluation, card.labels)
    if bundle:
        bundle.save(request.out)
    durable.write(request.report, page.encode())
    return outcome


def _card(request: Request) -> Card:
    recipe = load_preprocess(request.preprocess) if request.preprocess else Recipe()
    labels = read_class_names(request.labels) if request.labels else []
    return Card(request.bundle_name(), request.version, labels, recipe.steps, recipe.postprocess, recipe.files)


def _outcome(measured: Measured, request: Request) -> Outcome:
    evaluation, samples = measured.evaluation, measured.samples
    kept = not measured.hopeless
    variants = [to_outcome(one, evaluation, written=kept) for one in measured.shown]
    variants += [twin.outcome(evaluation, written=kept) for twin in find_twins(measured.shown)]
    return Outcome(
        bundle=str(request.out) if kept else "",
        report=str(request.report),
        name=request.bundle_name(),
        version=request.version,
        source=SourceOutcome(
            format=measured.source.format,
            bytes=measured.source.size_bytes,
            metric=evaluation.value(evaluation.source) if evaluation else None,
        ),
        variants=variants,
        seconds=0.0,
        peak_rss_mb=0.0,
        budget=request.budget if evaluation else None,
        split=SplitOutcome(
            calibration=len(samples.calibration) if samples.calibration else 0,
            evaluation=evaluation.count if evaluation else 0,
            left_out=evaluation.left_out if evaluation else 0,
            seed=request.seed,
        ),
        kept=kept,
        reason=measured.reason(),
        warnings=measured.warnings(request),
        not_made=measured.not_made,
        versions=versions(measured.source.format),
    )


def _clocked(outcome: Outcome, started: float) -> Outcome:
    seconds, megabytes = time.monotonic() - started, peak_rss_bytes() / 1e6
    return msgspec.structs.replace(outcome, seconds=round(seconds, 3), peak_rss_mb=round(megabytes, 1))
