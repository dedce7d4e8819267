"""The needs of all devices as one list of chunks, each published once for all who lack it.

A need that comes shortly after its chunk was published may have crossed it on the way; it is put off, not dropped,
until the chunk is IN_FLIGHT_S old. A chunk that is asked for again later was lost on the way: the pace hears of it.
"""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

GATHER_S = 0.3
"""Devices wait a random time before they ask; so long are needs gathered before the first chunk of a blob goes."""
IN_FLIGHT_S = 1.0
FORGET_S = 120.0


class Chunk(NamedTuple):
    """A chunk to publish."""

    blob: str
    number: int


class NeedBoard:
    """What is to be published, in the order asked; time is an argument, in seconds of any steady clock."""

    def __init__(self) -> None:
        self._due: dict[Chunk, float] = {}
        self._sent: dict[Chunk, float] = {}
        self._swept = 0.0

    def __len__(self) -> int:
        return len(self._due)

    def add(self, blob: str, indices: Iterable[int], now: float) -> int:
        """Take in one need. Returns how many of its chunks had been published before, and seem lost."""
        lost = 0
        start = now if any(chunk.blob == blob for chunk in self._due) else now + GATHER_S
        for index in indices:
            chunk = Chunk(blob, index)
            sent = self._sent.get(chunk, float("-inf"))
            lost += IN_FLIGHT_S <= now - sent < FORGET_S
            self._due.setdefault(chunk, max(start, sent + IN_FLIGHT_S))
        self._sweep(now)
        return lost

    def take(self, now: float, most: int) -> list[Chunk]:
        """The next chunks that are due, at most `most`; they count as published now."""
        chosen = list(islice((chunk for chunk, due in self._due.items() if due <= now), most))
        for chunk in chosen:
            del self._due[chunk]
            self._sent[chunk] = now
        return chosen

    def wait_s(self, now: float) -> float | None:
        """Seconds until something is due; None where nothing is asked for."""
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - now)

    def _sweep(self, now: float) -> None:
        if now - self._swept < FORGET_S / 4:
            return
        self._swept = now
        self._sent = {chunk: sent for chunk, sent in self._sent.items() if now - sent < FORGET_S}
