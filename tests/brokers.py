"""Real brokers for tests: `.url`, `.kill()` (SIGKILL), `.restart()` on the same port.

    with running("mosquitto") as broker: ...

or the fixtures of tests/conftest.py: `broker` (each test runs on both), `one_broker` (the one that this run is on).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.broker.embedded import EmbeddedBroker
from fleet.broker.mosquitto import MosquittoBroker, mosquitto_path
from fleet.broker.process import BrokerProcess
from lepton_edge.errors import ConnectionFailedError

BROKERS: dict[str, type[BrokerProcess]] = {"iotcore": EmbeddedBroker, "mosquitto": MosquittoBroker}


@contextmanager
def running(name: str, port: int = 0) -> Iterator[BrokerProcess]:
    """A broker of the kind `name` that lives as long as the block; skips the test where mosquitto is not installed."""
    if name == MosquittoBroker.name:
        try:
            mosquitto_path()
        except ConnectionFailedError as missing:
            pytest.skip(str(missing))
    with tempfile.TemporaryDirectory(prefix="lepton-broker-") as folder:
        broker = BROKERS[name](Path(folder), port=port)
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()
