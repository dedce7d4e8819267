"""One inference on one file, with what the bundle carries around the model: `lepton-edge run`.

Nothing is measured: the best-ranked variant that this machine can run answers, the next one where its runtime refuses
it. A device that serves measures first (`local.choose`).
"""

import tempfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from device_agent.core.choice import candidates, obstacle, obstacles
from device_agent.info import device_of, probe
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import Manifest, ModelSignature, TensorSpec, Variant
from lepton_edge.errors import DataError, RuntimeUnavailableError, SelfTestError
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.postprocess import Answer, named, postprocess
from lepton_edge.preprocess.spec import files_of
from lepton_edge.runtimes import open_session
from lepton_edge.typed import Record
from lepton_edge.wire.goal import Limits

MAX_ARRAYS = 1 << 30
"""Most bytes that the arrays of one input file may take."""
_BEST = 5
"""Classes that are named where the bundle has labels and no postprocessing."""
_CLASSES_RANK = 2
_TARGETS = "y"
"""An array of an .npz that is what the model should say, where no input is called so."""


class Output(Record, frozen=True, kw_only=True):
    """One output of the model, or the answer that postprocessing made of it.

    values: nested lists of numbers: the output, or after topk and the like its scores.
    indices: classes behind `values`, of the same nesting; None where they are scores of all classes in order.
    names: labels of `indices`. texts: what ctc read, one a sample.
    """

    name: str
    dtype: str
    values: object
    indices: object = None
    names: object = None
    texts: list[str] | None = None


class Result(Record, frozen=True, kw_only=True):
    """What `lepton-edge run` prints. variant, runtime: what answered; skipped: variant -> why it could not."""

    bundle: str
    variant: str
    runtime: str
    outputs: list[Output]
    skipped: dict[str, str] = {}


def run_once(bundle: Bundle, source: str, *, variant: str = "", runtimes: Collection[str] = ()) -> Result:
    """Run one inference.

    Args:
        bundle: that answers.
        source: a file: .npy or .npz as the model takes it, else one that the bundle's preprocessing reads (an image,
            .wav, .txt); for a text model also the text itself.
        variant: the one to run; "": the best-ranked that this machine can run.
        runtimes: that may be used, by name; none: all that are installed.

    Raises:
        DataError: the file cannot be read, or does not fit the model.
        RuntimeUnavailableError: no variant can run here, or not the one that is asked for.
        SelfTestError: no runtime took the file.
        BundleError: a damaged bundle, or no variant of that name.
        UsageError: no runtime has such a name.
    """
    able = _able(bundle, variant, runtimes)
    inputs = read_inputs(bundle, source)
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        for one in able:
            try:
                file = bundle.extract(one.file, Path(folder) / one.file)
                outputs = open_session(file, bundle.manifest.signature, one).run(inputs)
            except (SelfTestError, RuntimeUnavailableError) as error:
                failed[one.name] = str(error)
                continue
            answers = _answers(bundle.manifest, outputs)
            return Result(bundle=bundle.label, variant=one.name, runtime=one.runtime, outputs=answers, skipped=failed)
    raise SelfTestError(f"{bundle.label}: no variant runs here: {'; '.join(failed.values())}")


def _able(bundle: Bundle, wanted: str, runtimes: Collection[str]) -> list[Variant]:
    device, limits = device_of(probe(Path(tempfile.gettempdir()), {}, only=runtimes)), Limits()
    if wanted:
        variant = bundle.manifest.variant(wanted)
        if why := obstacle(variant, device, limits=limits):
            raise RuntimeUnavailableError(f"{bundle.label}: variant {wanted} {why}")
        return [variant]
    able = candidates(bundle.manifest, device, limits=limits)
    if not able:
        reasons = obstacles(bundle.manifest, device, limits=limits)
        listed = "; ".join(f"{name} {why}" for name, why in reasons.items())
        raise RuntimeUnavailableError(f"{bundle.label}: no variant can run here: {listed}")
    return able


def read_inputs(bundle: Bundle, source: str) -> Arrays:
    """The model's inputs from a file, with a batch of one where the file has none. Raises DataError."""
    manifest, path = bundle.manifest, Path(source)
    names = [spec.name for spec in manifest.signature.inputs]
    if path.suffix.lower() in {".npy", ".npz"}:
        found = _load_arrays(path)
        if _TARGETS not in names:
            found.pop(_TARGETS, None)
        if len(names) == 1 and len(found) == 1:
            found = {names[0]: next(iter(found.values()))}
    else:
        files = {name: bundle.read(name) for name in files_of(manifest.preprocess)}
        pipeline = Pipeline(manifest.preprocess, files=files, inputs=names)
        text = pipeline.family == "text" and not path.is_file()
        found = pipeline.load(source if text else path, name=source if text else str(path))
    return _batched(manifest.signature, found)


def _load_arrays(path: Path) -> Arrays:
    try:
        if path.suffix.lower() == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_ARRAYS:
                raise DataError(f"{path}: would unpack to more than {MAX_ARRAYS} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as cause:
        raise DataError(f"{path}: no file of plain NumPy arrays, or a truncated one ({cause})") from cause


def _batched(signature: ModelSignature, found: Mapping[str, Array]) -> Arrays:
    def whole(spec: TensorSpec, array: Array) -> Array:
        return array[np.newaxis] if array.ndim == len(spec.shape) - 1 else array

    specs = {spec.name: spec for spec in signature.inputs}
    return {name: whole(specs[name], array) if name in specs else array for name, array in found.items()}


def _answers(manifest: Manifest, outputs: Arrays) -> list[Output]:
    """The outputs; the first one as postprocessing, or else the labels, say it."""
    first, *others = outputs.items()
    answer = postprocess(first[1], manifest.postprocess, manifest.labels)
    if not manifest.postprocess:
        answer = _named_best(answer, manifest.labels)
    return [_output(first[0], answer), *(_output(name, Answer(array)) for name, array in others)]


def _named_best(answer: Answer, labels: list[str]) -> Answer:
    """The best classes by name, where the output has one score a label."""
    scores = answer.scores
    if not labels or scores.ndim != _CLASSES_RANK or scores.shape[-1] != len(labels):
        return answer
    order = np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")[:, :_BEST].astype(np.int64)
    return Answer(np.take_along_axis(scores, order, axis=-1), order, named(order, labels))


def _output(name: str, answer: Answer) -> Output:
    return Output(
        name=name,
        dtype=answer.scores.dtype.name,
        values=answer.scores.tolist(),
        indices=None if answer.indices is None else answer.indices.tolist(),
        names=answer.names,
        texts=answer.texts,
    )
