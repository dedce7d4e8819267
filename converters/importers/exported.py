"""From a torch module with example inputs to a checked ONNX graph: what the PyTorch and Keras importers share.

torch is imported inside of functions: the extra `torch` is optional.
"""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx

from converters.graph.signature import Shapes, read_signature
from converters.importers.check import Seen, check_import
from converters.importers.onnx import from_proto
from converters.importers.torch_export import Traceable, to_onnx
from converters.ort import first_line
from converters.source import Reference, Source
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import ModelError

if TYPE_CHECKING:
    import torch

_SEED = 20
_OPEN_BATCHES = (2, 3, 1)
"""Two samples, and other batch sizes: a size that the exporter took for constant shows at one of them."""

_SCALES = (0.5, 2.0)
"""Of the examples' size, for open axes beside the batch."""


def import_traceable(given: Traceable, *, shapes: Shapes) -> Source:
    """Export with an open batch and check it; where that fails, with a batch of one.

    Raises:
        UnsupportedOperatorError: the exporter has no ONNX form for an operator.
        ModelError: the module does not run on its examples, cannot be exported, or the graph gives other outputs.
        NotYetSupportedError: a signature that is not supported yet.
    """
    _run_once(given)
    if given.program is not None:
        return _exported(given, shapes, open_batch=None)
    if not _has_batch(given.tensors()):
        return _exported(given, shapes, open_batch=False)
    try:
        return _exported(given, shapes, open_batch=True)
    except ModelError as error:
        if any(given.open_axes or ()):
            hint = "" if "--shape" in str(error) else f": an open axis may be the reason: {_closing(given)}"
            raise ModelError(f"{error}{hint}") from error
        source = _exported(given, shapes, open_batch=False)
        note = f"{given.where}: exported with a batch of 1, as an open batch failed: {first_line(error)}"
        return replace(source, notes=[*source.notes, note])


def _run_once(given: Traceable) -> None:
    try:
        outputs = given.run()
    except Exception as cause:  # the user's code: anything may come out of it
        raise ModelError(
            f"{given.where}: the module does not run on its example inputs: {type(cause).__name__}: {first_line(cause)}"
        ) from cause
    if not outputs:
        raise ModelError(f"{given.where}: the module gives no tensors")


def _has_batch(tensors: "Sequence[torch.Tensor]") -> bool:
    return bool(tensors) and all(tensor.ndim for tensor in tensors) and len({len(tensor) for tensor in tensors}) == 1


def _exported(given: Traceable, shapes: Shapes, *, open_batch: bool | None) -> Source:
    """Export once, and check. `open_batch`: None leaves the axes as the program has them."""
    model = to_onnx(_example(given, open_batch=open_batch), open_batch=bool(open_batch))
    if open_batch and any(_fixed_first(value) for value in model.graph.input):
        raise ModelError(f"{given.where}: torch's exporter took the batch for constant")
    size = given.size_bytes if given.size_bytes is not None else model.ByteSize()
    digest = given.sha256 or hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    source = from_proto(model, where=given.where, size_bytes=size, sha256=digest, shapes=shapes, kind=given.kind)
    _check_open(given, source, open_batch=bool(open_batch))
    signature = _laid_out(source.signature, given.input_layouts)
    source = replace(source, signature=signature, reference=_reference(given, source))
    checked = check_import(source, _samples(given, source), nudge=True)
    return _relaxed(replace(source, notes=[*source.notes, *checked.notes]), checked.seen)


def _relaxed(source: Source, seen: Seen) -> Source:
    """Open the output axes that the exporter declared fixed (it does so behind an LSTM) and that were seen to vary."""
    wrong = False
    for value in source.model.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            sizes = {shape[axis] for shape in seen[value.name]}
            if dim.HasField("dim_value") and sizes - {dim.dim_value}:
                dim.dim_param = f"{value.name}_{axis}"
                wrong = True
    if not wrong:
        return source
    del source.model.graph.value_info[:]  # what is declared inside is as wrong
    outputs = read_signature(source.model, where=source.where).outputs
    return replace(source, signature=msgspec.structs.replace(source.signature, outputs=outputs))


def _fixed_first(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.shape.dim) and value.type.tensor_type.shape.dim[0].HasField("dim_value")


def _check_open(given: Traceable, source: Source, *, open_batch: bool) -> None:
    """Raises ModelError where the exporter took an open size for constant: loops over time are unrolled."""
    for spec, axes in zip(source.signature.inputs, given.open_axes or (), strict=bool(given.open_axes)):
        frozen = [axis for axis in axes if open_batch and not isinstance(spec.shape[axis], str)]
        if frozen:
            raise ModelError(
                f"{given.where}: axis {frozen[0]} of input {spec.name!r} cannot stay open, as a loop is unrolled: "
                f"{_closing(given)}"
            )


