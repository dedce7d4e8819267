"""What a Keras file says of its model, read and judged before Keras builds anything of it."""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from lepton_edge.errors import ModelError, UnsupportedOperatorError

_MAX_CONFIG = 64 * 1024 * 1024
_MAX_DEPTH = 200
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_PACKAGES = {"keras", "builtins", "tensorflow", "tf_keras"}
_LEGACY = {"TFOpLambda", "SlicingOpLambda"}
_ADVICE = "write that part with Keras layers or keras.ops, or pass the model as package.module:function that returns it"


def read_config(path: Path) -> Mapping[str, object]:
    """The model's configuration.

    Raises:
        ModelError: unreadable, damaged, or a file of weights alone.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as cause:
        raise ModelError(f"{path}: {cause.strerror or cause}") from cause
    if head.startswith(_ZIP):
        text = _from_zip(path)
    elif head == _HDF5:
        text = _from_hdf5(path)
    else:
        raise ModelError(f"{path}: neither a .keras archive nor an HDF5 file, or a truncated one")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise ModelError(f"{path}: its model configuration is no JSON: a damaged file") from cause
    if not isinstance(config, dict):
        raise ModelError(f"{path}: its model configuration is no JSON object: a damaged file")
    return config


def check_config(config: object, *, where: str) -> None:
    """Refuse code, and classes that are not Keras' own, by the layer's name.

    Raises:
        UnsupportedOperatorError: a Lambda layer, or a custom one.
        ModelError: nested deeper than any model.
    """
    stack: list[tuple[object, str, int]] = [(config, "", 0)]
    while stack:
        value, name, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ModelError(f"{where}: its model configuration is nested deeper than any model: a damaged file")
        if isinstance(value, dict):
            name = _named(value) or name
            _check_class(value, name, where)
            stack += [(inner, name, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            stack += [(inner, name, depth + 1) for inner in value]


def is_legacy(config: object) -> bool:
    """Whether the model holds layers that TensorFlow made of plain functions, which Keras 3 does not know."""
    return any(isinstance(layer, dict) and layer.get("class_name") in _LEGACY for layer in _layers(config))


def modernised(config: Mapping[str, object]) -> Mapping[str, object]:
    """The configuration with function layers whose tensors all come as inputs, as `keras_legacy` takes them.

    TensorFlow writes a second tensor as ["layer", node, tensor] among a call's keyword arguments.
    """
    copy: Mapping[str, object] = json.loads(json.dumps(config))
    for layer in _layers(copy):
        if isinstance(layer, dict) and layer.get("class_name") in _LEGACY:
            _modernise(layer)
    return copy


@contextmanager
def with_config(path: Path, config: Mapping[str, object] | None) -> Iterator[Path]:
    """The file itself, or a copy of an .h5 with another configuration."""
    if config is None:
        yield path
        return
    import h5py

    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        copy = Path(folder) / "model.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config).encode()
        yield copy


def _from_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("config.json")
            if info.file_size > _MAX_CONFIG:
                raise ModelError(f"{path}: its model configuration has {info.file_size} bytes: no model has that")
            return archive.read(info).decode()
    except KeyError as cause:
        raise ModelError(f"{path}: a zip without config.json: no .keras archive") from cause
    except (zipfile.BadZipFile, OSError, EOFError, UnicodeDecodeError, NotImplementedError, RuntimeError) as cause:
        raise ModelError(f"{path}: a damaged .keras archive: {cause}") from cause


def _from_hdf5(path: Path) -> str:
    try:
        import h5py
    except ImportError as cause:
        raise ModelError(
            f"{path}: this needs h5py, which is not installed: pip install 'lepton-edge[torch]'"
        ) from cause
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, RuntimeError, ValueError, KeyError) as cause:
        raise ModelError(f"{path}: a damaged HDF5 file: {cause}") from cause
    if text is None:
        raise ModelError(
            f"{path}: it holds weights without a model: save the whole model with model.save('model.keras')"
        )
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _named(value: Mapping[str, object]) -> str:
    config = value.get("config")
    name = value.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return name if isinstance(name, str) and "class_name" in value else ""


def _check_class(value: Mapping[str, object], name: str, where: str) -> None:
    kind = value.get("class_name")
    if not isinstance(kind, str):
        return
    if kind in {"Lambda", "__lambda__"} or (kind == "function" and value.get("module") != "builtins"):
        raise UnsupportedOperatorError(
            f"{where}: layer {name!r} is a {kind}: it holds Python code, which is not run: {_ADVICE}", operator=kind
        )
    module, registered = value.get("module"), value.get("registered_name")
    foreign = isinstance(module, str) and module.partition(".")[0] not in _PACKAGES
    if foreign or (isinstance(registered, str) and ">" in registered):
        raise UnsupportedOperatorError(
            f"{where}: layer {name!r} is of the custom class {registered or kind!r}, whose code is not in the file: "
            f"{_ADVICE}",
            operator=kind,
        )


def _layers(config: object) -> list[object]:
    """Every layer, those of nested models too."""
    found: list[object] = []
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class_name" in value and "config" in value:
                found.append(value)
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return found


def _modernise(layer: dict[str, object]) -> None:
    nodes = cast("list[list[list[object]]]", layer.get("inbound_nodes", []))
    settings = cast("dict[str, object]", layer["config"])
    for node in nodes:
        kept: list[list[object]] = []
        arguments: dict[str, object] = {}
        for entry in node:
            kept.append([*entry[:3], {}])
            extra = entry[3] if len(entry) > 3 and isinstance(entry[3], dict) else {}
            arguments |= {key: value for key, value in extra.items() if key != "name"}
        for key, value in arguments.items():
            if _is_tensor(value):
                arguments[key] = {"tensor": len(kept)}
                kept.append([*cast("list[object]", value), {}])
        node[:] = kept
        settings["arguments"] = arguments


def _is_tensor(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(isinstance(part, int) for part in value[1:])
    )
