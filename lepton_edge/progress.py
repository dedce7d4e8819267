"""How long work tells how far it is: a callback, so that no worker knows what a terminal is."""

from typing import Protocol


class Progress(Protocol):
    """Told after each step of a stage; `done` counts up to `total`, both in the stage's own unit (samples, layers)."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def quiet(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
    del stage, done, total
