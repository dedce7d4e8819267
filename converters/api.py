"""The Python face of the converters: `load_model` and `quantize_model`."""

import shutil
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.artifact import Artifact, source_artifact
from converters.golden import golden_inputs
from converters.graph.signature import Shapes
from converters.importers import import_model
from converters.job import Measured, measure
from converters.judged import Terms, judge_artifacts, ranked
from converters.measure.intervals import Interval
from converters.pack import Card, pack
from converters.request import (
    AUTO,
    DEFAULT_BUDGET,
    DEFAULT_VERSION,
    Request,
    check_budget,
    check_data,
    check_method,
    check_precision,
)
from converters.source import Source
from converters.workspace import Workspace, disk_full_named
from lepton_edge import durable
from lepton_edge.bundle.binding import Array
from lepton_edge.bundle.manifest import Metric, ModelSignature
from lepton_edge.errors import BudgetError, DataError, NotYetSupportedError, UsageError
from lepton_edge.names import check_name
from lepton_edge.preprocess.recipe import Recipe, load_preprocess
from lepton_edge.progress import Progress, quiet
from lepton_edge.runtimes import Session

_LATER_FORMATS = {".tflite", ".h5", ".keras", ".pt2", ".pt", ".pth"}

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
        """Of the best file: float32, int8 or int8-dynamic."""
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
        batches = isinstance(self.signature.inputs[0].shape[0], str)
        outputs = self._session.run(inputs) if batches else self._session.run_samples(inputs)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def save(
        self, path: str | Path, *, variant: str | None = None, name: str = "", version: str = DEFAULT_VERSION
    ) -> Path:
        """Write a file, whole or not at all.

        Args:
            path: .onnx for one file, .lep for a bundle of all of them.
            variant: for .onnx, which one; the best for this machine by default. `int8-onnx-u8s8` is for x86 with
                VNNI; on older x86 it computes wrongly, and `int8-onnx-u8u8` is the right one.
            name: of the bundle; the file's name by default.
            version: of the bundle.

        Raises:
            NotYetSupportedError: a format that comes later.
            UsageError: an unknown format, variant or name.
            DiskFullError, StorageError: the file could not be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".onnx":
            with self._chosen(variant).path.open("rb") as file, durable.replacing(path) as out:
                shutil.copyfileobj(file, out)
            return path
        if suffix == ".lep":
            self._save_bundle(path, name or path.stem, version)
            return path
        if suffix in _LATER_FORMATS:
            raise NotYetSupportedError(f"not yet: {path}: saving as {suffix}; today: .onnx and .lep")
        raise UsageError(f"{path}: unknown format {suffix!r}; today: .onnx and .lep")

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
            inputs, evaluation = golden_inputs(None, self.signature, seed=0), None
            judged = judge_artifacts(
                self._artifacts, self.signature, inputs, None, terms=Terms(budget=None, benchmark=False)
            )
        pack(self.source, judged, inputs, evaluation, card=card).save(path)

    def _chosen(self, variant: str | None) -> Artifact:
        for artifact in self._artifacts:
            if variant in {None, artifact.name}:
                return artifact
        raise UsageError(f"no variant {variant!r}; there are {self.variants}")

    def _named(self, x: Inputs) -> dict[str, Array]:
        if isinstance(x, Mapping):
            return {str(name): np.asarray(array) for name, array in x.items()}
        names = [spec.name for spec in self.signature.inputs]
        if len(names) != 1:
            raise DataError(f"the model takes {names}: give a mapping by input name")
        return {names[0]: np.asarray(x)}


def load_model(
    source: object, *, inputs: tuple[object, ...] | None = None, trust: bool = False, shapes: Shapes | None = None
) -> Model:
    """Load a model.

    Args:
        source: a path to an .onnx file, or an onnx.ModelProto.
        inputs: example inputs, for kinds of models that need them (later).
        trust: allow formats that can run code (later; no format of today can).
        shapes: sizes for inputs whose axes, other than the batch, are symbolic.

    Raises:
        ModelError: the file cannot be used; the message says why.
        NotYetSupportedError: a kind of model that comes later.
        UnsupportedOperatorError: an operator that is unknown here.
    """
    del inputs, trust
    imported = import_model(source, shapes=shapes)
    return Model(imported, card=Card("", ""))


def quantize_model(
    model: object,
    *,
    precision: int | str = 8,
    data: object = None,
    metric: str | None = None,
    budget: float | None = None,
    calibration: int | None = None,
    calibration_data: object = None,
    preprocess: str | Path | None = None,
    seed: int = 0,
    method: str = AUTO,
    state: Mapping[str, str] | None = None,
    progress: Progress = quiet,
) -> Model:
    """Make a model int8 or float16.

    Args:
        model: from `load_model`, or what it takes.
        precision: 8, or 16 for float16.
        data: samples (a path, an array, (x, y) or a mapping); some calibrate, the others judge. Without data the
            weights alone are int8, activations are dealt with at run time, and no promise is made on accuracy.
        metric: top1, top5 or agreement; by default top1 with class labels, else agreement.
        budget: points that may be lost, 1.0 by default.
        calibration: how many of `data` calibrate; 100, or half of fewer than 200, by default.
        calibration_data: data of its own for calibration.
        preprocess: preprocess.toml, for data that are files.
        seed: chooses the samples of each side.
        method: how ranges are chosen: auto, minmax, percentile, entropy or mse.
        state: for recurrent models, input name by the name of the output that is fed back into it.
        progress: told how far it is.

    Returns:
        The quantised model. Where there is nothing to quantise, the float model, with a warning.

    Raises:
        BudgetError: no int8 form keeps the accuracy.
        ModelError, DataError, UsageError: as `load_model` and `convert`.
    """
    check_precision(precision)
    request = Request(
        model=None,
        out=Path(),
        data=data,
        calibration=calibration,
        calibration_data=calibration_data,
        preprocess=Path(preprocess) if preprocess else None,
        metric=metric,
        budget=DEFAULT_BUDGET if budget is None else budget,
        seed=seed,
        precision=str(precision),
        method=method,
        state=state or {},
        benchmark=False,
    )
    check_method(request.method)
    check_budget(request.budget)
    check_data(request)
    source = model.source if isinstance(model, Model) else import_model(model)
    recipe = load_preprocess(request.preprocess) if request.preprocess else Recipe()
    card = Card("", "", steps=recipe.steps, postprocess=recipe.postprocess, files=recipe.files)
    workspace = Workspace()
    with disk_full_named(workspace.path):
        measured = measure(lambda: source, request, card, workspace.path, note=lambda _: None, progress=progress)
    _tell(measured, request)
    return Model(source, card=card, workspace=workspace, measured=measured)


def _tell(measured: Measured, request: Request) -> None:
    """Raise or warn as the outcome asks. Raises BudgetError."""
    if measured.hopeless:
        raise BudgetError(measured.reason())
    if measured.reason():
        warnings.warn(measured.reason(), stacklevel=3)
    if request.data is not None:
        for text in measured.warnings(request):
            warnings.warn(text, stacklevel=3)
