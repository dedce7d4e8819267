"""The embedded broker: iotcore (rumqttd in a wheel), on loopback only, because it has no topic rules.

It keeps what it has not yet delivered in memory, per subscription filter, up to SEGMENTS segments of SEGMENT_BYTES:
a reader that falls further behind loses messages, which the protocol repairs (needs are asked again, reports are sent
until acknowledged).
"""

import sys
from typing import ClassVar

from fleet.broker.process import BrokerProcess
from lepton_edge import durable
from lepton_edge.wire.messages import MAX_PAYLOAD

SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENTS = 4
MAX_CONNECTIONS = 10_000
OUTGOING_PACKETS = 200
"""Packets on their way to one client; more wait in the log of their filter."""
_TOPIC_ROOM = 4096

# MQTT 5 listens under [v5.N] only; max_payload_size counts the whole packet.
_CONFIGURATION = """\
id = 0

[router]
id = 0
max_connections = {connections}
max_outgoing_packet_count = {outgoing}
max_segment_size = {segment_bytes}
max_segment_count = {segments}

[v5.1]
name = "v5-1"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = {payload}
max_inflight_count = 1000
"""


class EmbeddedBroker(BrokerProcess):
    """iotcore as a child that ends with its parent."""

    name: ClassVar[str] = "iotcore"

    def command(self) -> list[str]:
        path = self.folder / "iotcore.toml"
        text = _CONFIGURATION.format(
            connections=MAX_CONNECTIONS,
            outgoing=OUTGOING_PACKETS,
            segment_bytes=SEGMENT_BYTES,
            segments=SEGMENTS,
            host=self.host,
            port=self.port,
            payload=MAX_PAYLOAD + _TOPIC_ROOM,
        )
        durable.write(path, text.encode())
        # -P: a fleet folder in the working directory must not be taken for this package.
        return [sys.executable, "-P", "-m", "fleet.broker.child", str(path)]