def _closing(given: Traceable) -> str:
    """What to say to have no open axis but the batch."""
    options = []
    for name, tensor, axes in zip(given.input_names or (), given.tensors(), given.open_axes or (), strict=True):
        sizes = ["16" if axis in axes else str(size) for axis, size in enumerate(tensor.shape)]
        options += [f"--shape {name}=?x{'x'.join(sizes[1:])}"] if axes else []
    return f"fix it with {' '.join(options)} (the sizes that you need)"


def _example(given: Traceable, *, open_batch: bool | None) -> Traceable:
    """Show two samples where the batch is open: torch takes sizes of 0 and 1 for constants."""
    if open_batch is None or not _has_batch(given.tensors()):
        return given
    return given.fed(lambda tensor: _resized(tensor, 2 if open_batch else 1))


def _batches(signature: ModelSignature) -> Sequence[int | None]:
    """Batch sizes to check with; None is that of the examples."""
    first = [spec.shape[0] for spec in signature.inputs]
    if all(isinstance(size, str) for size in first):
        return _OPEN_BATCHES
    return (1, 1) if all(size == 1 for size in first) else (None, None)


def _laid_out(signature: ModelSignature, layouts: Sequence[str] | None) -> ModelSignature:
    if layouts is None:
        return signature
    inputs = [
        msgspec.structs.replace(spec, layout=layout) for spec, layout in zip(signature.inputs, layouts, strict=True)
    ]
    return msgspec.structs.replace(signature, inputs=inputs)


def _resized(tensor: "torch.Tensor", count: int) -> "torch.Tensor":
    """The first `count` samples, repeated where there are fewer."""
    import torch

    return tensor[torch.arange(count) % len(tensor)] if len(tensor) else tensor


def _reference(given: Traceable, source: Source) -> Reference:
    """Run the module itself on arrays."""
    inputs = [spec.name for spec in source.signature.inputs]
    outputs = [spec.name for spec in source.signature.outputs]
    examples = given.tensors()
    if len(inputs) != len(examples):
        raise ModelError(
            f"{given.where}: the module takes {len(examples)} tensors, but its graph only {inputs}: "
            "leave unused inputs out of the examples"
        )

    def run(arrays: Arrays) -> Arrays:
        import torch

        fed = iter([torch.from_numpy(_writable(arrays[name])) for name in inputs])
        results = given.fed(lambda tensor: next(fed).to(tensor.device)).run()
        if len(results) != len(outputs):
            raise ModelError(f"{given.where}: the module gives {len(results)} tensors, its graph {outputs}")
        return {
            name: result.detach().cpu().numpy() for name, result in zip(outputs, results, strict=True)
        }  # fmt: skip

    return run


def _writable(array: Array) -> Array:
    """The array in C order, copied where it is read-only: torch has no such tensors, and warns."""
    return np.require(array, requirements=["C", "W"])


def _samples(given: Traceable, source: Source) -> Iterator[Arrays]:
    """Random inputs of several batch sizes, and with open axes shorter and longer than the examples'."""
    rng = np.random.default_rng(_SEED)
    batches = _batches(source.signature)
    for count in batches:
        yield _varied(given, source, count, 1.0, rng)
    if not any(isinstance(size, str) for spec in source.signature.inputs for size in spec.shape[1:]):
        return
    for scale in _SCALES:
        sample = _varied(given, source, batches[0], scale, rng)
        if _runs(source, sample):
            yield sample


def _runs(source: Source, sample: Arrays) -> bool:
    """Whether the model itself takes such sizes: a table of positions or a window may bound them."""
    try:
        return source.reference is not None and bool(source.reference(sample))
    except Exception:  # noqa: BLE001 - the user's code: anything may come out of it
        return False


def _varied(given: Traceable, source: Source, count: int | None, scale: float, rng: np.random.Generator) -> Arrays:
    """Random inputs of the examples' kind: floats of their mean and spread, integers out of the examples' own."""
    arrays = [tensor.detach().cpu().numpy() for tensor in given.tensors()]
    made = {}
    for spec, array in zip(source.signature.inputs, arrays, strict=True):
        sizes = [
            max(1, int(size * scale)) if isinstance(open_size, str) else size
            for open_size, size in zip(spec.shape[1:], array.shape[1:], strict=True)
        ]
        shape = array.shape if array.ndim == 0 else (array.shape[0] if count is None else count, *sizes)
        made[spec.name] = _variation(array, shape, rng)
    return made


def _variation(example: Array, shape: Sequence[int], rng: np.random.Generator) -> Array:
    if not np.issubdtype(example.dtype, np.floating):
        return rng.choice(example.reshape(-1), shape) if example.size else np.zeros(shape, example.dtype)
    values = example.astype(np.float64)
    spread = float(np.std(values)) or 1.0
    return rng.normal(float(np.mean(values)), spread, shape).astype(example.dtype)
