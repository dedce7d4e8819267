"""The one alphabet of device ids and bundle names: safe in a topic, a path, a URL and a shell."""

import re

from lepton_edge.errors import UsageError

PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_NAME = re.compile(PATTERN)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(text: str, *, what: str) -> str:
    """Return `text` if it may name a device, bundle, version or label.

    Raises:
        UsageError: it is empty, too long, or has a character that a topic or path gives a meaning.
    """
    if not is_name(text):
        raise UsageError(
            f"{what} {text!r} is not allowed: use 1 to 63 letters, digits, '_', '.' or '-', "
            "starting with a letter or digit"
        )
    return text
