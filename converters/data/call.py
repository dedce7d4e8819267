"""DATA from `package.module:function`: its samples are checked and written to a scratch file once, then read from it.

An iterable can be passed through once only, and samples must be had by number, in any order and more than once.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.data.classes import class_index
from converters.data.dataset import as_array, fitting
from converters.data.spool import Spool
from converters.data.targets import Labels, Target, TargetKind, Targets, as_targets
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError, LeptonError


class CallDataset:
    """Samples that a function gave."""

    def __init__(self, inputs: Spool, targets: Targets, values: Spool | None) -> None:
        self._inputs, self._targets, self._values = inputs, targets, values

    @property
    def labels(self) -> Labels | None:
        return self._targets.classes

    @property
    def targets(self) -> TargetKind:
        return "values" if self._values is not None else self._targets.kind

    def __len__(self) -> int:
        return len(self._inputs)

    def inputs(self, index: int) -> Arrays:
        return self._inputs.read(index)

    def target(self, index: int) -> Target:
        return self._targets.at(index) if self._values is None else self._values.read(index)

    def describe(self, index: int) -> str:
        return f"sample {index}"


def is_call(text: str) -> bool:
    """Whether `text` reads as package.module:function."""
    module, _, function = text.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def call_samples(
    function: Callable[..., Any], signature: ModelSignature, *, where: str, class_names: Sequence[str]
) -> CallDataset:
    """Call a function and take all that it gives; raises as `open_call`."""
    return take_samples(_called(function, where), signature, where=where, class_names=class_names)


def open_call(text: str, signature: ModelSignature, *, class_names: Sequence[str]) -> CallDataset:
    """Import the function, call it, and take all that it gives.

    Args:
        text: package.module:function; the working folder is searched too, as with `python -m`.
        signature: what the samples must fit.
        class_names: by class index; what labels that are texts mean.

    Raises:
        DataError: it cannot be imported or called, it raises, or gives something that is no (inputs, label).
        DiskFullError: the samples do not fit on the disk.
    """
    return call_samples(load_function(text), signature, where=text, class_names=class_names)


def load_function(text: str) -> Callable[..., Any]:
    """Import package.module:function. Raises DataError naming what is missing."""
    module_name, _, name = text.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module_name), name)
    except LeptonError:
        raise
    except Exception as cause:
        raise DataError(f"{text}: cannot be imported: {type(cause).__name__}: {cause}") from cause
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    if not callable(function):
        raise DataError(f"{text}: is a {type(function).__name__}, no function")
    loaded: Callable[..., Any] = function
    return loaded


def _called(function: Callable[..., Any], where: str) -> Iterator[object]:
    """What the function's iterable gives, with its own errors named."""
    count = 0
    try:
        for sample in _iterable(function(), where):
            yield sample
            count += 1
    except LeptonError:
        raise
    except Exception as cause:
        raise DataError(f"{where}: failed after {count} samples: {type(cause).__name__}: {cause}") from cause


def _iterable(given: object, where: str) -> Iterable[object]:
    if isinstance(given, Iterable):
        return given
    raise DataError(f"{where}: returned a {type(given).__name__}; it must return an iterable of (inputs, label)")


def take_samples(
    samples: Iterable[object], signature: ModelSignature, *, where: str, class_names: Sequence[str]
) -> CallDataset:
    """Check each sample and write it to the scratch file.

    Args:
        samples: pairs (inputs, label). inputs: an array where the model has one input, else a mapping by input name;
            with or without the batch axis of 1. label: None, a class index or name, a number, a text, an array, or
            arrays by output name.
        signature: what they must fit.
        where: their origin, for messages.
        class_names: by class index.

    Raises:
        DataError: none, too many, or one that does not fit, named by its number.
    """
    inputs, values, plain = Spool(where), Spool(where), list[object]()
    output = signature.outputs[0].name if signature.outputs else ""
    for index, sample in enumerate(samples):
        here = f"{where}: sample {index}"
        given, label = _pair(sample, here)
        inputs.add(_inputs(given, signature, here))
        arrays = _label_arrays(label, output, here)
        if arrays is None:
            plain.append(label)
        else:
            values.add(arrays)
        if bool(plain) is bool(len(values)) or (plain and _kind(plain[-1]) is not _kind(plain[0])):
            raise DataError(f"{here}: its label is of another kind than those before it")
    if not len(inputs):
        raise DataError(f"{where}: no samples")
    if len(values):
        return CallDataset(inputs, Targets(), values)
    return CallDataset(inputs, _plain_targets(plain, signature, class_names, where), None)


def _pair(sample: object, where: str) -> tuple[object, object]:
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return sample[0], sample[1]
    raise DataError(f"{where}: is a {type(sample).__name__}, it must be a pair (inputs, label); label may be None")


def _inputs(given: object, signature: ModelSignature, where: str) -> Arrays:
    names = [spec.name for spec in signature.inputs]
    if isinstance(given, Mapping):
        named: dict[str, object] = {str(name): one for name, one in given.items()}
    elif len(names) == 1:
        named = {names[0]: given}
    else:
        raise DataError(f"{where}: the model takes {names}: give a mapping by input name")
    ranks = {spec.name: len(spec.shape) for spec in signature.inputs}
    arrays = {name: _array(one, f"{where}: {name}") for name, one in named.items()}
    batched = {name: one[np.newaxis] if one.ndim == ranks.get(name, 0) - 1 else one for name, one in arrays.items()}
    fitted = fitting(batched, signature, where=where)
    wrong = next((name for name, one in fitted.items() if one.ndim and len(one) != 1), None)
    batch = signature.inputs[0].shape[:1]
    if wrong and not (batch and isinstance(batch[0], int)):
        raise DataError(f"{where}: {wrong} holds {len(fitted[wrong])} samples; give them one by one")
    return fitted


def _array(given: object, where: str) -> Array:
    array = as_array(given, where)
    if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
        raise DataError(f"{where}: holds NaN or Inf; remove or repair it")
    return array


def _label_arrays(label: object, output: str, where: str) -> Arrays | None:
    """A label that is an array or arrays by output name, with a batch axis of 1; None where it is one value."""
    if isinstance(label, Mapping):
        return {str(name): _array(one, f"{where}: label {name}")[np.newaxis] for name, one in label.items()}
    if label is None or isinstance(label, str) or np.ndim(label) == 0:  # type: ignore[arg-type]
        return None
    return {output: _array(label, f"{where}: label")[np.newaxis]}


def _kind(label: object) -> str:
    return "none" if label is None else "text" if isinstance(label, str) else "number"


def _plain_targets(labels: list[object], signature: ModelSignature, class_names: Sequence[str], where: str) -> Targets:
    if not labels or labels[0] is None:
        return Targets()
    output = signature.outputs[0].name if signature.outputs else ""
    if isinstance(labels[0], str) and class_names:
        texts = [str(label) for label in labels]
        index = class_index(set(texts), signature, class_names, where=where, what="label")
        return Targets(classes=np.array([index[text] for text in texts], dtype=np.int64))
    if isinstance(labels[0], str):
        return Targets(texts=[str(label) for label in labels])
    return as_targets(_array(labels, where), output=output, class_names=class_names, where=where)
