"""The broker's URL."""

import pytest

from lepton_edge.errors import NotYetSupportedError, UsageError
from lepton_edge.wire.broker import BrokerAddress, parse_broker


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://10.0.0.1:1884", BrokerAddress("10.0.0.1", 1884)),
        ("mqtt://host", BrokerAddress("host", 1883)),
        ("mqtt://[::1]:9", BrokerAddress("::1", 9)),
    ],
)
def test_broker_urls(url: str, address: BrokerAddress) -> None:
    assert parse_broker(url) == address


@pytest.mark.parametrize("url", ["", "host:1883", "http://host", "mqtt://", "mqtt://host:port", "mqtt://host:99999"])
def test_other_urls_are_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="broker"):
        parse_broker(url)


def test_tls_is_not_yet() -> None:
    with pytest.raises(NotYetSupportedError, match="not yet: TLS"):
        parse_broker("mqtts://host")


def test_an_address_gives_its_url_back() -> None:
    for url in ("mqtt://host:1884", "mqtt://[::1]:9"):
        assert parse_broker(url).url == url
