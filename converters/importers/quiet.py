"""Foreign exporters talk: this keeps them off stdout, which belongs to our results, and off the user's warnings."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, prints go to stderr, and warnings and log records below CRITICAL are dropped.

    What an exporter would warn of (a branch that it froze, a size that it took for constant) is found by the check of
    its graph against the model.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
