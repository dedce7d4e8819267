"""What everything else relies on: the brokers start, carry our largest message, die and come back."""

import os
import subprocess
import sys
import threading
import time

import aiomqtt
import pytest

from fleet.broker.embedded import EmbeddedBroker
from fleet.broker.process import BrokerProcess, answers, free_port
from lepton_edge.errors import ConnectionFailedError
from lepton_edge.wire.messages import MAX_PAYLOAD
from tests.brokers import BROKERS


def client(broker: BrokerProcess) -> aiomqtt.Client:
    return aiomqtt.Client(broker.host, broker.port, protocol=aiomqtt.ProtocolVersion.V5)


async def test_largest_message_passes(broker: BrokerProcess) -> None:
    payload = os.urandom(MAX_PAYLOAD)
    async with client(broker) as reader, client(broker) as writer:
        await reader.subscribe("lep/v1/d/+/desired", qos=1)
        await writer.publish("lep/v1/d/a/desired", payload, qos=1, retain=True)
        message = await anext(reader.messages)
        assert message.payload == payload


async def test_killed_broker_comes_back_on_its_port(broker: BrokerProcess) -> None:
    url = broker.url
    broker.kill()
    assert not answers(broker.host, broker.port)
    broker.restart()
    assert broker.url == url
    async with client(broker) as writer:
        await writer.publish("lep/v1/d/a/tele", b"x", qos=1)


async def test_burst_of_chunks_reaches_a_reader_that_keeps_up(broker: BrokerProcess) -> None:
    chunk, count = os.urandom(64 * 1024), 100
    async with client(broker) as reader, client(broker) as writer:
        await reader.subscribe("lep/v1/blob/+/+", qos=0)
        for index in range(count):
            await writer.publish(f"lep/v1/blob/{'a' * 64}/{index}", chunk, qos=0)
        for index in range(count):
            message = await anext(reader.messages)
            assert str(message.topic).endswith(f"/{index}")


@pytest.mark.parametrize("name", sorted(BROKERS))
def test_port_in_use_is_one_clear_line(name: str, broker: BrokerProcess, tmp_path) -> None:
    other = BROKERS[name](tmp_path, port=broker.port)
    with pytest.raises(ConnectionFailedError, match=f"{broker.port}.*in use"):
        other.start()


def test_embedded_broker_dies_with_its_parent(tmp_path) -> None:
    port = free_port()
    program = (
        "import os, signal, pathlib; from fleet.broker.embedded import EmbeddedBroker; "
        f"b = EmbeddedBroker(pathlib.Path({str(tmp_path)!r}), port={port}); b.start(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
    deadline = time.monotonic() + 10
    while answers("127.0.0.1", port):
        assert time.monotonic() < deadline, "the broker outlived its parent"


def test_two_that_start_at_once_never_share_a_broker(tmp_path) -> None:
    """Both find the port free; only one may come out of `start` with it."""
    port, results = free_port(), []
    barrier = threading.Barrier(2)

    def start(name: str) -> None:
        broker = EmbeddedBroker(tmp_path / name, port=port)
        broker._check_port = lambda: None if (tmp_path / name).exists() else barrier.wait()
        try:
            broker.start()
        except ConnectionFailedError:
            results.append(None)
        else:
            results.append(broker)

    threads = [threading.Thread(target=start, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    brokers = [broker for broker in results if broker is not None]
    for broker in brokers:
        broker.kill()
    assert len(brokers) == 1
