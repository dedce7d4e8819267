"""TFLite files: read without TensorFlow, checked against LiteRT."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime

from converters.data.random import random_inputs
from converters.graph.signature import Shapes
from converters.importers.check import how_apart
from converters.importers.onnx import from_proto
from converters.importers.tflite.convert import to_onnx
from converters.importers.tflite.reference import is_hybrid, make_reference
from converters.importers.tflite.scope import is_steps
from converters.importers.weights import MAX_BYTES, file_digest
from converters.ort import ERRORS, PROVIDERS, first_line, options
from converters.source import Source
from converters.tflite.check import check_model
from converters.tflite.model import TfliteModel
from converters.tflite.parse import read_file
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.golden import distance
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import ModelError, NotYetSupportedError, SelfTestError

_SEED = 20
_OPEN_BATCHES = (2, 3, 1)
"""A size that the file took for constant shows at one of them."""
_APART = 0.3
"""RMS of the difference over the standard deviation of what LiteRT gives: kernels for one quantised file differ by
0.008 to 0.13 (DESIGN.md), a wrong operator by 0.7 and more."""
_SPREAD = 4.0
"""How much further than LiteRT's two kernel sets are from each other a graph may be from one of them."""
_MOST_FED = 1 << 26
"""Elements of all inputs of a run: 256 MiB of floats, as of a picture of 4,700 x 4,700 in colour."""
_BUILTIN = "builtin"
"""LiteRT's kernels without XNNPACK."""
_LAYOUTS: Mapping[int, str] = {4: "NHWC", 5: "NDHWC"}
"""Operators of TFLite take pictures with channels last."""


def import_tflite(path: Path, *, shapes: Shapes) -> Source:
    """Load a .tflite file, float or quantised.

    A quantised one becomes a graph with QuantizeLinear and DequantizeLinear that keeps its scales; its inputs and
    outputs have the types that the file gives them. float16 weights become float32.

    Args:
        path: the file.
        shapes: sizes for inputs whose axes (other than the batch) are open.

    Raises:
        ModelError: unreadable, damaged, or the graph does not compute what LiteRT does.
        NotYetSupportedError: larger than 2 GiB, or a type or signature that is not supported yet.
        UnsupportedOperatorError: naming every operator that has no ONNX form, custom ones and state among them.
    """
    where = str(path)
    model = read_file(path)
    _check_inputs(model, where)
    try:
        size, digest = path.stat().st_size, file_digest([path])
    except OSError as cause:
        raise ModelError(f"{path}: {cause.strerror or cause}") from cause
    if size > MAX_BYTES:
        raise NotYetSupportedError(f"not yet: {path}: models above 2 GiB come later")

    def made(*, open_axes: bool) -> Source:
        graph = to_onnx(model, where=where, open_axes=open_axes)
        source = from_proto(graph, where=where, size_bytes=size, sha256=digest, shapes=shapes, kind="tflite")
        return _checked(_described(source, model, path), model)

    if not _is_open(model):
        return made(open_axes=False)
    try:
        return made(open_axes=True)
    except ModelError as error:
        try:
            source = made(open_axes=False)
        except ModelError:
            raise error from None
        note = f"{where}: read with the sizes that it holds, as open ones failed: {first_line(error)}"
        return replace(source, notes=[*source.notes, note])


def _check_inputs(model: TfliteModel, where: str) -> None:
    """Refuse inputs that no run here could be fed with."""
    count = sum(math.prod(model.main.tensors[index].shape) for index in model.main.inputs)
    if count > _MOST_FED:
        raise ModelError(f"{where}: its inputs have {count} elements, at most {_MOST_FED} are read: a damaged file")


def _is_open(model: TfliteModel) -> bool:
    return any(model.main.tensors[index].signature is not None for index in model.main.inputs)


def _described(source: Source, model: TfliteModel, path: Path) -> Source:
    inputs = [msgspec.structs.replace(one, layout=_LAYOUTS.get(len(one.shape), "")) for one in source.signature.inputs]
    signature = msgspec.structs.replace(source.signature, inputs=inputs)
    notes = []
    if any(one.variable for subgraph in model.subgraphs for one in subgraph.tensors):
        notes.append(
            f"{source.where}: its recurrent operators keep their state from one run to the next unless it is reset; "
            "the graph starts each run from zero, as the runtimes here do"
        )
    others = [one.key for one in model.signatures if one.subgraph]
    if others:
        notes.append(f"{source.where}: of its signatures the first subgraph's is read, not {', '.join(others)}")
    if any(one.dtype == "float16" and one.data is not None for one in model.main.tensors):
        notes.append(f"{source.where}: its weights are float16; they are held as float32")
    if is_hybrid(model):
        notes.append(
            f"{source.where}: its weights are int8 and its activations float, which LiteRT rounds while it runs; "
            "the graph computes with the weights as they are"
        )
    return replace(source, signature=signature, notes=[*source.notes, *notes], original=path)


