"""The Python face of the converters: `load_model`, `quantize_model`, `evaluate` and `benchmark`."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from converters.benchmark import DEFAULT_ROUNDS, benchmark_subject
from converters.evaluate import evaluate_subject
from converters.graph.signature import Shapes
from converters.importers import import_model
from converters.job import Measured, measure
from converters.model import Model
from converters.outcome import Outcome
from converters.pack import Card
from converters.request import (
    AUTO,
    DEFAULT_BUDGET,
    FORMATS,
    Request,
    check_precision,
    check_terms,
)
from converters.subject import Opening, Subject, opened, with_card
from converters.workspace import Workspace, disk_full_named
from lepton_edge.errors import BudgetError
from lepton_edge.preprocess.recipe import Recipe, load_preprocess
from lepton_edge.progress import Progress, quiet


def load_model(source: object, *, inputs: object = None, trust: bool = False, shapes: Shapes | None = None) -> Model:
    """Load a model. Each import from another framework is checked against it on random samples.

    Args:
        source: a path (.onnx, .tflite, .pt2, .keras, .h5, .skops, .pkl), the text `package.module:function` (which
            returns a model, or a torch module and its example inputs), an onnx.ModelProto, a keras.Model, a
            torch.nn.Module, or a fitted scikit-learn estimator.
        inputs: example inputs of a torch module: a tuple of tensors or arrays, or a mapping by argument name; the first
            axis of each is the batch.
        trust: load a .pt2, .skops or pickle that could run code too.
        shapes: sizes for inputs whose axes, other than the batch, are open; "?" leaves an axis open.

    Raises:
        ModelError: the file cannot be used, or its graph computes something else; the message says why.
        NotYetSupportedError: a kind of model that comes later.
        UnsupportedOperatorError: an operator that is unknown here, or that torch cannot export.
        UsageError: a torch module without example inputs, or another model with some.
    """
    imported = import_model(source, shapes=shapes, inputs=inputs, trust=trust)
    for note in imported.notes:
        warnings.warn(note, stacklevel=2)
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
    formats: Sequence[str] = FORMATS,
    progress: Progress = quiet,
) -> Model:
    """Make a model int8 or float16.

    Args:
        model: from `load_model`, or what it takes.
        precision: 8, or 16 for float16.
        data: samples (a path, an array, (x, y), a mapping, module:function or a function); some calibrate, the
            others judge. Without data the weights alone are int8, activations are dealt with at run time, and no
            promise is made on accuracy.
        metric: top1, top5, f1, auc, map, mse, mae, cer, cosine, agreement or module:function; by default top1 with
            class labels, else agreement.
        budget: what may be lost, 1.0 by default: points, or the unit of mse, mae or a function.
        calibration, calibration_data: how many of `data` calibrate (100, or half of fewer than 200), or data for that.
        preprocess: preprocess.toml, for data that are files.
        seed: chooses the samples of each side.
        method: how ranges are chosen: auto, minmax, percentile, entropy or mse.
        state: for recurrent models, input name by the name of the output that is fed back into it.
        formats: that the model can be saved in later: "onnx", "tflite" or both.
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
        formats=tuple(formats),
        benchmark=False,
    )
    return _quantised(model, request, progress)


def _quantised(model: object, request: Request, progress: Progress) -> Model:
    check_terms(request)
    source = model.source if isinstance(model, Model) else import_model(model)
    recipe = load_preprocess(request.preprocess) if request.preprocess else Recipe()
    card = Card("", "", steps=recipe.steps, postprocess=recipe.postprocess, files=recipe.files)
    workspace = Workspace()
    with disk_full_named(workspace.path):
        measured = measure(
            lambda: source, request, card, workspace.path, note=lambda _: None, progress=progress, keep_graphs=True
        )
    _tell(measured, request, stacklevel=4)
    return Model(source, card=card, workspace=workspace, measured=measured)


def _tell(measured: Measured, request: Request, *, stacklevel: int) -> None:
    """Raise or warn as the outcome asks; stacklevel: of the user's own line. Raises BudgetError."""
    if measured.hopeless:
        raise BudgetError(measured.reason())
    if measured.reason():
        warnings.warn(measured.reason(), stacklevel=stacklevel)
    if request.data is not None:
        for text in measured.warnings(request):
            warnings.warn(text, stacklevel=stacklevel)


def evaluate(
    model: object,
    data: object,
    *,
    metric: str | None = None,
    preprocess: str | Path | None = None,
    labels: str | Path | None = None,
    state: Mapping[str, str] | None = None,
    shapes: Shapes | None = None,
    inputs: object = None,
    trust: bool = False,
    progress: Progress = quiet,
) -> Outcome:
    """Measure how accurate every variant is, paired with the float model.

    Args:
        model: from `load_model` or `quantize_model`, or what they take, or a bundle (a path or a `Bundle`).
        data: samples, as `quantize_model` takes them.
        metric: as `quantize_model` takes it.
        preprocess: preprocess.toml, in place of what a bundle holds.
        labels: a file of class names, likewise.
        state: as `quantize_model` takes it.
        shapes, inputs, trust: as `load_model` takes them.
        progress: told how far it is.

    Returns:
        The figures, as `lepton-edge evaluate --json` prints them; a variant that this machine cannot run, or would
        compute wrongly, says so in `skipped`.

    Raises:
        ModelError, BundleError, DataError, UsageError: what cannot be used.
        RuntimeUnavailableError: no variant can be run here.
    """
    with _subject(model, _opening(preprocess, labels, shapes, inputs, trust=trust)) as subject:
        return evaluate_subject(subject, data, metric=metric, state=state, progress=progress)


def benchmark(
    model: object,
    *,
    runtimes: Sequence[str] = (),
    threads: int = 1,
    rounds: int = DEFAULT_ROUNDS,
    data: object = None,
    preprocess: str | Path | None = None,
    shapes: Shapes | None = None,
    inputs: object = None,
    trust: bool = False,
    progress: Progress = quiet,
) -> Outcome:
    """Measure how fast every variant is on this machine, all of them interleaved.

    Args:
        model: as `evaluate` takes it.
        runtimes: names; all that are installed by default.
        threads: of each runtime.
        rounds: each gives one ratio to the float model.
        data: samples to take inputs from; by default a bundle's own, else random ones.
        preprocess: preprocess.toml, in place of what a bundle holds.
        shapes, inputs, trust: as `load_model` takes them.
        progress: told how far it is.

    Returns:
        The figures, as `lepton-edge benchmark --json` prints them: milliseconds, and ratios to float with their spread.

    Raises:
        ModelError, BundleError, DataError, UsageError: what cannot be used.
        RuntimeUnavailableError: a runtime that is asked for is not installed, or no variant can be run here.
    """
    with _subject(model, _opening(preprocess, None, shapes, inputs, trust=trust)) as subject:
        return benchmark_subject(subject, wanted=runtimes, threads=threads, rounds=rounds, data=data, progress=progress)


def _opening(
    preprocess: str | Path | None, labels: str | Path | None, shapes: Shapes | None, inputs: object, *, trust: bool
) -> Opening:
    return Opening(
        shapes=shapes or {},
        inputs=inputs,
        trust=trust,
        preprocess=Path(preprocess) if preprocess else None,
        labels=Path(labels) if labels else None,
    )


@contextmanager
def _subject(model: object, opening: Opening) -> Iterator[Subject]:
    if isinstance(model, Model):
        yield with_card(model.subject(), opening)
        return
    with opened(model, opening) as subject:
        yield subject
