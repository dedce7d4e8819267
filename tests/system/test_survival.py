"""The broker and the manager fall in the middle of a push: it completes, nothing held is sent again, nothing is counted
twice. On both brokers.
"""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from lepton_edge.bundle import Bundle
from lepton_edge.demo.stage import PROGRAM, Service
from lepton_edge.demo.traffic import Known, Traffic
from lepton_edge.wire import topics
from tests.brokers import BROKERS
from tests.system.world import World, bundle, kill, until, world

WIDTH = 3500
"""49 MB of weights: a push that takes long enough to fall into."""
ENOUGH = 100
"""Chunks that the device holds when the fall comes."""


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


def held_on_disk(stage: World, device: str) -> dict[str, set[int]]:
    """The chunks that the device's bitmaps claim: blob -> indices."""
    held: dict[str, set[int]] = {}
    for path in (stage.state(device) / "partial").glob("*.have"):
        document = json.loads(path.read_text())
        claims = base64.b64decode(document["have"])
        held[document["blob"]] = {index for index, byte in enumerate(claims) if byte}
    return held


def in_the_middle(stage: World, device: str) -> dict[str, set[int]] | None:
    """What is held, once enough of it is; None before."""
    held = held_on_disk(stage, device)
    return held if sum(map(len, held.values())) >= ENOUGH else None


def begin_push(stage: World, path: Path) -> subprocess.Popen[str]:
    words = [*PROGRAM, "push", str(path), "--to", "all", "--wait", "--timeout", "90s", "--probation", "0.2s", "--json"]
    return subprocess.Popen(words, env=stage.env, stdout=subprocess.PIPE, text=True)


def fall(stage: World, who: str) -> None:
    """SIGKILL, then start again."""
    if who == "broker":
        stage.broker.kill()
        stage.broker.restart()
    else:
        kill(stage.manager)
        stage.start_manager(init=False)


Made = dict[str, tuple[Path, Bundle]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        name: bundle(folder, name, "1", seed=width, width=width) for name, width in (("small", 64), ("large", WIDTH))
    }


@pytest.mark.parametrize("who", ["broker", "manager"])
@pytest.mark.parametrize("broker", BROKERS)
def test_a_push_survives_a_fall_in_the_middle(tmp_path: Path, made: Made, broker: str, who: str) -> None:
    (small_path, small), (large_path, large) = made["small"], made["large"]
    with world(tmp_path, broker) as stage:
        agent: Service = stage.start_agent("cam")
        stage.command("push", small_path, "--to", "all", "--wait", "--probation", "0.2s")
        with (
            Traffic({"cam": agent.http}, Known([small]), per_second=20) as traffic,
            sniffing(stage) as sniffer,
            begin_push(stage, large_path) as push,
        ):
            held = until(lambda: in_the_middle(stage, "cam"), what="a download in the middle")
            fall(stage, who)
            before = sniffer.snapshot()
            until(lambda: committed(stage, "cam", "large"), what="the push completes")
            push.wait()
        after = sniffer.snapshot()
        again = {key for key, count in after.items() if count > before.get(key, 0)}
        sent_again = {(blob, index) for blob, index in again if index in held.get(blob, set())}
        assert again, "the fall came after the last chunk: nothing was tested"
        assert sent_again == set()
        assert (traffic.bad, stage.devices()["cam"]["models"]["large"]["serving"]) == (0, large.digest)
        asked = traffic.right
        until(lambda: stage.telemetry_count("small") >= asked, what="all telemetry")
        assert stage.telemetry_count("small") == asked


def committed(stage: World, device: str, model: str) -> bool:
    report = stage.devices().get(device, {}).get("models", {}).get(model)
    return report is not None and report["state"] == "committed"
