"""Files that hold an estimator: .skops, whose types are looked through first, and pickles, which are code.

Source: skops 0.16, io/_persist.py: `get_untrusted_types` reads the schema and builds nothing.
"""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import pickle
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from converters.graph.signature import Shapes
from converters.importers.quiet import quiet
from converters.importers.sklearn.estimator import import_estimator, is_estimator, need
from converters.importers.sklearn.trusted import HARMLESS
from converters.importers.weights import file_digest
from converters.ort import first_line
from converters.source import Source
from lepton_edge.errors import ModelError

_SCHEMA = "schema.json"
_MAX_SCHEMA = 256 * 1024 * 1024
_MAX_UNPACKED = 2 * 1024 * 1024 * 1024
_NAMED = 8
"""Untrusted types that a message lists."""


def import_skops(path: Path, *, shapes: Shapes, trust: bool) -> Source:
    """Load an estimator that `skops.io.dump` wrote.

    Args:
        path: the file.
        shapes: sizes for inputs; an estimator knows its own.
        trust: build objects too of types that neither skops nor `trusted` knows to be harmless.

    Raises:
        ModelError: unreadable, damaged, no estimator, or (without `trust`) it holds types that are not known to be
            harmless; the message lists them.
        UnsupportedOperatorError: an estimator that skl2onnx cannot convert.
    """
    need(str(path), "skops")
    import skops.io

    _check_archive(path)
    with _noted() as notes:
        try:
            unknown = sorted(str(name) for name in skops.io.get_untrusted_types(file=path))
        except Exception as cause:  # skops raises whatever the damage leads to
            raise _damaged(path, cause) from cause
        doubtful = [name for name in unknown if name not in HARMLESS]
        if doubtful and not trust:
            raise ModelError(f"{path}: {_untrusted(doubtful)}")
        try:
            estimator = skops.io.load(path, trusted=unknown)
        except Exception as cause:
            raise _damaged(path, cause) from cause
    return _imported(path, estimator, shapes, notes)


def import_pickle(path: Path, *, shapes: Shapes, trust: bool) -> Source:
    """Load an estimator that `pickle.dump` or `joblib.dump` wrote; loading it runs the code that it brings.

    Raises:
        ModelError: without `trust`; unreadable, damaged, or no estimator.
        UnsupportedOperatorError: an estimator that skl2onnx cannot convert.
    """
    if not trust:
        raise ModelError(
            f"{path}: a pickle runs code when it is loaded: load it with trust=True (--trust) if you trust who made "
            "it, or save the estimator with skops.io.dump(estimator, 'model.skops') and convert that"
        )
    need(str(path), "joblib")
    import joblib

    with _noted() as notes:
        try:
            estimator = joblib.load(path)  # reads plain pickles too
        except OSError as cause:
            raise ModelError(f"{path}: {cause.strerror or cause}") from cause
        except Exception as cause:  # the pickle's own code: anything may come out of it
            raise _damaged(path, cause) from cause
    return _imported(path, estimator, shapes, notes)


def _imported(path: Path, estimator: object, shapes: Shapes, notes: Sequence[str]) -> Source:
    if not is_estimator(estimator):
        raise ModelError(f"{path}: it holds a {type(estimator).__name__}, which is no scikit-learn estimator")
    size, digest = path.stat().st_size, file_digest([path])
    return import_estimator(
        estimator, shapes=shapes, where=str(path), size_bytes=size, sha256=digest, notes=notes
    )  # fmt: skip


def _check_archive(path: Path) -> None:
    """Refuse what is no archive, and one built to exhaust memory. Raises ModelError."""
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
    except (BadZipFile, OSError, NotImplementedError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
        raise ModelError(f"{path}: not a .skops file, or a damaged one: {reason}") from cause
    schemas = [entry for entry in entries if entry.filename == _SCHEMA]
    if len(schemas) != 1:
        raise ModelError(f"{path}: not a .skops file: it holds no {_SCHEMA}: write it with skops.io.dump")
    if schemas[0].file_size > _MAX_SCHEMA or sum(entry.file_size for entry in entries) > _MAX_UNPACKED:
        raise ModelError(f"{path}: it unpacks to more than 2 GiB: no estimator that a device can hold")


def _untrusted(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"it holds types that are not known to be harmless: {', '.join(names[:_NAMED])}{more}: look them up, and load "
        "it with trust=True (--trust) if you trust them and who made the file"
    )


def _damaged(path: Path, cause: Exception) -> ModelError:
    kind = "pickle" if isinstance(cause, pickle.UnpicklingError | EOFError) else type(cause).__name__
    return ModelError(
        f"{path}: it cannot be loaded: {kind}: {first_line(cause)}: damaged, or made with packages or versions that "
        "are not installed here"
    )


@contextmanager
def _noted() -> Iterator[list[str]]:
    """Within it nothing is printed; afterwards the list holds what was warned of other versions of scikit-learn."""
    from sklearn.exceptions import InconsistentVersionWarning

    notes: list[str] = []
    with quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    versions = {
        (entry.message.original_sklearn_version, entry.message.current_sklearn_version)
        for entry in caught
        if isinstance(entry.message, InconsistentVersionWarning)
    }
    notes += [
        f"it was saved with scikit-learn {saved} and is read with {here}, which may answer otherwise: check it on data"
        for saved, here in sorted(versions)
    ]
