"""Libraries that preprocessing needs only where a step asks for them."""

import importlib
from types import ModuleType

from lepton_edge.errors import DataError


def library(name: str, *, extra: str) -> ModuleType:
    """Import a library of an extra.

    Raises:
        DataError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise DataError(
            f"preprocessing needs {name}, which is not installed: pip install 'lepton-edge[{extra}]' ({cause})"
        ) from cause
