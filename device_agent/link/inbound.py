"""The queue of received messages: bounded, and a flood of chunks never pushes out a goal or an ack."""

import asyncio

import aiomqtt

from lepton_edge.wire.topics import PREFIX

MAX_CHUNKS_QUEUED = 256
"""16 MiB; what is dropped is asked for again."""
MAX_OTHERS_QUEUED = 1024
_CHUNKS = f"{PREFIX}/blob/"


class InboundQueue(asyncio.Queue[aiomqtt.Message]):
    """aiomqtt takes a queue's class, logs what `put_nowait` refuses, and goes on."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._chunks = 0
        self.dropped_chunks = 0
        self.dropped_others = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Drop and count what does not fit."""
        is_chunk = item.topic.value.startswith(_CHUNKS)
        if is_chunk and self._chunks >= MAX_CHUNKS_QUEUED:
            self.dropped_chunks += 1
            return
        if not is_chunk and self.qsize() - self._chunks >= MAX_OTHERS_QUEUED:
            self.dropped_others += 1
            return
        self._chunks += is_chunk
        super().put_nowait(item)

    def get_nowait(self) -> aiomqtt.Message:
        item = super().get_nowait()
        self._chunks -= item.topic.value.startswith(_CHUNKS)
        return item
