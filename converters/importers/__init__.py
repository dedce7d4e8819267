"""From what a user has to one ONNX graph: a table from suffix to importer."""

from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto

from converters.graph.signature import Shapes
from converters.importers.onnx import import_onnx, import_proto
from converters.source import Source
from lepton_edge.errors import ModelError, NotYetSupportedError

_IMPORTERS: dict[str, Callable[..., Source]] = {".onnx": import_onnx}

_TO_ONNX = {
    "Keras": "export it with `model.export('model.onnx', format='onnx')` (Keras 3)",
    "TFLite": "convert the model that it was made from",
    "PyTorch": "export it with `torch.onnx.export(module, inputs, 'model.onnx', dynamic_axes={...})`",
    "scikit-learn": "export it with `skl2onnx.to_onnx(estimator, x)`",
}
_LATER = {
    ".h5": "Keras",
    ".hdf5": "Keras",
    ".keras": "Keras",
    ".tflite": "TFLite",
    ".pt2": "PyTorch",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".skops": "scikit-learn",
    ".pkl": "scikit-learn",
    ".pickle": "scikit-learn",
    ".joblib": "scikit-learn",
}
_LATER_MODULES = {"keras": "Keras", "torch": "PyTorch", "sklearn": "scikit-learn", "tensorflow": "Keras"}


def import_model(source: object, *, shapes: Shapes | None = None) -> Source:
    """Import a file, or a model in memory.

    Args:
        source: a path, or an `onnx.ModelProto`.
        shapes: sizes for inputs whose axes (other than the batch) are symbolic.

    Raises:
        NotYetSupportedError: a kind of model whose importer comes later; the message says what to do today.
        ModelError: a kind of model that is unknown, or as the importer says.
    """
    if isinstance(source, ModelProto):
        return import_proto(source, shapes=shapes or {})
    if not isinstance(source, str | Path):
        raise _unknown_object(source)
    path = Path(source)
    importer = _IMPORTERS.get(path.suffix.lower())
    if importer is None:
        raise _unknown_file(str(source), path.suffix.lower())
    return importer(path, shapes=shapes or {})


def _unknown_file(text: str, suffix: str) -> ModelError:
    kind = "PyTorch" if ":" in text and not suffix.startswith(tuple(_LATER)) else _LATER.get(suffix)
    if kind is None:
        return ModelError(f"{text}: unknown kind of model file {suffix!r}; today .onnx files can be converted")
    return _not_yet(text, kind)


def _unknown_object(source: object) -> ModelError:
    for base in type(source).__mro__:
        kind = _LATER_MODULES.get(base.__module__.partition(".")[0])
        if kind:
            return _not_yet(f"a {type(source).__name__}", kind)
    return ModelError(f"a {type(source).__name__} is no model: give a path to an .onnx file or an onnx.ModelProto")


def _not_yet(what: str, kind: str) -> NotYetSupportedError:
    return NotYetSupportedError(f"not yet: {what}: {kind} models come later; today, {_TO_ONNX[kind]} and convert that")
