"""Fetching blobs: say what is lacking, take in whatever is right, ask again for the rest.

The first `need` asks for much at once; where chunks get lost on the way (brokers drop for slow readers), the
stragglers are asked for in small windows that grow again while nothing is lost.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from device_agent.link.link import Link
from device_agent.link.pace import Pace, chance, delay_s
from device_agent.store.chunks import PartialBlob
from device_agent.threads import in_thread
from lepton_edge.errors import TransferError
from lepton_edge.wire.chunks import MAX_BITS, pack_bits
from lepton_edge.wire.messages import Need

_LOG = logging.getLogger(__name__)
SMALL_WINDOW = 64
MAX_WAITING = 256
_SYNC_CHUNKS = 128
_SYNC_S = 2.0

Progress = Callable[[int], None]


class _Inbox:
    """Chunks on their way from the connection to the disk: bounded, drops counted."""

    def __init__(self) -> None:
        self._chunks: list[tuple[int, bytes]] = []
        self._arrived = asyncio.Event()
        self.woken = False
        self.dropped = 0

    def take(self, index: int, data: bytes) -> None:
        if len(self._chunks) >= MAX_WAITING:
            self.dropped += 1
            return
        self._chunks.append((index, data))
        self._arrived.set()

    def wake(self) -> None:
        self.woken = True
        self._arrived.set()

    async def drain(self, timeout_s: float) -> list[tuple[int, bytes]]:
        """What has arrived; waits for something at most `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return []
        self._arrived.clear()
        chunks, self._chunks = self._chunks, []
        return chunks


class Transfer:
    """Fetches blobs over the link, one after another."""

    def __init__(self, link: Link, pace: Pace) -> None:
        self._link = link
        self._pace = pace

    async def fetch(self, blob: PartialBlob, on_bytes: Progress) -> None:
        """Fill `blob`; what it already has is not asked for.

        Args:
            on_bytes: told of each batch's bytes as they are taken in.

        Raises:
            TransferError: no right chunk for `pace.stall` seconds in which a manager could have answered.
            DiskFullError, StorageError: the chunks cannot be kept.
        """
        inbox = _Inbox()
        async with self._link.listening(blob.ref.sha256, inbox):
            try:
                await asyncio.sleep(chance() * self._pace.first_need)
                await _Fetch(self._link, self._pace, blob, inbox, on_bytes).run()
            finally:
                await in_thread(blob.flush)


class _Fetch:
    """One blob's fetching."""

    def __init__(self, link: Link, pace: Pace, blob: PartialBlob, inbox: _Inbox, on_bytes: Progress) -> None:
        self._link = link
        self._pace = pace
        self._blob = blob
        self._inbox = inbox
        self._on_bytes = on_bytes
        self._window = MAX_BITS
        self._fruitless = 0
        self._idle_s = 0.0
        self._synced = time.monotonic()

    async def run(self) -> None:
        while not self._blob.is_complete:
            await self._link.wait_connected()
            self._inbox.woken = False
            asked = await self._ask()
            got_all = await self._gather(asked)
            self._window = min(MAX_BITS, 2 * self._window) if got_all else SMALL_WINDOW
            if self._idle_s > self._pace.stall:
                raise TransferError(
                    f"blob {self._blob.ref.sha256[:16]}: no chunk came for {self._idle_s:.0f} s, "
                    "though the broker is connected: is the manager running?"
                )

    async def _ask(self) -> range:
        """Say which of the next chunks are lacking; returns the window."""
        lacking = self._blob.lacking
        first = lacking.index(True)
        window = window_of(lacking, first, self._window)
        bits = pack_bits(lacking[window.start : window.stop])
        await self._link.need(Need(blob=self._blob.ref.sha256, first=window.start, bits=bits))
        return window

    async def _gather(self, window: range) -> bool:
        """Take in chunks until the window is full or nothing comes any more; whether it is full."""
        while not self._inbox.woken:
            quiet = delay_s(self._pace.quiet, self._fruitless, 0.5 + chance() / 2)
            chunks = await self._inbox.drain(quiet)
            taken = await in_thread(self._store, chunks) if chunks else 0
            if taken:
                self._fruitless, self._idle_s = 0, 0.0
                self._on_bytes(taken)
            elif not chunks:
                self._fruitless += 1
                self._idle_s += quiet if self._link.has_manager else 0.0
                return False
            lacking = self._blob.lacking
            if not any(lacking[window.start : window.stop]):
                return True
        self._fruitless = 0
        return False

    def _store(self, chunks: Sequence[tuple[int, bytes]]) -> int:
        """Verify and write; returns how many bytes were wanted and right."""
        taken = sum(len(data) for index, data in chunks if self._blob.put(index, data))
        now = time.monotonic()
        if self._blob.unsynced >= _SYNC_CHUNKS or now - self._synced > _SYNC_S:
            self._blob.flush()
            self._synced = now
        return taken


def window_of(lacking: Sequence[bool], first: int, most: int) -> range:
    """The stretch from `first` that holds at most `most` lacking chunks and MAX_BITS chunks in all. Pure."""
    count, end = 0, first
    while end < len(lacking) and end - first < MAX_BITS:
        count += lacking[end]
        if count > most:
            break
        end += 1
    return range(first, end)
