"""From the imported model to the files of every profile: one calibration serves all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, get_args

import numpy as np
import onnx_ir as ir

from converters.artifact import Artifact, kept_tflite, source_artifact, write_artifact
from converters.calibrate import Method, calibrate
from converters.data.dataset import Dataset
from converters.data.random import random_inputs
from converters.data.sequence import recurrence, step_samples
from converters.graph.canonical import canonicalise
from converters.graph.operators import is_half, is_quantised
from converters.graph.spill import spill
from converters.graph.stored import with_float_weights
from converters.host import host_runtime
from converters.importers.check import check_canonical, check_lite
from converters.measure.blame import Blame
from converters.measure.memory import release_memory
from converters.ort import open_plain
from converters.proto import write_model
from converters.quantize.compiler import Compiler, activations
from converters.quantize.constraints import Constraints
from converters.quantize.deviation import SAMPLES, Deviation
from converters.quantize.hybrid import quantize_hybrid
from converters.quantize.means import channel_means, samples_for_means
from converters.quantize.nodata import quantize_without_data
from converters.quantize.profiles import (
    DYNAMIC,
    DYNAMIC_TFLITE,
    FLOAT,
    FLOAT_TFLITE,
    HALF,
    HALF_TFLITE,
    STATIC,
    Profile,
    host_flags,
    runs_right,
    saturates,
    spare,
)
from converters.quantize.units import find_units
from converters.source import Source
from converters.write.float16 import to_float16
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import Precision
from lepton_edge.errors import ModelError, SelfTestError, UnsupportedOperatorError
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
        formats: of the files.
        keep_graphs: keep what TFLite files are written from, so that they can be written in another layout.
        keep_all: make files too that a bundle can do without.
    """

    precision: str = "8"
    method: str = "auto"
    state: Mapping[str, str] = field(default_factory=dict)
    formats: Sequence[str] = ("onnx",)
    keep_graphs: bool = False
    keep_all: bool = False

    def wants(self, profile: Profile) -> bool:
        """Whether files for a profile are made."""
        return profile.format in self.formats and (self.keep_all or not spare(profile))


class Made(NamedTuple):
    """What quantisation gave.

    Attributes:
        artifacts: the float one first; with no quantised one where there is nothing to quantise.
        reason: why float is alone, "" otherwise.
        warnings: about forms that were left out, and about the calibration.
        compiler: makes the files again under other constraints; None where there was no calibration.
        constraints: that the files were made under.
        blame: the layers that lost the most accuracy, where first aid was needed.
        not_made: formats that cannot be made of this model, with the reasons.
    """

    artifacts: list[Artifact]
    reason: str = ""
    warnings: Sequence[str] = ()
    compiler: Compiler | None = None
    constraints: Constraints = Constraints()
    blame: Sequence[Blame] = ()
    not_made: Mapping[str, str] = MappingProxyType({})

    @property
    def prepared(self) -> Path | None:
        """The float file that the quantised ones were made from; None where there are none."""
        return None if all(one.is_float for one in self.artifacts) else self.artifacts[0].path


class _Bench(NamedTuple):
    """What the ways to quantise work on.

    Attributes:
        source: without its graph.
        model: the canonical graph.
        floats: its files: the ONNX one, which all are compared with, and that of the other format.
        folder: the workspace.
        how: what was asked.
    """

    source: Source
    model: ir.Model
    floats: list[Artifact]
    folder: Path
    how: How

    @property
    def plain(self) -> Artifact:
        return self.floats[0]


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
        ModelError, NotYetSupportedError, UnsupportedOperatorError: a graph that cannot be brought into canonical form,
            or into the only format that is wanted.
        RuntimeUnavailableError: a format is wanted that nothing here runs.
        DataError: as `calibrate`.
    """
    how = how or How()
    if FLOAT_TFLITE.format in how.formats:
        host_runtime(FLOAT_TFLITE.runtime)
    if is_quantised(source.model):
        return _as_it_is(source, folder, how, "the source alone is kept: it is quantised already")
    if is_half(source.model):
        reason = "float alone is kept: int8 from float16 comes later (not yet); export the model in float32"
        return _as_it_is(source, folder, how, reason)
    original = folder / "source.onnx"
    write_model(source.model, original)
    model = canonicalise(with_float_weights(source.model), where=source.where)
    source = source.light()
    plain = write_artifact(model, FLOAT, "float32", folder)
    model = spill(model, folder / "weights.bin")
    release_memory()
    samples = _few(source, calibration, how)
    check_canonical(original, plain.path, samples, where=source.where)
    original.unlink()
    floats, not_made = _in_both(source, model, replace(plain, shipped=how.wants(FLOAT)), samples, how)
    how = replace(how, formats=[one for one in how.formats if one not in not_made])
    bench = _Bench(source, model, floats, folder, how)
    return _quantised(bench, calibration, progress)._replace(not_made=not_made)


def _quantised(bench: _Bench, calibration: Dataset | None, progress: Progress) -> Made:
    if bench.how.precision == "16":
        return _halved(bench)
    if calibration is None:
        return _without_data(bench)
    return _static(bench, calibration, progress=progress)


def _in_both(
    source: Source, model: ir.Model, plain: Artifact, samples: Sequence[Arrays], how: How
) -> tuple[list[Artifact], dict[str, str]]:
    """The float files, and why there is none of a format; raises what is wrong with the only format that is wanted."""
    if not how.wants(FLOAT_TFLITE):
        return [plain], {}
    try:
        lite = write_artifact(model, FLOAT_TFLITE, "float32", plain.path.parent, keep_graph=how.keep_graphs)
        release_memory()
        opened = partial(plain.open, source.signature), partial(lite.open, source.signature)
        check_lite(*opened, samples=samples, where=source.where)
    except (UnsupportedOperatorError, SelfTestError) as error:
        if not plain.shipped:
            raise
        return [plain], {FLOAT_TFLITE.format: str(error)}
    return [plain, lite], {}


def _as_it_is(source: Source, folder: Path, how: How, reason: str) -> Made:
    """A source that is no float32 any more, in each format that has it."""
    plain = replace(source_artifact(source, folder), shipped=how.wants(FLOAT))
    if not how.wants(FLOAT_TFLITE):
        return Made([plain], reason)
    try:
        return Made([plain, kept_tflite(source, plain.precision, folder, keep_graph=how.keep_graphs)], reason)
    except ModelError as error:
        if not plain.shipped:
            raise
        return Made([plain], reason, not_made={FLOAT_TFLITE.format: str(error)})


def _few(source: Source, data: Dataset | None, how: How) -> list[Arrays]:
    """The user's own inputs where they are single runs, else random ones."""
    if data is None or how.state:
        return [random_inputs(source.signature, 1, np.random.default_rng(0))]
    return [data.inputs(index) for index in range(min(FEW, len(data)))]


