"""The operator's passphrase: from the file that LEPTON_PASSPHRASE_FILE names, else asked for at the terminal."""

import os
import sys
from pathlib import Path

import click

from lepton_edge.errors import StorageError, UsageError

VARIABLE = "LEPTON_PASSPHRASE_FILE"
MAX_BYTES = 4096


def read_passphrase(*, new: bool) -> bytes:
    """The passphrase; empty where it was given empty on purpose.

    Args:
        new: it is being chosen: asked for twice.

    Raises:
        UsageError: there is neither a file nor a terminal.
        StorageError: the file cannot be read.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return _from_file(Path(named))
    if not sys.stdin.isatty():
        raise UsageError(f"no terminal to ask for the passphrase: put it into a file and set {VARIABLE}")
    hint = " (empty for none)" if new else ""
    answer: str = click.prompt(
        f"Passphrase of the operator's key{hint}",
        default="",
        show_default=False,
        hide_input=True,
        confirmation_prompt=new,
        err=True,
    )
    return answer.encode()


def _from_file(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise StorageError(f"{path} ({VARIABLE}): {cause.strerror or cause}") from cause
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} ({VARIABLE}): {len(data)} bytes, at most {MAX_BYTES} are accepted")
    return data.removesuffix(b"\n").removesuffix(b"\r")
