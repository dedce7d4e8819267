"""From the imported model to the files of every profile: one calibration serves all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import onnx_ir as ir

from converters.artifact import Artifact, source_artifact
from converters.calibrate import Method, calibrate
from converters.data.dataset import Dataset
from converters.data.random import random_inputs
from converters.data.sequence import recurrence, step_samples
from converters.graph.canonical import canonicalise
from converters.graph.operators import is_half, is_quantised
from converters.graph.spill import spill
from converters.importers.check import check_canonical
from converters.measure.blame import Blame
from converters.measure.memory import release_memory
from converters.ort import open_plain
from converters.proto import write_model
from converters.quantize.compiler import Compiler, activations
from converters.quantize.constraints import Constraints
from converters.quantize.deviation import SAMPLES, Deviation
from converters.quantize.means import channel_means, samples_for_means
from converters.quantize.nodata import quantize_without_data
from converters.quantize.profiles import DYNAMIC, FLOAT, HALF, STATIC, Profile, host_flags, runs_right, saturates
from converters.quantize.units import find_units
from converters.source import Source
from converters.write.float16 import to_float16
from converters.write.onnx import write_onnx
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Precision
from lepton_edge.progress import Progress, quiet

FEW = 2
"""Samples that the canonical graph is held against the imported one on."""
_INT8_TYPES = {ir.DataType.INT8, ir.DataType.UINT8}


@dataclass(frozen=True)
class How:
    """What a user asked of the quantiser.

    Attributes:
        precision: "8" or "16".
        method: how ranges follow from histograms; "auto" chooses by the outputs' deviation.
        state: input by the output of the step before, for a model that is fed its own state.
    """

    precision: str = "8"
    method: str = "auto"
    state: Mapping[str, str] = field(default_factory=dict)


class Made(NamedTuple):
    """What quantisation gave.

    Attributes:
        artifacts: the float one first; alone where there is nothing to quantise.
        reason: why float is alone, "" otherwise.
        warnings: about forms that were left out, and about the calibration.
        compiler: makes the files again under other constraints; None where there was no calibration.
        constraints: that the files were made under.
        blame: the layers that lost the most accuracy, where first aid was needed.
    """

    artifacts: list[Artifact]
    reason: str = ""
    warnings: Sequence[str] = ()
    compiler: Compiler | None = None
    constraints: Constraints = Constraints()
    blame: Sequence[Blame] = ()

    @property
    def prepared(self) -> Path | None:
        """The float file that the quantised ones were made from; None where there are none."""
        return self.artifacts[0].path if len(self.artifacts) > 1 else None


def make_artifacts(
    source: Source, calibration: Dataset | None, folder: Path, *, how: How | None = None, progress: Progress = quiet
) -> Made:
    """Quantise for every profile.

    Args:
        source: the imported model; it is let go once its canonical graph stands.
        calibration: samples for static int8; None makes weights-only int8.
        folder: the workspace; every file is written there.
        how: what was asked.
        progress: told after each calibration sample.

    Raises:
        ModelError, NotYetSupportedError, UnsupportedOperatorError: a graph that cannot be brought into canonical form.
        DataError: as `calibrate`.
    """
    how = how or How()
    if is_quantised(source.model):
        return Made([source_artifact(source, folder)], "the source alone is kept: it is quantised already")
    if is_half(source.model):
        reason = "float alone is kept: int8 from float16 comes later (not yet); export the model in float32"
        return Made([source_artifact(source, folder)], reason)
    original = folder / "source.onnx"
    write_model(source.model, original)
    model = canonicalise(source.model, where=source.where)
    source = source.light()
    plain = _written(model, FLOAT, "float32", folder)
    model = spill(model, folder / "weights.bin")
    release_memory()
    check_canonical(original, plain.path, _few(source, calibration, how), where=source.where)
    original.unlink()
    if how.precision == "16":
        return _smaller(plain, _written(to_float16(model), HALF, "float16", folder), "float16 weights")
    if calibration is None:
        return _without_data(model, plain, folder)
    return _static(source, model, plain, calibration, folder, how=how, progress=progress)


def _few(source: Source, data: Dataset | None, how: How) -> list[Arrays]:
    """The user's own inputs where they are single runs, else random ones."""
    if data is None or how.state:
        return [random_inputs(source.signature, 1, np.random.default_rng(0))]
    return [data.inputs(index) for index in range(min(FEW, len(data)))]


