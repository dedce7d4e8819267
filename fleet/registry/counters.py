"""Counts of what was dropped, refused or attacked, kept in memory until the next transaction.

A forged message must cost its own bytes and nothing else, so it may not cause a write by itself.
"""

import threading
from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.registry.models import CounterRow

UNKNOWN = ""
"""Stands for all devices that are not enrolled: an attacker can make up any number of them."""


class Tallies:
    """Counts since the last flush, as (device, name) -> number."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()  # the event loop and the database's thread both count

    def count(self, device: str, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[device, name] += number

    def take(self) -> dict[tuple[str, str], int]:
        """What was counted, to be flushed."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return dict(taken)


def flush(session: Session, counts: dict[tuple[str, str], int]) -> None:
    """Add `counts` to the database."""
    for (device, name), number in counts.items():
        row = session.get(CounterRow, (device, name))
        if row is None:
            session.add(CounterRow(device=device, name=name, value=number))
        else:
            row.value += number


def read(session: Session) -> dict[str, dict[str, int]]:
    """All counts: device -> name -> number."""
    found: dict[str, dict[str, int]] = {}
    for row in session.scalars(select(CounterRow).order_by(CounterRow.device, CounterRow.name)):
        found.setdefault(row.device, {})[row.name] = row.value
    return found