def _smaller(bench: _Bench, made: Sequence[Artifact], what: str, warnings: Sequence[str] = ()) -> Made:
    """Those that are smaller than the float file of their format."""
    sizes = {one.format: one.size for one in bench.floats}
    kept = [one for one in made if one.size < sizes[one.format]]
    reason = "" if kept else f"float alone is kept: {what} would not make the file smaller"
    return Made([*bench.floats, *kept], reason, warnings)


def _halved(bench: _Bench) -> Made:
    made, warnings = [], list[str]()
    if bench.how.wants(HALF):
        made.append(write_artifact(to_float16(bench.model), HALF, "float16", bench.folder))
    if bench.how.wants(HALF_TFLITE):
        made += _lite(to_float16(bench.model, scaled=False), HALF_TFLITE, "float16", bench, warnings)
    return _smaller(bench, made, "float16 weights", warnings)


def _without_data(bench: _Bench) -> Made:
    made, notes = [], list[str]()
    if bench.how.wants(DYNAMIC):
        result = quantize_without_data(bench.model)
        notes += result.notes
        if _holds_int8(result.model):
            made.append(write_artifact(result.model, DYNAMIC, "int8-dynamic", bench.folder))
    if bench.how.wants(DYNAMIC_TFLITE):
        hybrid = quantize_hybrid(bench.model)
        notes += [note for note in hybrid.notes if note not in notes]
        if _holds_int8(hybrid.model):
            made += _lite(hybrid.model, DYNAMIC_TFLITE, "int8-dynamic", bench, notes)
    if not made:
        return Made(
            bench.floats, "float alone is kept: nothing to quantise, as no layer has weights to make int8", notes
        )
    return _smaller(bench, made, "int8 weights", notes)


def _holds_int8(model: ir.Model) -> bool:
    return any(value.dtype in _INT8_TYPES for value in model.graph.initializers.values())


def _lite(
    model: ir.Model, profile: Profile, precision: Precision, bench: _Bench, warnings: list[str]
) -> list[Artifact]:
    """The TFLite file; none, and a warning more, where TFLite cannot say this form."""
    try:
        return [write_artifact(model, profile, precision, bench.folder, keep_graph=bench.how.keep_graphs)]
    except UnsupportedOperatorError as error:
        warnings.append(f"{profile.variant} left out: {error}")
        return []


def _static(bench: _Bench, data: Dataset, *, progress: Progress) -> Made:
    source, model, how = bench.source, bench.model, bench.how
    statistics = calibrate(
        model,
        data,
        tensors=activations(model.graph),
        state=how.state or None,
        progress=progress,
        where=source.where,
    )
    profiles, warnings = _profiles(how)
    warnings += statistics.warnings
    if not profiles:
        return Made(bench.floats, "float alone is kept: no profile of these formats is known", warnings)
    elements = {name: histogram.seen // max(1, statistics.samples) for name, histogram in statistics.items()}
    many = some_inputs(source, bench.plain, data, how, count=samples_for_means(elements))
    means = channel_means(model, find_units(model.graph), elements, many, where=source.where)
    compiler = Compiler(model, statistics, profiles, means=means, keep_graphs=how.keep_graphs)
    constraints = Constraints(*(method for method in get_args(Method) if method == how.method))
    if how.method == "auto" and compiler.plan(profiles[0], constraints).pays:
        deviation = Deviation(model, some_inputs(source, bench.plain, data, how), file=bench.plain.path)
        constraints = Constraints(compiler.choose_method(deviation))
    # Where the speed is not known, a file that is no smaller has nothing to say for it.
    artifacts = [
        one
        for one in compiler.artifacts(constraints, bench.folder)
        if one.profile.speed == "measured" or one.size < bench.plain.size
    ]
    warnings += [f"{name} left out: {reason}" for name, reason in compiler.left_out.items()]
    if not artifacts:
        reason = f"float alone is kept: {_why_nothing(compiler, constraints)}"
        return Made(bench.floats, reason, warnings)
    return Made([*bench.floats, *artifacts], "", warnings, compiler, constraints)


def _profiles(how: How) -> tuple[list[Profile], list[str]]:
    """Those that can be judged here, by format, this host's own first; and a warning for each of the others."""
    flags, machine = host_flags()
    wanted = [one for one in STATIC if how.wants(one)]
    wrong = [one for one in wanted if saturates(one, flags=flags, machine=machine)]
    right = [one for one in wanted if one not in wrong]
    right.sort(key=lambda one: (one.format, not runs_right(one, flags=flags, machine=machine)))
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
