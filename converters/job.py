"""The work behind `convert` and `quantize_model`: part the data, quantise, evaluate, prove, judge.

Writes to a workspace alone.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

from converters.artifact import Loadable, in_groups
from converters.data.dataset import Dataset, Subset
from converters.data.open import open_data
from converters.data.sequence import Recurrence, recurrence, stateful_session, step_samples
from converters.data.split import DEFAULT_CALIBRATION, choose_spread, split_samples
from converters.data.watched import Watched
from converters.decide import not_proven
from converters.golden import golden_inputs
from converters.graph.signature import check_batch
from converters.importers.check import check_on_data
from converters.judged import Judged, for_others_alone
from converters.judging import Terms, judge_artifacts
from converters.measure.accuracy import Evaluation, evaluate, fingerprint
from converters.measure.memory import release_memory
from converters.measure.metric import Metric
from converters.measure.metrics import find_metric
from converters.mend import Patient, keep_budget
from converters.pack import Card
from converters.quantize.artifacts import How, Made, make_artifacts
from converters.request import Request
from converters.source import Source
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.golden import GOLDEN_COUNT
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.progress import Progress, quiet
from lepton_edge.runtimes import Session

Note = Callable[[str], None]


@dataclass(frozen=True)
class Samples:
    """The user's data, parted; None where there is none on that side."""

    calibration: Dataset | None
    evaluation: Dataset | None

    def golden(self) -> Dataset | None:
        """Where the golden inputs come from."""
        return self.evaluation or self.calibration


@dataclass(frozen=True)
class Measured:
    """All that is known when the decision falls.

    source: as imported, but for the graph, which is empty by then: memory is for the sessions.
    """

    source: Source
    samples: Samples
    made: Made
    judged: list[Judged]
    evaluation: Evaluation | None
    inputs: Arrays

    @property
    def shown(self) -> list[Judged]:
        """Every variant of the formats that were asked for."""
        return [one for one in self.judged if one.artifact.shipped]

    @property
    def quantised(self) -> list[Judged]:
        """Every variant but the float ones."""
        return [one for one in self.judged if not one.artifact.is_float]

    @property
    def hopeless(self) -> bool:
        """Whether every quantised variant missed the budget."""
        return bool(self.quantised) and all(one.verdict.over_budget for one in self.quantised)

    @property
    def not_made(self) -> dict[str, str]:
        """Formats that were asked for and are not there, with the reasons."""
        wrong = {one.artifact.format: one.verdict.reason for one in self.shown if one.artifact.is_float}
        return {**self.made.not_made, **{name: reason for name, reason in wrong.items() if reason}}

    def reason(self) -> str:
        """Why the budget cannot be met, or why float is alone; "" where something quantised is kept."""
        first = self.quantised[0] if self.quantised else None
        if first is None:
            return self.made.reason
        if self.hopeless:
            return f"the budget cannot be met: {first.name} is {first.verdict.reason}"
        if not any(one.verdict.kept for one in self.quantised):
            reasons = {one.artifact.format: f"{one.name}: {one.verdict.reason}" for one in reversed(self.quantised)}
            return f"float alone is kept: {'; '.join(reversed(reasons.values()))}"
        return ""

    def warnings(self, request: Request) -> list[str]:
        """What a user must know about what was kept."""
        kept = [one.name for one in self.quantised if one.verdict.kept]
        found = [f"no {name} files: {reason}" for name, reason in self.not_made.items()]
        found += self.made.warnings
        for name in for_others_alone(self.judged):
            elsewhere = [one.name for one in self.quantised if one.verdict.kept and one.artifact.format == name]
            found.append(
                f"int8 does not pay on this kind of CPU: float serves here, {', '.join(elsewhere)} on other kinds"
            )
        found += [f"{one.name}: {one.proof.note}" for one in self.quantised if one.verdict.kept and one.proof.note]
        if self.evaluation is None:
            why = "no data were given" if request.data is None else "evaluation was switched off"
            return [*found, f"no promise on the accuracy of {', '.join(kept)}: {why}"] if kept else found
        if self.evaluation.left_out:
            found.append(f"{self.evaluation.left_out} samples equal a calibration sample and were left out")
        count, unit = self.evaluation.count, self.evaluation.metric.unit
        doubts = [
            not_proven(name, drop_high=self.evaluation.drop(name).high, budget=request.budget, count=count, unit=unit)
            for name in kept
        ]
        return found + [doubt for doubt in doubts if doubt]


def _check_against_reference(source: Source, samples: Samples, steps: Recurrence | None) -> None:
    """Raises ModelError where the imported graph is not the source on the user's own data."""
    data = samples.golden()
    if data is not None and steps is None:
        check_on_data(source, data)


def _golden(samples: Samples, made: Made, signature: ModelSignature, steps: Recurrence | None, seed: int) -> Arrays:
    """The golden inputs; of a model that is fed its own state, single steps as they occur in sequences."""
    data = samples.golden()
    if steps is None or data is None:
        return golden_inputs(data, signature, seed=seed)
    return step_samples(data, steps, made.artifacts[0].open(signature).run, GOLDEN_COUNT)


