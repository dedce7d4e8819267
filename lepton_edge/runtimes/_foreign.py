"""What the adapters share where they meet foreign code."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_REDIRECTING = threading.Lock()


def first_line(error: BaseException) -> str:
    """The first line of a foreign error, short enough for one line of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def without_lines(beginning: bytes) -> Iterator[None]:
    """Keep native code in the block from writing lines with this beginning to stderr.

    What else is written meanwhile, by any thread, comes a moment later. Where there is no stderr, or no temporary file
    to hold it, nothing is kept.
    """
    with _REDIRECTING:
        try:
            held = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
            stderr = os.dup(_STDERR)
        except OSError:
            yield
            return
        with held:
            os.dup2(held.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(stderr, _STDERR)
                os.close(stderr)
                held.seek(0)
                for line in held:
                    if not line.startswith(beginning):
                        os.write(_STDERR, line)