def _written(model: ir.Model, profile: Profile, precision: Precision, folder: Path) -> Artifact:
    path = folder / f"{profile.variant}.onnx"
    written = write_onnx(model, path)
    return Artifact(profile, precision, path, path.stat().st_size, min_runtime=written.min_runtime)


def _smaller(plain: Artifact, made: Artifact, what: str, warnings: Sequence[str] = ()) -> Made:
    if made.size >= plain.size:
        return Made([plain], f"float alone is kept: {what} would not make the file smaller", warnings)
    return Made([plain, made], warnings=warnings)


def _without_data(model: ir.Model, plain: Artifact, folder: Path) -> Made:
    result = quantize_without_data(model)
    if not any(value.dtype in _INT8_TYPES for value in result.model.graph.initializers.values()):
        return Made([plain], "float alone is kept: nothing to quantise, as no layer has weights to make int8")
    return _smaller(plain, _written(result.model, DYNAMIC, "int8-dynamic", folder), "int8 weights", result.notes)


def _static(
    source: Source,
    model: ir.Model,
    plain: Artifact,
    data: Dataset,
    folder: Path,
    *,
    how: How,
    progress: Progress,
) -> Made:
    statistics = calibrate(
        model,
        data,
        tensors=activations(model.graph),
        state=how.state or None,
        progress=progress,
        where=source.where,
    )
    profiles, warnings = _profiles()
    elements = {name: histogram.seen // max(1, statistics.samples) for name, histogram in statistics.items()}
    many = some_inputs(source, plain, data, how, count=samples_for_means(elements))
    means = channel_means(model, find_units(model.graph), elements, many, where=source.where)
    compiler = Compiler(model, statistics, profiles, means=means)
    constraints = Constraints(*(method for method in get_args(Method) if method == how.method))
    if how.method == "auto" and compiler.plan(profiles[0], constraints).pays:
        deviation = Deviation(model, some_inputs(source, plain, data, how), file=plain.path)
        constraints = Constraints(compiler.choose_method(deviation))
    # Where the speed is not known, a file that is no smaller has nothing to say for it.
    artifacts = [
        one
        for one in compiler.artifacts(constraints, folder)
        if one.profile.speed == "measured" or one.size < plain.size
    ]
    warnings += statistics.warnings
    if not artifacts:
        reason = f"float alone is kept: {_why_nothing(compiler, constraints)}"
        return Made([plain], reason, warnings)
    return Made([plain, *artifacts], "", warnings, compiler, constraints)


def _profiles() -> tuple[list[Profile], list[str]]:
    """Those that can be judged here, this host's own first; and a warning for each of the others."""
    flags, machine = host_flags()
    wrong = [one for one in STATIC if saturates(one, flags=flags, machine=machine)]
    right = [one for one in STATIC if one not in wrong]
    right.sort(key=lambda one: not runs_right(one, flags=flags, machine=machine))
    return right, [
        f"{one.variant} left out: this CPU has no VNNI and computes it wrongly, so it cannot be judged here"
        for one in wrong
    ]


def some_inputs(source: Source, plain: Artifact, data: Dataset, how: How, *, count: int = SAMPLES) -> list[Arrays]:
    """A few single-step inputs, spread over the calibration samples."""
    if how.state:
        executor = open_plain(plain.path, threads=1, optimise=True)
        steps = recurrence(source.signature, how.state, where=source.where)
        rows = step_samples(data, steps, executor.execute, min(count, len(data)))
        return [{name: array[i : i + 1] for name, array in rows.items()} for i in range(len(next(iter(rows.values()))))]
    chosen = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int))
    return [data.inputs(int(index)) for index in chosen]


def _why_nothing(compiler: Compiler, constraints: Constraints) -> str:
    """In one line, for a graph of which no profile runs a part in int8."""
    made = compiler.plan(compiler.profiles[0], constraints)
    reasons = [
        made.reasons[index]
        for index, unit in enumerate(made.units)
        if unit.weight is not None and index in made.reasons
    ]
    if not reasons:
        return "nothing to quantise, as no layer has weights to make int8"
    most = max(dict.fromkeys(reasons), key=reasons.count)
    return f"int8 does not pay: {most}" + (
        f", and {len(set(reasons)) - 1} more reasons" if len(set(reasons)) > 1 else ""
    )
