"""An aiomqtt client for one connection to the broker."""

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_agent.link.inbound import InboundQueue
from lepton_edge.wire.broker import BrokerAddress
from lepton_edge.wire.messages import MAX_PAYLOAD
from lepton_edge.wire.mqtt import NO_DELAY

_KEEPALIVE_S = 30
_TIMEOUT_S = 10.0
_ROOM_FOR_TOPIC = 4096


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
        socket_options=NO_DELAY,
    )
