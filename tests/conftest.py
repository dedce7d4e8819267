"""Fixtures for all rooms."""

from collections.abc import Iterator

import pytest

from fleet.broker.process import BrokerProcess
from tests.brokers import BROKERS, iotcore_broker, mosquitto_broker, running


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerProcess]:
    """Each kind of broker in turn."""
    with running(request.param) as process:
        yield process


@pytest.fixture
def iotcore() -> Iterator[BrokerProcess]:
    with iotcore_broker() as process:
        yield process


@pytest.fixture
def mosquitto() -> Iterator[BrokerProcess]:
    with mosquitto_broker() as process:
        yield process
