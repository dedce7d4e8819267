"""How long the link waits: all of it in one place, so that tests can hurry and fleets can spread."""

import random
from dataclasses import dataclass

_RANDOM = random.SystemRandom()


@dataclass(frozen=True)
class Pace:
    """Delays in seconds; each grows from the first to the longest, doubling, spread by chance.

    reconnect: between attempts to reach the broker. resend: until something that is not acknowledged goes out again.
    first_need: the most by which the first `need` is delayed, so that many devices ask together once.
    quiet: without a chunk until `need` is said again.
    stall: without a chunk, though a manager is there, until the fetch gives up and another model may fetch.
    repeat: the least between two answers to a wrong status or a manager's start.
    """

    reconnect: tuple[float, float] = (0.5, 60.0)
    resend: tuple[float, float] = (3.0, 120.0)
    first_need: float = 0.3
    quiet: tuple[float, float] = (1.0, 60.0)
    stall: float = 180.0
    repeat: float = 1.0


def delay_s(bounds: tuple[float, float], attempt: int, chance: float) -> float:
    """The wait after `attempt` fruitless tries; chance in [0, 1)."""
    first, longest = bounds
    return min(longest, first * 2.0 ** min(attempt, 32)) * (0.5 + chance / 2)


def chance() -> float:
    """A number in [0, 1): what spreads the devices of a fleet."""
    return _RANDOM.random()
