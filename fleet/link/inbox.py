"""From bytes to messages that are believed: topic, size, enrolment, MAC, body, in this order.

Whatever fails is counted and forgotten; only a wrong MAC is an attack.
"""

import asyncio
import logging

from fleet.registry.counters import UNKNOWN, Tallies
from fleet.registry.devices import Member
from fleet.registry.intake import Incoming
from lepton_edge.errors import AuthenticationError, MessageError
from lepton_edge.wire.authenticator import check, peek
from lepton_edge.wire.messages import LIMITS, Status, decode_body
from lepton_edge.wire.topics import FROM_DEVICE, DeviceTopic, Kind, parse

log = logging.getLogger(__name__)

MAX_WAITING = 4096
MAX_BATCH = 256


class Inbox:
    """A bounded queue of authenticated messages. What does not fit is dropped: devices send again until acknowledged.

    Attributes:
        members: the enrolled devices, kept up to date by the manager.
    """

    def __init__(self, tallies: Tallies) -> None:
        self.members: dict[str, Member] = {}
        self._tallies = tallies
        self._queue: asyncio.Queue[Incoming] = asyncio.Queue(MAX_WAITING)

    def receive(self, topic: str, payload: bytes) -> None:
        """Take in one message from the broker."""
        if not payload:
            return  # a retained message that somebody deleted
        message = self._authenticate(topic, payload)
        if message is None:
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._tallies.count(message.device, "overflow")

    def _authenticate(self, topic: str, payload: bytes) -> Incoming | None:
        try:
            parsed = parse(topic)
        except MessageError:
            parsed = None
        if not isinstance(parsed, DeviceTopic) or parsed.kind not in FROM_DEVICE:
            self._tallies.count(UNKNOWN, "malformed")
            return None
        member = self.members.get(parsed.device)
        if member is None:
            self._tallies.count(UNKNOWN, "unknown-device")
            return None
        try:
            return self._open(parsed, payload, member)
        except AuthenticationError:
            log.info("%s: the MAC is wrong: somebody speaks as %s", topic, parsed.device)
            self._tallies.count(parsed.device, "attack")
        except MessageError as cause:
            log.info("%s", cause)
            self._tallies.count(parsed.device, "malformed")
        return None

    def _open(self, topic: DeviceTopic, payload: bytes, member: Member) -> Incoming | None:
        sealed = peek(payload, topic, limit=LIMITS[topic.kind])
        if sealed.header.generation != member.generation:
            self._tallies.count(topic.device, "other-enrolment")
            return None
        header, body = check(member.key, sealed, topic)
        if header.is_will and topic.kind is not Kind.STATUS:
            raise MessageError(f"{topic}: a will on this topic")
        decoded = Status(state="offline") if header.is_will else decode_body(topic.kind, body)
        return Incoming(topic.device, topic.kind, header, decoded)

    async def batch(self) -> list[Incoming]:
        """Wait for messages; as many as are there, at most MAX_BATCH."""
        found = [await self._queue.get()]
        while len(found) < MAX_BATCH and not self._queue.empty():
            found.append(self._queue.get_nowait())
        return found
