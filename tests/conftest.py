"""Settings and fixtures for all tests."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from fleet.broker.process import BrokerProcess
from tests.brokers import BROKERS, running

# Two busy cores make single examples slow at random: a deadline would report the machine, not the code.
settings.register_profile("short", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

# What runs in the background of a shell ignores SIGINT, and its children inherit that; a user's terminal does not.
signal.signal(signal.SIGINT, signal.default_int_handler)

ONE_BROKER = os.environ.get("LEPTON_TEST_BROKER", "iotcore")
"""Which broker those tests run on that need only one; `make test-long` runs them on each."""


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerProcess]:
    """Each kind of broker in turn."""
    with running(request.param) as process:
        yield process


@pytest.fixture
def one_broker() -> Iterator[BrokerProcess]:
    """The broker that this run is on."""
    with running(ONE_BROKER) as process:
        yield process
