"""A model in memory: what `load_model` and `quantize_model` give."""

import shutil
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from converters import tflite_files
from converters.artifact import Artifact, kept_tflite, lite_graph, source_artifact
from converters.golden import golden_inputs
from converters.graph.operators import nodes
from converters.graph.signature import check_batch
from converters.job import Measured
from converters.judged import Judged, ranked
from converters.judging import Terms, judge_artifacts
from converters.measure.intervals import Interval
from converters.pack import Card, pack
from converters.request import DEFAULT_VERSION
from converters.source import Source
from converters.subject import Subject, of_artifacts
from converters.workspace import Workspace
from lepton_edge import durable
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import Metric, ModelSignature
from lepton_edge.errors import (
    DataError,
    ModelError,
    NotYetSupportedError,
    RuntimeUnavailableError,
    SelfTestError,
    UnsupportedOperatorError,
    UsageError,
)
from lepton_edge.names import check_name
from lepton_edge.runtimes import Session

_LATER_FORMATS = {".h5", ".keras", ".pt2", ".pt", ".pth"}
_SHOWN = 8
"""Operators that an error names."""
_TODAY = ".onnx, .tflite and .lep"

Layout = Literal["source", "native"]
LAYOUTS = get_args(Layout)

Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike]
Outputs = Array | dict[str, Array]


