""".pt2 archives, looked through before torch opens them: torch.export.load can run code that a file brings.

Its loader unpickles, resolves operators by dotted names, evaluates symbolic expressions and guards as Python, and loads
compiled libraries. Here each of these is held against what torch.export.save writes of an ordinary model.

Source: torch/export/pt2_archive/_package.py and torch/_export/serde/serialize.py (torch 2.13).
"""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from converters.importers.quiet import quiet
from lepton_edge.errors import ModelError

_MAX_JSON = 256 * 1024 * 1024
_MAX_DEPTH = 200
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|quantized_decomposed|torchvision)\.([A-Za-z0-9][\w.]*|_[a-z]\w*\.[a-z]\w*)"
    r"|torch\.sym_[a-z_]+|_operator\.[a-z_]+|math\.[a-z0-9_]+"
)
_FORBIDDEN = ("__", "_dir.", "from_file", "methodcaller", "attrgetter", "setitem", "delitem", "call")
_WORDS = frozenset({
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt",
    "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And",
    "Or", "Not", "Abs", "Piecewise", "true", "false", "True", "False", "oo", "int_oo", "inf", "nan", "sqrt",
    "floor", "ceiling", "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Equality", "Unequality",
    "LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan", "positive", "negative", "nonnegative",
    "integer", "real", "zero", "precision", "evaluate",
})  # fmt: skip
_SYMBOL = re.compile(r"[suz][a-z]*\d+")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=!&|~.]*")
_QUOTED = re.compile(r"'[\w.+\-]*'")
_GUARD = re.compile(r"[\w\s+\-*/%(),<>=!&|.\[\]:]*")
_GUARD_WORDS = _WORDS | {
    "L", "size", "stride", "dim", "storage_offset", "shape", "ndim", "and", "or", "not", "is", "None", "len",
    "math", "trunc", "ceil", "torch", "sym_float", "sym_int",
}  # fmt: skip
_NAME_KEYS = {"name", "forward_arg_names"}
"""These end in the text of a generated function."""
_NAME = re.compile(r"[\w.]*")
_EXPRESSION_KEYS = {"expr_str"}
_RAISE_IT = "load it with trust=True (--trust) if you trust who made it, or save it again with torch.export.save"


def check_archive(path: Path, *, trust: bool) -> None:
    """Refuse a .pt2 that is no archive, or (without `trust`) one that could run code when it is loaded.

    Raises:
        ModelError: naming the file, the part and the reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any("models/" in name or name == "serialized_exported_program.json" for name in names):
                raise ModelError(f"{path}: no program of torch.export in it: save the model with torch.export.save")
            if not trust:
                _check_parts(archive, path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise ModelError(f"{path}: not a .pt2 archive, or a damaged one: {reason}") from cause


def _check_parts(archive: zipfile.ZipFile, path: Path) -> None:
    seen: set[str] = set()
    for info in archive.infolist():
        name = info.filename.partition("/")[2] or info.filename
        if name in seen:
            raise ModelError(f"{path}: two parts of the archive are named {name!r}: a damaged file")
        seen.add(name)
        if "aotinductor" in name or name.endswith((".so", ".dll", ".dylib", ".pyd")):
            raise _unsafe(path, name, "it is compiled code")
        if name.endswith(".json"):
            _check_json(archive, info, path, name)
        elif name.endswith(".pt"):
            _check_pickle(archive.read(info), path, name)
        elif _is_pickled_object(name):
            raise _unsafe(path, name, "it is a pickled object")


def _is_pickled_object(name: str) -> bool:
    base = name.rpartition("/")[2]
    return name.startswith("data/constants/") and not base.startswith("tensor_")


def _check_json(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> None:
    if info.file_size > _MAX_JSON:
        raise ModelError(f"{path}: {name!r} has {info.file_size} bytes: no program is that long")
    try:
        content = json.loads(archive.read(info))
    except (ValueError, RecursionError) as cause:
        raise ModelError(f"{path}: {name!r} is no JSON: a damaged file") from cause
    for key, value in _walk(content, path):
        if key == "target" and isinstance(value, str) and "nodes" not in value and not _is_target(value):
            raise _unsafe(path, name, f"operator {value[:80]!r} is none that a saved program names")
        if key in _EXPRESSION_KEYS and not _is_expression(value):
            raise _unsafe(path, name, f"{str(value)[:80]!r} is no plain expression")
        if key == "guards_code" and not all(_is_guard(each) for each in _listed(value)):
            raise _unsafe(path, name, "its guards are no plain comparisons")
        if key == "path_name" and (not isinstance(value, str) or "/" in value or _is_other_object(value)):
            raise _unsafe(path, name, f"{str(value)[:80]!r} is a pickled object")
        if key in _NAME_KEYS and not all(_NAME.fullmatch(str(each)) for each in _listed(value) if not _nested(each)):
            raise _unsafe(path, name, f"{str(value)[:80]!r} is no plain name")
        if key == "use_pickle" and value:
            raise _unsafe(path, name, "it holds pickled tensors")


def _is_other_object(base: str) -> bool:
    return not base.startswith(("tensor_", "weight_"))


def _nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value] if value else []


def _walk(content: object, path: Path) -> Iterator[tuple[str, object]]:
    """Every key with its value, however deep."""
    stack = [(content, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ModelError(f"{path}: nested deeper than any program: a damaged file")
        if isinstance(value, dict):
            yield from ((str(key), inner) for key, inner in value.items())
            stack += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            stack += [(inner, depth + 1) for inner in value]


def _is_target(text: str) -> bool:
    # Signatures have targets too: names of parameters, which are looked up in the weights.
    if not text.startswith(("torch", "_operator", "math", "#")):
        return True
    return _TARGET.fullmatch(text) is not None and not any(part in text for part in _FORBIDDEN)


def _is_expression(value: object) -> bool:
    if not isinstance(value, str) or len(value) > 10_000 or "__" in value:
        return False
    bare = _QUOTED.sub("", value)
    words = _IDENTIFIER.findall(bare)
    return bool(_EXPRESSION.fullmatch(bare)) and all(word in _WORDS or _SYMBOL.fullmatch(word) for word in words)


def _is_guard(value: object) -> bool:
    if not isinstance(value, str) or len(value) > 10_000 or "__" in value:
        return False
    bare = _QUOTED.sub("", value)
    words = _IDENTIFIER.findall(bare)
    return bool(_GUARD.fullmatch(bare)) and all(word in _GUARD_WORDS or _SYMBOL.fullmatch(word) for word in words)


def _check_pickle(data: bytes, path: Path, name: str) -> None:
    """Sample inputs and older files' weights are pickles: they must pass torch's own restricted unpickler."""
    import torch

    if not data:
        return
    try:
        with quiet():
            torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as cause:  # UnpicklingError, or whatever the damage leads to
        raise _unsafe(path, name, "it is a pickle of more than tensors") from cause


def _unsafe(path: Path, name: str, why: str) -> ModelError:
    return ModelError(f"{path}: {name!r} could run code when it is loaded ({why}): {_RAISE_IT}")
