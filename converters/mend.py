"""Keep the budget: where int8 loses too much, first aid returns layers to float until what is left fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.artifact import Artifact
from converters.data.dataset import Dataset
from converters.measure.accuracy import Evaluation
from converters.measure.blame import Blame
from converters.quantize.artifacts import How, Made, some_inputs
from converters.quantize.compiler import Compiler
from converters.quantize.constraints import Constraints
from converters.quantize.deviation import Deviation
from converters.quantize.first_aid import Cure, heal, worth
from converters.quantize.profiles import Profile
from converters.source import Source
from lepton_edge.progress import Progress, quiet

TOP = 8
"""Layers that are named as blame."""

Evaluate = Callable[[Sequence[Artifact]], Evaluation]


@dataclass(frozen=True)
class Patient:
    """What first aid works on.

    Attributes:
        source: its signature and name.
        calibration: samples that deviations are measured on, never those that judge; None where there are none.
        how: what the user asked.
        budget: points of drop allowed.
        folder: the workspace.
    """

    source: Source
    calibration: Dataset | None
    how: How
    budget: float
    folder: Path


def keep_budget(
    made: Made, evaluate: Evaluate, patient: Patient, *, progress: Progress = quiet
) -> tuple[Made, Evaluation]:
    """Judge the files, and return layers to float while a static int8 one is over the budget.

    Args:
        made: the files as the plans wanted them.
        evaluate: judges files, the float one first among them.
        patient: what it is about.
        progress: told after each tried layer.

    Returns:
        Files that keep the budget with their evaluation; the given ones, with the layers to blame, where none do.
    """
    evaluation = evaluate(made.artifacts)
    compiler = made.compiler
    sick = _over(made.artifacts, evaluation, patient.budget)
    if compiler is None or patient.calibration is None or not sick:
        return made, evaluation
    plain = made.artifacts[0]
    samples = some_inputs(patient.source, plain, patient.calibration, patient.how)
    deviation = Deviation(compiler.model, samples, file=plain.path)
    floats = [one for one in made.artifacts if one.is_float]
    healed, cures = None, list[Cure]()
    for profiles in _groups(compiler, sick):
        tried = worth(compiler, compiler.plan(profiles[0], made.constraints), deviation, progress=progress)
        healed = heal(made.constraints, tried, _fits(compiler, profiles, evaluate, plain, patient))
        cures = tried if healed or not cures else cures
        if healed:
            break
    if healed is None:
        # The trials wrote over the files.
        compiler.artifacts(made.constraints, patient.folder)
        return made._replace(blame=_blame(cures)), evaluation
    artifacts = [*floats, *compiler.artifacts(healed, patient.folder)]
    count = len(healed.keep_float) - len(made.constraints.keep_float)
    warning = f"{count} layers went back to float to keep the budget: see the report"
    warnings = [*made.warnings, warning]
    healthy = made._replace(artifacts=artifacts, constraints=healed, blame=_blame(cures), warnings=warnings)
    return healthy, evaluate(artifacts)


def _blame(cures: Sequence[Cure]) -> list[Blame]:
    """The layers that lost most, each once."""
    return list({cure.blame.layer: cure.blame for cure in reversed(cures)}.values())[::-1][:TOP]


def _over(artifacts: Sequence[Artifact], evaluation: Evaluation, budget: float) -> list[Artifact]:
    """The static int8 files that lose more than is allowed."""
    static = [artifact for artifact in artifacts if artifact.precision == "int8" and not artifact.is_float]
    return [
        one for one in static if evaluation.drop(one.name).value > budget or evaluation.variants[one.name].not_finite
    ]


def _groups(compiler: Compiler, sick: Sequence[Artifact]) -> list[list[Profile]]:
    """For whom first aid is tried: all formats with a file over the budget together, else each of them alone.

    The first profile of a format stands for it: its file computes what the others do.
    """
    formats = dict.fromkeys(one.format for one in sick)
    every = [next(one for one in compiler.profiles if one.format == name) for name in formats]
    return [every, *([one] for one in every if len(every) > 1)]


def _fits(
    compiler: Compiler, profiles: Sequence[Profile], evaluate: Evaluate, plain: Artifact, patient: Patient
) -> Callable[[Constraints], bool]:
    """Whether all of these profiles have a file under some constraints, and none of them is over the budget."""

    def fits(constraints: Constraints) -> bool:
        tried = [_tried(compiler, profile, constraints, patient.folder) for profile in profiles]
        files = [one for one in tried if one is not None]
        return len(files) == len(tried) and not _over(files, evaluate([plain, *files]), patient.budget)

    return fits


def _tried(compiler: Compiler, profile: Profile, constraints: Constraints, folder: Path) -> Artifact | None:
    made = compiler.plan(profile, constraints)
    return compiler.artifact(made, folder) if made.pays else None
