"""From what a user has to one ONNX graph: a table from suffix to importer."""

from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto

from converters.graph.signature import Shapes
from converters.importers.call import call, is_call
from converters.importers.keras import import_keras_file, import_keras_model, is_keras
from converters.importers.onnx import import_onnx, import_proto
from converters.importers.sklearn import import_estimator, import_pickle, import_skops, is_estimator
from converters.importers.torch import WAYS_IN, import_pt2, import_torch, is_module
from converters.source import Source
from lepton_edge.errors import ModelError, RuntimeUnavailableError, UsageError

_IMPORTERS: dict[str, Callable[[Path, Shapes, bool], Source]] = {
    ".onnx": lambda path, shapes, _: import_onnx(path, shapes=shapes),
    ".pt2": lambda path, shapes, trust: import_pt2(path, shapes=shapes, trust=trust),
    ".keras": lambda path, shapes, _: import_keras_file(path, shapes=shapes),
    ".h5": lambda path, shapes, _: import_keras_file(path, shapes=shapes),
    ".hdf5": lambda path, shapes, _: import_keras_file(path, shapes=shapes),
    ".skops": lambda path, shapes, trust: import_skops(path, shapes=shapes, trust=trust),
    ".tflite": lambda path, shapes, _: _import_tflite(path, shapes),
    ".pkl": lambda path, shapes, trust: import_pickle(path, shapes=shapes, trust=trust),
    ".pickle": lambda path, shapes, trust: import_pickle(path, shapes=shapes, trust=trust),
    ".joblib": lambda path, shapes, trust: import_pickle(path, shapes=shapes, trust=trust),
}
_BARE_TORCH = {".pt", ".pth", ".bin", ".safetensors"}


def import_model(source: object, *, shapes: Shapes | None = None, inputs: object = None, trust: bool = False) -> Source:
    """Import a file, or a model in memory. Each import from another framework is checked against it.

    Args:
        source: a path (.onnx, .pt2, .keras, .h5, .tflite, .skops), the text `package.module:function` (which returns a
            model, or a module and its example inputs), an `onnx.ModelProto`, a `keras.Model`, a `torch.nn.Module`, or
            a fitted scikit-learn estimator.
        shapes: sizes for inputs whose axes (other than the batch) are symbolic.
        inputs: example inputs of a torch module.
        trust: load files that could run code too.

    Raises:
        RuntimeUnavailableError: a TFLite file, and LiteRT is not installed.
        UsageError: example inputs that are missing, or with a model that takes none.
        ModelError: a kind of model that is unknown, or as the importer says.
    """
    if isinstance(source, str) and is_call(source) and not Path(source).exists():
        return _called(source, shapes or {}, inputs)
    if isinstance(source, str | Path):
        _no_examples(inputs, str(source))
        return _import_file(Path(source), shapes or {}, trust=trust)
    return _import_object(source, shapes or {}, inputs)


def _import_file(path: Path, shapes: Shapes, *, trust: bool) -> Source:
    suffix = path.suffix.lower()
    importer = _IMPORTERS.get(suffix)
    if importer is not None:
        return importer(path, shapes, trust)
    if suffix in _BARE_TORCH:
        raise ModelError(f"{path}: a {suffix} file holds weights without the model's code: {WAYS_IN}")
    raise ModelError(f"{path}: unknown kind of model file {suffix!r}; there are {', '.join(_IMPORTERS)}")


def _import_object(source: object, shapes: Shapes, inputs: object, *, where: str = "") -> Source:
    if is_keras(source):
        _no_examples(inputs, "a Keras model")
        return import_keras_model(source, shapes=shapes, where=where)
    if is_module(source):
        return import_torch(source, inputs, shapes=shapes, where=where)
    _no_examples(inputs, f"a {type(source).__name__}")
    if isinstance(source, ModelProto):
        return import_proto(source, shapes=shapes)
    if is_estimator(source):
        return import_estimator(source, shapes=shapes, where=where)
    raise ModelError(
        f"{where or f'a {type(source).__name__}'} is no model: give a path, an onnx.ModelProto, a keras.Model, a "
        "torch.nn.Module with example inputs, or a fitted scikit-learn estimator"
    )


def _called(text: str, shapes: Shapes, inputs: object) -> Source:
    made = call(text)
    if isinstance(made, tuple) and len(made) == 2:
        _no_examples(inputs, text)
        made, inputs = made
    if is_module(made) and inputs is None and not is_keras(made):
        raise UsageError(f"{text} returned a module alone: return (module, example inputs)")
    if isinstance(made, str | Path):
        return _import_file(Path(made), shapes, trust=False)
    return _import_object(made, shapes, inputs, where=text)


def _no_examples(inputs: object, what: str) -> None:
    if inputs is not None:
        raise UsageError(f"{what}: example inputs go with a torch module; this carries its own signature")


def _import_tflite(path: Path, shapes: Shapes) -> Source:
    """Import what reads TFLite files when one is there to be read: the format's schema comes with LiteRT."""
    try:
        from converters.importers.tflite import import_tflite  # noqa: PLC0415 - see above
    except ModuleNotFoundError as cause:
        if not (cause.name or "").startswith("ai_edge_litert"):
            raise
        raise RuntimeUnavailableError(
            f"{path}: TFLite files need LiteRT, which is not installed: pip install 'lepton-edge[convert]'"
        ) from cause
    return import_tflite(path, shapes=shapes)