def _checked(source: Source, model: TfliteModel) -> Source:
    """As `_held`; a file that a runtime computes wrongly is refused with what is wrong with it."""
    try:
        return _held(source, model)
    except ModelError:
        check_model(model, where=source.where)
        raise


def _held(source: Source, model: TfliteModel) -> Source:
    """Hold the graph against LiteRT, which sees the file only after ONNX Runtime has run its graph: of the two it is
    the one that trusts what it reads.
    """
    path, samples, hybrid = Path(source.where), list(_samples(source.signature)), is_hybrid(model)
    got = _run(source, samples, optimise=not hybrid)  # what fuses float with int8 weights may round activations too
    try:
        reference = make_reference(model, path)
        want = [reference(sample) for sample in samples]
        if any(is_steps(tensor) and tensor.data is None for one in model.subgraphs for tensor in one.tensors):
            _check_steps(source, got, want)
            return source
        complaint = _first_apart(got, want)
        if not complaint:
            return source if hybrid else replace(source, reference=reference)
        other = make_reference(model, path, provider=_BUILTIN)
        return _no_further(source, got, want, [other(sample) for sample in samples], complaint)
    except SelfTestError as error:
        raise ModelError(f"{source.where}: LiteRT does not run it: {first_line(error)}: get the file again") from error


def _first_apart(got: Sequence[Arrays], want: Sequence[Arrays]) -> str:
    for one, other in zip(got, want, strict=True):
        for name, array in other.items():
            if apart := how_apart(one[name], array):
                return f"output {name!r} {apart}"
    return ""


def _no_further(
    source: Source, got: Sequence[Arrays], want: Sequence[Arrays], other: Sequence[Arrays], complaint: str
) -> Source:
    """Some nets blow rounding up: then LiteRT's own kernels are as far apart, and the user's data cannot show more."""
    for mine, theirs, builtin in zip(got, want, other, strict=True):
        for name, array in theirs.items():
            if how_apart(mine[name], array) and not _error(mine[name], array) <= _SPREAD * _error(builtin[name], array):
                raise ModelError(
                    f"{source.where}: the graph is not the model: {complaint}, more than LiteRT's own kernels from "
                    "each other: please report this model"
                )
    note = f"{source.where}: on random inputs {complaint}; LiteRT's own kernels differ from each other as much"
    return replace(source, notes=[*source.notes, note])


def _error(got: Array, want: Array) -> float:
    if got.shape != want.shape:
        return np.inf
    return float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64)), initial=0.0))


def _run(source: Source, samples: Sequence[Arrays], *, optimise: bool) -> list[Arrays]:
    names = [spec.name for spec in source.signature.outputs]
    try:
        how = options(threads=1, optimise=optimise)
        session = onnxruntime.InferenceSession(source.to_bytes(), how, providers=PROVIDERS)
        return [dict(zip(names, session.run(names, sample), strict=True)) for sample in samples]
    except ERRORS as cause:
        raise ModelError(f"{source.where}: ONNX Runtime cannot run what was read: {first_line(cause)}") from cause


def _check_steps(source: Source, got: Sequence[Arrays], want: Sequence[Arrays]) -> None:
    """Two kernels round differently, so that single steps say nothing: over all samples outputs must stay close."""
    for name in want[0]:
        wanted, given = (np.concatenate([np.atleast_1d(one[name]) for one in many]) for many in (want, got))
        apart = distance({name: wanted.astype(np.float32)}, {name: given.astype(np.float32)})
        if not apart <= _APART:
            raise ModelError(
                f"{source.where}: the graph is not the model: output {name!r} differs from LiteRT's by {apart:.2g} "
                f"standard deviations, at most {_APART:g} is rounding: please report this model"
            )


def _samples(signature: ModelSignature) -> Iterator[Arrays]:
    """Random inputs, of several batch sizes where the batch is open; of one size where steps are compared."""
    rng = np.random.default_rng(_SEED)
    first = [spec.shape[0] for spec in signature.inputs if spec.shape]
    batches = _OPEN_BATCHES if first and all(isinstance(size, str) for size in first) else (1,) * len(_OPEN_BATCHES)
    for count in batches:
        made: dict[str, Array] = {}
        for spec in signature.inputs:
            size = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else count
            one = ModelSignature(inputs=[spec], outputs=[])
            array = random_inputs(one, size, rng)[spec.name]
            made[spec.name] = array if spec.shape else np.asarray(array[0])
        yield made
