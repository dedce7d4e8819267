"""A progress bar on a person's terminal; never on a pipe, where it would be noise in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lepton_edge.progress import Progress, quiet


@contextmanager
def shown_progress(*, wanted: bool = True) -> Iterator[Progress]:
    """Give a callback that draws one bar a stage on stderr while the block runs.

    Args:
        wanted: False, or a stderr that is no terminal, gives `quiet`.
    """
    console = Console(stderr=True)
    if not wanted or not sys.stderr.isatty():
        yield quiet
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(stage))

        yield show
