"""The broker's URL, and an aiomqtt client for it."""

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_agent.link.inbound import InboundQueue
from lepton_edge.errors import UsageError
from lepton_edge.wire.messages import MAX_PAYLOAD

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_KEEPALIVE_S = 30
_TIMEOUT_S = 10.0
_ROOM_FOR_TOPIC = 4096


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker listens."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_broker(url: str) -> BrokerAddress:
    """Raises UsageError for anything but mqtt://host[:port] or mqtts://host[:port]."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as cause:
        raise UsageError(f"broker {url!r}: {cause}") from cause
    if parts.scheme not in _PORTS or not host:
        raise UsageError(f"broker {url!r}: expected mqtt://host:port or mqtts://host:port")
    return BrokerAddress(host, port or _PORTS[parts.scheme], parts.scheme == "mqtts")


def make_client(address: BrokerAddress, *, identifier: str, will: aiomqtt.Will) -> aiomqtt.Client:
    """A client for one connection. Nothing is left to the broker's session: all that counts is said again."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho has no annotation there
    properties.MaximumPacketSize = MAX_PAYLOAD + _ROOM_FOR_TOPIC
    return aiomqtt.Client(
        address.host,
        address.port,
        identifier=identifier,
        protocol=aiomqtt.ProtocolVersion.V5,
        will=will,
        clean_start=True,
        keepalive=_KEEPALIVE_S,
        timeout=_TIMEOUT_S,
        properties=properties,
        queue_type=InboundQueue,
        tls_context=ssl.create_default_context() if address.tls else None,
    )
