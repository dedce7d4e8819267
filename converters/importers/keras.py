"""Keras: .keras and .h5 files (those of Keras 2 too) and models in memory, through Keras 3 on the torch backend.

On that backend a Keras model is a torch module, so torch's exporter takes it. Keras and torch are imported inside of
functions: the extra `torch` is optional.
"""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from converters.data.random import OPEN_SIDE, OPEN_SIZE
from converters.graph.signature import OPEN, Shapes
from converters.importers.exported import import_traceable
from converters.importers.keras_config import check_config, is_legacy, modernised, read_config, with_config
from converters.importers.quiet import quiet
from converters.importers.torch import need_torch
from converters.importers.torch_export import Traceable
from converters.importers.weights import file_digest
from converters.ort import first_line
from converters.source import Source
from lepton_edge.errors import ModelError, NotYetSupportedError, UsageError

if TYPE_CHECKING:
    import torch

_BACKEND = "KERAS_BACKEND"
_LAYOUTS = {3: "NWC", 4: "NHWC", 5: "NDHWC"}
_PLAIN_TYPES = {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"}


def import_keras_file(path: Path, *, shapes: Shapes) -> Source:
    """Load a whole model from a .keras or .h5 file; no code that lies in it is run.

    Args:
        path: the file.
        shapes: sizes for inputs whose axes (other than the batch) are open.

    Raises:
        ModelError: unreadable, weights without a model, code or custom layers in it, or the exported graph differs.
        UnsupportedOperatorError: a layer that cannot be exported.
    """
    where = str(path)
    config = read_config(path)
    check_config(config, where=where)
    _need_keras(where)
    with _torch_backend(where):
        model = _loaded(path, config)
    return _import(model, where, shapes, size_bytes=path.stat().st_size, sha256=file_digest([path]))


def import_keras_model(model: object, *, shapes: Shapes, where: str = "") -> Source:
    """Export a `keras.Model`. Raises as `import_keras_file`."""
    where = where or f"the model {getattr(model, 'name', '')!r}"
    _need_keras(where)
    if not any(base.__module__.startswith("keras.") for base in type(model).__mro__):
        raise ModelError(f"{where}: a model of Keras 2: save it as .h5 (model.save('model.h5')) and convert that file")
    with _torch_backend(where):
        return _import(model, where, shapes, size_bytes=None, sha256=None)


def is_keras(source: object) -> bool:
    """Whether an object is a Keras model, found without importing Keras."""
    bases = [base for base in type(source).__mro__ if base.__name__ in {"Model", "Functional", "Sequential"}]
    return any(base.__module__.partition(".")[0] in {"keras", "tf_keras", "tensorflow"} for base in bases)


def _need_keras(where: str) -> None:
    need_torch(where)
    for package in ("keras", "h5py"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"{where}: this needs {package}, which is not installed: pip install 'lepton-edge[torch]'")


@contextmanager
def _torch_backend(where: str) -> Iterator[None]:
    """Have Keras on torch; the choice is made when Keras is first imported, and stays for the process."""
    before = os.environ.get(_BACKEND)
    if "keras" not in sys.modules:
        os.environ[_BACKEND] = "torch"
    try:
        import keras
    finally:
        if before is None:
            os.environ.pop(_BACKEND, None)
        else:
            os.environ[_BACKEND] = before
    backend = keras.backend.backend()
    if backend != "torch":
        raise ModelError(
            f"{where}: Keras is loaded with the backend {backend!r} in this process: set KERAS_BACKEND=torch before "
            "keras is imported, or save the model and convert the file with the command `lepton-edge convert`"
        )
    yield


def _loaded(path: Path, config: Mapping[str, object]) -> object:
    import keras

    from converters.importers.keras_legacy import LEGACY_LAYERS

    try:
        with quiet(), with_config(path, modernised(config) if is_legacy(config) else None) as file:
            return keras.saving.load_model(file, compile=False, safe_mode=True, custom_objects=LEGACY_LAYERS)
    except Exception as cause:  # Keras raises whatever the damage leads to
        raise ModelError(
            f"{path}: Keras {keras.__version__} cannot load it: {type(cause).__name__}: {first_line(cause)}: save the "
            "whole model again (as .h5 where it came as .keras: model.save('model.h5')), or pass it as "
            "package.module:function that returns the model"
        ) from cause


def _import(model: object, where: str, shapes: Shapes, *, size_bytes: int | None, sha256: str | None) -> Source:
    import torch

    tensors = _inputs(model, where)
    names = [str(tensor.name) for tensor in tensors]
    unknown = sorted(set(shapes) - set(names))
    if unknown:
        raise UsageError(f"--shape {unknown[0]}: {where} has no such input; it has {names}")

    class Wrapper(torch.nn.Module):
        """Calls the model for inference; not in eval mode, which would be written into the user's layers."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: "list[torch.Tensor]") -> object:
            return self.model(inputs if len(inputs) > 1 else inputs[0], training=False)  # type: ignore[operator]

    examples, open_axes = _examples(tensors, shapes, model, where)
    given = Traceable(
        Wrapper(), (examples,), where, "keras", {},
        input_names=names, output_names=_output_names(model), size_bytes=size_bytes, sha256=sha256,
        open_axes=open_axes, input_layouts=[_layout(tensor) for tensor in tensors],
    )  # fmt: skip
    fixed = {name: shape for name, shape in shapes.items() if name in names}
    return import_traceable(given, shapes=fixed)


def _inputs(model: object, where: str) -> "Sequence[Any]":
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise ModelError(
            f"{where}: the model has no declared inputs (a subclassed or unbuilt one): make it a functional model "
            "(keras.Model(inputs, outputs)) and save that"
        )
    for tensor in tensors:
        if tensor.dtype not in _PLAIN_TYPES or getattr(tensor, "sparse", False):
            raise NotYetSupportedError(
                f"not yet: {where}: input {tensor.name!r} is {tensor.dtype}: give the model inputs of numbers"
            )
    return cast("Sequence[Any]", tensors)


def _output_names(model: object) -> list[str] | None:
    """The names of the layers that give the outputs; None where two are one."""
    layers = getattr(model, "layers", [])
    names = [str(name) for name in getattr(model, "output_names", None) or [layer.name for layer in layers[-1:]]]
    outputs = getattr(model, "outputs", [])
    if len(names) != len(outputs):
        return None
    return names if names and len(set(names)) == len(names) else None


def _layout(tensor: "Any") -> str:
    """Keras means channels last unless a model says otherwise; it says so only by its layers."""
    import keras

    return _LAYOUTS.get(len(tensor.shape), "") if keras.config.image_data_format() == "channels_last" else ""


def _examples(
    tensors: "Sequence[Any]", shapes: Shapes, model: object, where: str
) -> "tuple[list[torch.Tensor], list[dict[int, str]]]":
    """Two random samples of each input, and the axes that stay open, each with its name."""
    import torch

    generator = torch.Generator().manual_seed(0)
    device = next((weight.device for weight in cast("torch.nn.Module", model).parameters()), torch.device("cpu"))
    examples, open_axes = [], []
    for tensor in tensors:
        sizes, axes = _sizes(tensor, shapes.get(tensor.name), where)
        dtype = getattr(torch, tensor.dtype)
        if dtype.is_floating_point:
            example = torch.randn(2, *sizes, generator=generator).to(dtype)
        else:  # mostly indices: 0 and 1 lie in every table
            example = torch.randint(0, 2, (2, *sizes), generator=generator).to(dtype)
        examples.append(example.to(device))
        open_axes.append(axes)
    return examples, open_axes


def _sizes(tensor: "Any", wanted: Sequence[int | str] | None, where: str) -> tuple[list[int], dict[int, str]]:
    declared = list(tensor.shape)
    if wanted is not None and len(wanted) != len(declared):
        raise UsageError(f"--shape {tensor.name}: {len(wanted)} sizes, but the input has {len(declared)} axes")
    if declared and declared[0] not in {None, 1}:
        raise NotYetSupportedError(
            f"not yet: {where}: input {tensor.name!r} has a fixed batch of {declared[0]}: leave the batch open"
        )
    sizes: list[int] = []
    axes: dict[int, str] = {}
    for axis, size in enumerate(declared[1:], start=1):
        given = wanted[axis] if wanted is not None else OPEN
        if size is None and given == OPEN:
            axes[axis] = f"{tensor.name}_{axis}"
            sizes.append(OPEN_SIDE if len(declared) > 3 else OPEN_SIZE)
        else:
            sizes.append(int(given) if size is None else size)
    return sizes, axes
