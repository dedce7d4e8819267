"""The broker and the manager fall in the middle of a push: it completes, nothing held is sent again, nothing is counted
twice. On both brokers.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from lepton_edge.bundle import Bundle
from lepton_edge.demo.traffic import Known, Traffic
from lepton_edge.wire import topics
from tests.brokers import BROKERS
from tests.system.world import World, bundle, kill, until, world

WIDTH = 1500
"""9 MB of weights: a push that takes long enough to fall into."""


class Sniffer:
    """Counts the chunks that are published, by blob and index, through every restart of the broker."""

    def __init__(self, host: str, port: int) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, client_id="sniffer")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{topics.PREFIX}/blob/+/+")
        self._client.on_message = self._count
        self._client.connect(host, port)
        self._client.loop_start()

    def _count(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        assert isinstance(topic, topics.ChunkTopic)
        with self._lock:
            key = (topic.blob, topic.index)
            self.counts[key] = self.counts.get(key, 0) + 1

    def snapshot(self) -> dict[tuple[str, int], int]:
        with self._lock:
            return dict(self.counts)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def sniffing(stage: World) -> Iterator[Sniffer]:
    host, _, port = stage.broker.url.removeprefix("mqtt://").partition(":")
    sniffer = Sniffer(host, int(port))
    try:
        yield sniffer
    finally:
        sniffer.close()