def _samples(signature: ModelSignature, request: Request, card: Card) -> Samples:
    """Open and part the data. Raises DataError where nothing would be left on a side."""
    if request.data is None:
        return Samples(None, None)

    def opened(data: object) -> Dataset:
        return open_data(data, signature, steps=card.steps, files=card.files, class_names=card.labels)

    data = opened(request.data)
    if request.calibration_data is not None:
        return Samples(opened(request.calibration_data), data if request.evaluate else None)
    if not request.evaluate:
        count = min(len(data), request.calibration or DEFAULT_CALIBRATION)
        return Samples(Subset(data, choose_spread(data.labels, len(data), count, seed=request.seed)), None)
    split = split_samples(data, calibration=request.calibration, seed=request.seed)
    return Samples(split.calibration, split.evaluation)


def measure(
    load: Callable[[], Source],
    request: Request,
    card: Card,
    folder: Path,
    *,
    note: Note,
    progress: Progress = quiet,
    keep_graphs: bool = False,
) -> Measured:
    """Do all the work that the request asks for.

    Args:
        load: imports the model. Called here, so that nobody else holds the weights when sessions need the memory.
        request: what the user asked.
        card: labels and preprocessing.
        folder: a workspace; the artifacts lie there.
        note: told what begins, one line each.
        progress: told how far it is.
        keep_graphs: keep what TFLite files are written from, so that they can be written in another layout.

    Raises:
        ModelError, DataError, NotYetSupportedError, UsageError: a model, data or metric that cannot be used.
    """
    source = _loaded(load, note)
    check_batch(source.signature, where=source.where)
    steps = recurrence(source.signature, request.state, where=source.where) if request.state else None
    samples = _samples(steps.sequence_signature() if steps else source.signature, request, card)
    _check_against_reference(source, samples, steps)
    metric = _metric(source.signature, samples.evaluation, request, card) if samples.evaluation else None
    if samples.calibration and request.precision == "8":
        note(f"calibrating on {len(samples.calibration)} samples")
    how = How(request.precision, request.method, request.state, request.formats, keep_graphs, request.keep_all)
    # Handed over, so that the weights go as soon as the canonical graph has its own.
    owned, source = [source], source.light()
    made = make_artifacts(owned.pop(), samples.calibration, folder, how=how, progress=progress)
    release_memory()
    evaluation = None
    if samples.evaluation and metric:
        note(f"evaluating {len(made.artifacts)} variants on {len(samples.evaluation)} samples ({metric.name})")
        judge = partial(
            evaluate_artifacts,
            signature=source.signature,
            data=samples.evaluation,
            metric=metric,
            exclude=_fingerprints(samples.calibration),
            steps=steps,
            progress=progress,
        )
        patient = Patient(source, samples.calibration, how, request.budget, folder)
        made, evaluation = keep_budget(made, judge, patient, progress=progress)
    made = made._replace(compiler=None)
    release_memory()
    inputs = _golden(samples, made, source.signature, steps, request.seed)
    note("proving and timing" if request.benchmark else "proving")
    terms = Terms(budget=request.budget if evaluation else None, keep_all=request.keep_all, benchmark=request.benchmark)
    judge_all = partial(judge_artifacts, terms=terms, prepared=made.prepared, blame=made.blame, progress=progress)
    judged = judge_all(made.artifacts, source.signature, inputs, evaluation)
    return Measured(source, samples, made, judged, evaluation, inputs)


def _loaded(load: Callable[[], Source], note: Note) -> Source:
    source = load()
    for text in (f"{source.where}: {source.format}, {source.size_bytes} bytes", *source.notes):
        note(text)
    return source


def _metric(signature: ModelSignature, data: Dataset, request: Request, card: Card) -> Metric:
    return find_metric(
        request.metric, targets=data.targets, signature=signature, labels=card.labels, postprocess=card.postprocess
    )


def _fingerprints(calibration: Dataset | None) -> set[bytes]:
    return {fingerprint(calibration.inputs(i)) for i in range(len(calibration))} if calibration else set()


def evaluate_artifacts(
    artifacts: Sequence[Loadable],
    signature: ModelSignature,
    data: Dataset,
    metric: Metric,
    *,
    exclude: Collection[bytes] = (),
    steps: Recurrence | None = None,
    progress: Progress = quiet,
) -> Evaluation:
    """Run the samples through every artifact, the float one first among them.

    With `steps`, a sample is a sequence, and the outputs of its last step count.

    Files that are large together are loaded in pairs with the float one, which then runs once a pair.
    """
    groups, done = in_groups(artifacts), count(1)
    total = len(groups) * len(data)
    watched = Watched(data, lambda: progress("evaluating", next(done), total))
    parts = []
    for group in groups:
        sessions = {artifact.name: _opened(artifact, signature, steps) for artifact in group}
        reference = sessions.pop(group[0].name)
        parts.append(evaluate(watched, reference, sessions, metric, exclude=exclude))
        del sessions, reference
        release_memory()
    return replace(parts[0], variants={name: marks for part in parts for name, marks in part.variants.items()})


def _opened(artifact: Loadable, signature: ModelSignature, steps: Recurrence | None) -> Session:
    session = artifact.open(signature)
    return session if steps is None else stateful_session(session, steps)
