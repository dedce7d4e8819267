"""The wall clock in the units of the database; the core takes times as arguments instead."""

import time


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
