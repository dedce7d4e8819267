"""What the device last said of each kind, and whether the manager has it: sent again until it is acknowledged. Pure."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from device_agent.link.pace import delay_s
from lepton_edge.wire.authenticator import Order
from lepton_edge.wire.topics import Kind

_NEVER = float("inf")


@dataclass
class _Entry:
    body: bytes
    due: float
    ticket: int
    sent: Order | None = None
    attempts: int = 0


class Item(NamedTuple):
    """Something to publish. ticket: which wish to say it this is; `sent` gives it back."""

    kind: Kind
    body: bytes
    ticket: int


class Outbox:
    """The latest body of status, info and reported: at most one each, so it cannot grow. Times are monotonic.

    An ack counts for the wish that it answers alone: one that is under way when the same is to be said again (a late
    will has hidden it, say) does not stop the repetition.
    """

    def __init__(self, resend: tuple[float, float]) -> None:
        self._resend = resend
        self._entries: dict[Kind, _Entry] = {}
        self._tickets = itertools.count()

    def put(self, kind: Kind, body: bytes, now: float) -> None:
        """Say `body` from now on; saying the same again changes nothing."""
        entry = self._entries.get(kind)
        if entry is None or entry.body != body:
            self._entries[kind] = _Entry(body, now, next(self._tickets))

    def again(self, now: float, kind: Kind | None = None) -> None:
        """Everything, or one kind, is to be published again, acknowledged or not."""
        for name, entry in self._entries.items():
            if kind in {None, name}:
                self._entries[name] = _Entry(entry.body, min(entry.due, now), next(self._tickets))

    def due(self, now: float) -> list[Item]:
        return [Item(kind, entry.body, entry.ticket) for kind, entry in self._entries.items() if entry.due <= now]

    def next_due(self) -> float:
        """When the next one is due; infinite where all is acknowledged."""
        return min((entry.due for entry in self._entries.values()), default=_NEVER)

    def sent(self, item: Item, order: Order, now: float, chance: float) -> None:
        """It went out; it is due again after a while."""
        entry = self._entries[item.kind]
        if entry.ticket != item.ticket:  # wished for again, or replaced, while it was on its way
            return
        entry.sent = order
        entry.due = now + delay_s(self._resend, entry.attempts, chance)
        entry.attempts += 1

    def acknowledged(self, kind: Kind, seen: Order) -> None:
        """The manager has committed what was sent up to `seen`."""
        entry = self._entries.get(kind)
        if entry is not None and entry.sent is not None and seen >= entry.sent:
            entry.due = _NEVER