class Model:
    """A float model, or what `quantize_model` made of one."""

    def __init__(
        self, source: Source, *, card: Card, workspace: Workspace | None = None, measured: Measured | None = None
    ) -> None:
        """Use `load_model` or `quantize_model`.

        Args:
            source: the float model.
            card: preprocessing and labels for a bundle.
            workspace: where the artifacts of `measured` lie; it lives as long as the model does.
            measured: what quantisation found; None for a float model.
        """
        self.source = source
        self._card = card
        self._workspace = workspace or Workspace()
        self._measured = measured

    def __repr__(self) -> str:
        return f"<lepton_edge model {self.source.where!r}: {', '.join(self.variants)}>"

    @cached_property
    def _artifacts(self) -> list[Artifact]:
        """The files, the best first; that of a float model is written when it is first asked for."""
        if self._measured:
            return [one.artifact for one in ranked(self._measured.judged)]
        return [source_artifact(self.source, self._workspace.path)]

    @cached_property
    def _session(self) -> Session:
        return self._artifacts[0].open(self.signature)

    @property
    def signature(self) -> ModelSignature:
        """Names, types and shapes of the inputs and outputs."""
        return self.source.signature

    @property
    def precision(self) -> str:
        """Of the best file: float32, float16, int8 or int8-dynamic."""
        return self._artifacts[0].precision

    @property
    def variants(self) -> list[str]:
        """The names of the files, the best for this machine first."""
        return [artifact.name for artifact in self._artifacts]

    @property
    def metric(self) -> Metric | None:
        """What the best file reached on the evaluation samples; None where nothing was evaluated."""
        evaluation = self._measured.evaluation if self._measured else None
        if evaluation is None:
            return None
        marks = evaluation.variants.get(self._artifacts[0].name, evaluation.source)
        return evaluation.value(marks)

    @property
    def drop(self) -> Interval | None:
        """Points that the best file lost against the source model, with the 95 % interval; None likewise."""
        evaluation = self._measured.evaluation if self._measured else None
        name = self._artifacts[0].name
        return evaluation.drop(name) if evaluation and name in evaluation.variants else None

    def predict(self, x: Inputs) -> Outputs:
        """Run the best file on this machine.

        Args:
            x: an array where the model has one input, else a mapping by input name; the first axis the samples,
                as many as one likes.

        Returns:
            An array where the model has one output, else a mapping by output name.

        Raises:
            DataError: names, shapes or types that do not fit.
            SelfTestError: the runtime failed.
        """
        inputs = self._named(x)
        outputs = self._session.run(inputs) if self._is_one_run(inputs) else self._session.run_samples(inputs)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _is_one_run(self, inputs: Mapping[str, Array]) -> bool:
        """Whether the arrays are fed as they are: the batch is open, or they have the very shapes of the inputs."""
        specs = self.signature.inputs
        if specs and specs[0].shape and isinstance(specs[0].shape[0], str):
            return True
        return all(spec.name in inputs and list(inputs[spec.name].shape) == spec.shape for spec in specs)

    def subject(self) -> Subject:
        """The files in the form that `evaluate` and `benchmark` take."""
        return of_artifacts(self.source, self._artifacts, self._card)

    def save(
        self,
        path: str | Path,
        *,
        variant: str | None = None,
        layout: Layout = "source",
        name: str = "",
        version: str = DEFAULT_VERSION,
    ) -> Path:
        """Write a file, whole or not at all.

        Args:
            path: .onnx or .tflite for one file, .lep for a bundle of all of them.
            variant: for one file, which one; the best of its format for this machine by default. `int8-onnx-u8s8` is
                for x86 with VNNI; on older x86 it computes wrongly, and `int8-onnx-u8u8` is the right one.
            layout: of a .tflite: "source" keeps the inputs and outputs as the model has them, in float; "native" is
                what a bundle has, perhaps with channels last and int8.
            name: of the bundle; the file's name by default.
            version: of the bundle.

        Raises:
            UnsupportedOperatorError: TFLite has no form of some operators; all are named.
            NotYetSupportedError: a format that comes later.
            UsageError: an unknown format, variant, layout or name.
            DiskFullError, StorageError: the file could not be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if layout not in LAYOUTS:
            raise UsageError(f"unknown layout {layout!r}: give one of {', '.join(LAYOUTS)}")
        if suffix == ".onnx":
            _copy(self._chosen(variant, "onnx").path, path)
        elif suffix == ".tflite":
            self._save_tflite(path, variant, native=layout == "native")
        elif suffix == ".lep":
            self._save_bundle(path, name or path.stem, version)
        elif suffix in _LATER_FORMATS:
            raise NotYetSupportedError(f"not yet: {path}: saving as {suffix}; today: {_TODAY}")
        else:
            raise UsageError(f"{path}: unknown format {suffix!r}; today: {_TODAY}")
        return path

    def _save_tflite(self, path: Path, variant: str | None, *, native: bool) -> None:
        if self._measured is None:
            self._check_float_name(variant)
            self._save_float_tflite(path, native=native)
            return
        chosen = self._chosen(variant, "tflite")
        if native or chosen.graph is None:
            _copy(chosen.path, path)
        else:
            graph = tflite_files.load_graph(chosen.graph)
            tflite_files.write(graph, path, native=False, runtime=chosen.profile.runtime)

    def _save_float_tflite(self, path: Path, *, native: bool) -> None:
        """Straight from the graph; a TFLite source is written again as it was."""
        if self.source.original is not None and not native:
            tflite_files.copy(self.source.original, path)
            return
        try:
            tflite_files.write(lite_graph(self.source), path, native=native)
        except ModelError as error:
            raise self._in_its_own_words(error) from error

    def _check_float_name(self, variant: str | None) -> None:
        """A float model has one TFLite form, which is not written before it is asked for."""
        name = f"{self.precision}-tflite"
        if variant not in {None, name}:
            raise UsageError(f"no variant {variant!r} of format tflite; there is {name}")

    def _proven(self) -> tuple[list[Judged], Arrays]:
        """The float model's files with what they gave on the golden inputs, and those inputs."""
        check_batch(self.signature, where=self.source.where)
        inputs = golden_inputs(None, self.signature, seed=0)
        terms = Terms(budget=None, benchmark=False)
        judged = judge_artifacts(self._in_both_formats(), self.signature, inputs, None, terms=terms)
        for one in judged:
            if not one.verdict.kept:
                warnings.warn(f"no {one.artifact.format} files: {one.verdict.reason}", stacklevel=4)
        return judged, inputs

    def _in_both_formats(self) -> list[Artifact]:
        """The float model's files for a bundle; where TFLite has no form of it, a warning says why."""
        plain = self._artifacts[0]
        try:
            lite = kept_tflite(self.source, plain.precision, self._workspace.path)
            lite.open(self.signature)
        except (ModelError, RuntimeUnavailableError, SelfTestError) as error:
            warnings.warn(f"no tflite files: {error}", stacklevel=5)
            return [plain]
        return [plain, lite]

    def _in_its_own_words(self, error: ModelError) -> ModelError:
        """The error, with operators that the model itself has: what it names may be what they were taken apart into."""
        kinds = sorted({node.op_type for node in nodes(self.source.model.graph)})
        if not kinds or any(kind in str(error) for kind in kinds):
            return error
        shown = ", ".join(kinds[:_SHOWN]) + (f" and {len(kinds) - _SHOWN} more" if len(kinds) > _SHOWN else "")
        return UnsupportedOperatorError(f"{error}; the model's own operators are {shown}", operator=kinds[0])

    def _save_bundle(self, path: Path, name: str, version: str) -> None:
        card = Card(
            check_name(name, what="bundle name"),
            check_name(version, what="version"),
            steps=self._card.steps,
            postprocess=self._card.postprocess,
            files=self._card.files,
        )
        if self._measured:
            judged, inputs, evaluation = self._measured.judged, self._measured.inputs, self._measured.evaluation
        else:
            judged, inputs = self._proven()
            evaluation = None
        pack(self.source, judged, inputs, evaluation, card=card).save(path)

    def _chosen(self, variant: str | None, wanted: str) -> Artifact:
        """The best file of a format, or the one of that name."""
        alike = [artifact for artifact in self._artifacts if artifact.format == wanted]
        if variant is None and not alike:
            reason = self._measured.not_made.get(wanted) if self._measured else ""
            raise UsageError(f"no {wanted} variant: {reason or f'there are {self.variants}'}")
        for artifact in alike:
            if variant in {None, artifact.name}:
                return artifact
        raise UsageError(f"no variant {variant!r} of format {wanted}; there are {self.variants}")

    def _named(self, x: Inputs) -> dict[str, Array]:
        if isinstance(x, Mapping):
            return {str(name): np.asarray(array) for name, array in x.items()}
        names = [spec.name for spec in self.signature.inputs]
        if len(names) != 1:
            raise DataError(f"the model takes {names}: give a mapping by input name")
        return {names[0]: np.asarray(x)}


def _copy(source: Path, path: Path) -> None:
    with source.open("rb") as file, durable.replacing(path) as out:
        shutil.copyfileobj(file, out)
