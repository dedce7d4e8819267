"""How fast chunks are published: faster while all arrive, half as fast when some are asked for again (AIMD).

Brokers drop silently for a slow reader (measured with mosquitto: 3000 chunks of 64 KiB sent at once, 1064 delivered),
so repeated needs are the only sign that the pace is too high.
"""

from dataclasses import dataclass, replace

MIN_RATE = 512 * 1024
START_RATE = 16 * 1024 * 1024
STEP = 2 * 1024 * 1024
"""Bytes per second gained with each second of publishing without a loss."""
CUT_EVERY_S = 1.0
"""One loss is asked for again by many devices: it cuts the rate once."""


@dataclass(frozen=True)
class Pace:
    """The rate in bytes per second, and when it was cut last (seconds of any steady clock)."""

    rate: float = START_RATE
    cut_at: float = float("-inf")

    def lost(self, now: float) -> "Pace":
        """Chunks were asked for again."""
        if now - self.cut_at < CUT_EVERY_S:
            return self
        return Pace(rate=max(MIN_RATE, self.rate / 2), cut_at=now)

    def sent(self, size_bytes: int, most: float) -> "Pace":
        """So many bytes went out. most: the configured upper limit in bytes per second."""
        grown = self.rate + STEP * size_bytes / self.rate
        return replace(self, rate=max(MIN_RATE, min(most, grown)))

    def seconds(self, size_bytes: int) -> float:
        """How long these bytes may take."""
        return size_bytes / self.rate
