"""Real brokers for tests: `.url`, `.kill()` (SIGKILL), `.restart()` on the same port.

    with iotcore_broker() as broker: ...

or the fixtures of tests/conftest.py: `broker` (each test runs on both), `iotcore`, `mosquitto`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.broker.embedded import EmbeddedBroker
from fleet.broker.mosquitto import MosquittoBroker
from fleet.broker.process import BrokerProcess

BROKERS: dict[str, type[BrokerProcess]] = {"iotcore": EmbeddedBroker, "mosquitto": MosquittoBroker}


@contextmanager
def running(name: str, port: int = 0) -> Iterator[BrokerProcess]:
    """A broker of the kind `name` that lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="lepton-broker-") as folder:
        broker = BROKERS[name](Path(folder), port=port)
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()


def iotcore_broker(port: int = 0):
    return running("iotcore", port)


def mosquitto_broker(port: int = 0):
    return running("mosquitto", port)
