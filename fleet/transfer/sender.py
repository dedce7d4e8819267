"""Publishes the union of all needs, once, paced."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from fleet.core.needs import Chunk, NeedBoard
from fleet.core.pace import Pace
from fleet.registry.counters import UNKNOWN, Tallies
from fleet.transfer.blobs import BlobStore
from fleet.transfer.judge import Wanted
from lepton_edge.errors import StorageError
from lepton_edge.wire.chunks import BlobRef
from lepton_edge.wire.topics import chunk_topic

log = logging.getLogger(__name__)

BURST = 8
"""Chunks between two looks at the clock."""
_MAX_BLOBS = 1024


class Sender:
    """The one publisher of chunks."""

    def __init__(
        self,
        blobs: BlobStore,
        publish: Callable[[str, bytes], Awaitable[bool]],
        *,
        most_bytes_s: float,
        tallies: Tallies,
    ) -> None:
        self._blobs = blobs
        self._publish = publish
        self._most = most_bytes_s
        self._tallies = tallies
        self._board = NeedBoard()
        self._pace = Pace(rate=min(Pace().rate, most_bytes_s))
        self._refs: dict[str, tuple[BlobRef, str]] = {}
        self._work = asyncio.Event()
        self._bytes: Counter[str] = Counter()

    def add(self, wanted: Wanted) -> None:
        """Take in what a device lacks."""
        now = asyncio.get_running_loop().time()
        if len(self._board) == 0 and len(self._refs) > _MAX_BLOBS:
            self._refs.clear()
        self._refs[wanted.ref.sha256] = wanted.ref, wanted.rollout
        lost = self._board.add(wanted.ref.sha256, wanted.numbers, now)
        if lost:
            self._tallies.count(UNKNOWN, "chunk-asked-again", lost)
            self._pace = self._pace.lost(now)
        self._work.set()

    def take_bytes(self) -> dict[str, int]:
        """Bytes published since the last call, by rollout."""
        taken, self._bytes = self._bytes, Counter()
        return dict(taken)

    async def run(self) -> None:
        """Publish until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wait(self._board.wait_s(loop.time()))
            began, size = loop.time(), 0
            for chunk in self._board.take(began, BURST):
                size += await self._send(chunk)
            await asyncio.sleep(max(0.0, self._pace.seconds(size) - (loop.time() - began)))
            self._pace = self._pace.sent(size, self._most)

    async def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            self._work.clear()
            await self._work.wait()
        elif seconds > 0:
            await asyncio.sleep(seconds)

    async def _send(self, chunk: Chunk) -> int:
        """Publish one chunk; returns how many bytes went out."""
        ref, rollout = self._refs[chunk.blob]
        try:
            data = await asyncio.to_thread(self._blobs.read_chunk, ref, chunk.number)
        except StorageError as cause:
            log.error("%s", cause)  # noqa: TRY400 - the disk's fault, its message says it all
            self._tallies.count(UNKNOWN, "blob-damaged")
            return 0
        if not await self._publish(chunk_topic(chunk.blob, chunk.number), data):
            return 0  # the devices ask again
        self._bytes[rollout] += len(data)
        return len(data)
