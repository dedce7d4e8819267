"""`package.module:function`: the user's own code makes the model."""

import importlib
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from converters.ort import first_line
from lepton_edge.errors import LeptonError, ModelError, UsageError

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_call(text: str) -> bool:
    """Whether a text names a function, as `package.module:function`."""
    return _FORM.fullmatch(text) is not None


def call(text: str) -> object:
    """Import the module, from the working folder too, and call the function without arguments.

    Raises:
        UsageError: there is no such module or function.
        ModelError: the function raised.
    """
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):  # stdout is for our results
            function = getattr(importlib.import_module(module_name), name, None)
            made = function() if callable(function) else None
    except ModuleNotFoundError as cause:
        raise UsageError(f"{text}: {cause}: looked in {here} and the installed packages") from cause
    except LeptonError:
        raise
    except Exception as cause:  # the user's code: anything may come out of it
        raise ModelError(f"{text}: it raised {type(cause).__name__}: {first_line(cause)}") from cause
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not callable(function):
        raise UsageError(f"{text}: {module_name} has no function {name!r}")
    return made
