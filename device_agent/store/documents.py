"""Reading the agent's own small files: a damaged one is set aside with a log line and counts as missing."""

import logging
from pathlib import Path
from typing import TypeVar

from lepton_edge import durable
from lepton_edge.errors import StorageError
from lepton_edge.typed import Record, decode, encode

_LOG = logging.getLogger(__name__)
MAX_DOCUMENT = 1024 * 1024

R = TypeVar("R", bound=Record)


def load(path: Path, kind: type[R]) -> R | None:
    """The document at `path`; None where there is none, or none that can be read.

    A damaged file is renamed to NAME.damaged, so that somebody can look at it and no restart trips over it again.
    """
    try:
        with durable.translated(path):
            data = path.read_bytes()
        return decode(data, kind, what=str(path), limit=MAX_DOCUMENT, error=StorageError)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        set_aside(path, str(error))
        return None


def save(path: Path, document: Record) -> None:
    """Write durably. Raises DiskFullError or StorageError."""
    durable.write(path, encode(document))


def set_aside(path: Path, why: str) -> None:
    """Get a damaged file out of the way."""
    _LOG.warning("%s is damaged and set aside, going on without it: %s", path, why)
    try:
        path.replace(path.with_name(path.name + ".damaged"))
    except OSError as error:
        _LOG.warning("%s cannot be set aside: %s", path, error)
