"""preprocess.toml read from disk, with the files that its steps name."""

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import msgspec

from lepton_edge.errors import DataError
from lepton_edge.preprocess.pipeline import TABLE, check_order
from lepton_edge.preprocess.spec import Step, TextTokenize, files_of, op_name
from lepton_edge.preprocess.text import open_tokenizer
from lepton_edge.preprocess.tokenizer_check import MAX_BYTES

MAX_TOML = 1024 * 1024
BUNDLE_FOLDER = "preprocess"
OPS: dict[str, type[Step]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Step)}
_TABLES = ("step", "postprocess")


class Recipe(NamedTuple):
    """What a preprocess.toml says, ready to travel.

    Attributes:
        steps: from a sample to the model's input; the files in them are named as in the bundle.
        postprocess: from the model's output to an answer.
        files: by path in the bundle, the content that goes with it.
    """

    steps: Sequence[Step] = ()
    postprocess: Sequence[Step] = ()
    files: Mapping[str, bytes] = MappingProxyType({})


def load_preprocess(path: Path) -> Recipe:
    """Read a preprocess.toml and the files beside it that it names.

    Raises:
        DataError: unreadable, no TOML, an unknown step or a wrong parameter (named with the step's number), or a file
            that is missing, too large or not what the step needs.
    """
    document = _read_toml(path)
    unknown = sorted(set(document) - set(_TABLES))
    if unknown:
        raise DataError(f"{path}: unknown table {unknown[0]!r}; it holds [[step]] and [[postprocess]]")
    steps, postprocess = (_steps(path, table, document.get(table, [])) for table in _TABLES)
    _check_places(path, steps, postprocess)
    found = preprocess_files(steps, path.parent)
    names = {step_file: name for name, step_file in zip(found, files_of(steps), strict=True)}
    files = {name: _read_file(source, path) for name, source in found.items()}
    recipe = Recipe([_renamed(step, names) for step in steps], postprocess, files)
    _check_tokenizers(recipe, path)
    return recipe


def preprocess_files(steps: Sequence[Step], folder: Path) -> dict[str, Path]:
    """Where the bundle takes the steps' files from.

    Args:
        steps: as read from a preprocess.toml.
        folder: that it lies in.

    Returns:
        By path in the bundle (`preprocess/NAME`, numbered where a name comes twice), in the order of `files_of`.
    """
    found: dict[str, Path] = {}
    for name in files_of(steps):
        source = folder / name
        safe = "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "-" for char in source.name)
        safe = safe.replace("..", "-").lstrip("_.-") or "file"
        target, count = f"{BUNDLE_FOLDER}/{safe}", 1
        while target in found:
            count += 1
            target = f"{BUNDLE_FOLDER}/{count}-{safe}"
        found[target] = source
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOML + 1)
        if len(data) > MAX_TOML:
            raise DataError(f"{path}: more than {MAX_TOML} bytes; no preprocess.toml is that long")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise DataError(f"{path}: no valid TOML ({cause})") from cause


def _steps(path: Path, table: str, items: object) -> list[Step]:
    if not isinstance(items, list):
        raise DataError(f"{path}: {table} must be a list of tables: write [[{table}]]")
    return [_step(f"{path}: {table} {number}", item) for number, item in enumerate(items, start=1)]


def _step(where: str, item: object) -> Step:
    op = item.get("op") if isinstance(item, dict) else None
    kind = OPS.get(op) if isinstance(op, str) else None
    if kind is None:
        near = difflib.get_close_matches(str(op), OPS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPS)}"
        raise DataError(f"{where}: {'op is missing' if op is None else f'unknown op {op!r}'}; {hint}")
    if not _finite(item):
        raise DataError(f"{where} ({op}): a parameter is NaN or infinite")
    try:
        step = msgspec.convert(item, kind, strict=False)
    except (msgspec.ValidationError, ValueError, RecursionError) as cause:
        raise DataError(f"{where} ({op}): {cause}; its parameters are {_parameters(kind)}") from cause
    return step


def _finite(value: object) -> bool:
    if isinstance(value, dict | list):
        return all(_finite(part) for part in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _parameters(kind: type[Step]) -> str:
    return ", ".join(kind.__struct_fields__) or "none"


def _check_places(path: Path, steps: Sequence[Step], postprocess: Sequence[Step]) -> None:
    try:
        check_order(steps)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    for number, step in enumerate(postprocess, start=1):
        if type(step) in TABLE:
            raise DataError(f"{path}: postprocess {number} ({op_name(step)}): it belongs under [[step]]")


def _read_file(source: Path, path: Path) -> bytes:
    try:
        with source.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as cause:
        raise DataError(f"{path}: it names {source}: {cause.strerror or cause}") from cause
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: it names {source}, which has more than {MAX_BYTES} bytes")
    return data


def _renamed(step: Step, names: Mapping[str, str]) -> Step:
    return msgspec.structs.replace(step, file=names[step.file]) if isinstance(step, TextTokenize) else step


def _check_tokenizers(recipe: Recipe, path: Path) -> None:
    for step in recipe.steps:
        if isinstance(step, TextTokenize):
            open_tokenizer(step, recipe.files[step.file], where=f"{path}: {step.file.removeprefix('preprocess/')}")
