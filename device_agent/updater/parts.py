"""What the workers of all models share."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.core.choice import Device
from device_agent.link.transfer import Transfer
from device_agent.serve.engine import Engine
from device_agent.store.blobs import Blobs
from device_agent.store.layout import Layout
from device_agent.trust import Verifier

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Parts:
    """The agent's parts, as a worker sees them.

    boot_id: of the running operating system. chance: gives a number in [0, 1). changed: a report is due.
    ended: a deployment ended or a model went, so files may have become useless.
    make_room: frees what can be freed when the disk is full. downloads: held while fetching, so models take turns.
    """

    layout: Layout
    blobs: Blobs
    transfer: Transfer
    engine: Engine
    verifier: Verifier
    device: Device
    boot_id: str
    chance: Callable[[], float]
    changed: Callable[[], None]
    ended: Callable[[], None]
    make_room: Callable[[], Awaitable[None]]
    downloads: asyncio.Lock = field(default_factory=asyncio.Lock)


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def os_boot_id() -> str:
    """Names this run of the operating system; empty where it does not tell, so that each restart counts as a crash."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
