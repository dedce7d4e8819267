"""The ring of latency windows on disk."""

from collections.abc import Iterable
from pathlib import Path

from lepton_edge.telemetry.window import Window


class Ring:
    def __init__(self, folder: Path, capacity: int = 1024) -> None:
        raise NotImplementedError

    def add(self, window: Window) -> None:
        raise NotImplementedError

    def pending(self, limit: int) -> list[Window]:
        raise NotImplementedError

    def acknowledge(self, ids: Iterable[str]) -> None:
        raise NotImplementedError
