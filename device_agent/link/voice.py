"""The device's voice on its own topics: each message numbered and authenticated; and its ear for what answers them."""

from collections.abc import Iterable
from typing import NamedTuple

from device_agent.store.boot import BootCounter
from lepton_edge.errors import MessageError
from lepton_edge.telemetry.window import Window
from lepton_edge.typed import encode
from lepton_edge.wire.authenticator import Order, seal, unseal
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.messages import LIMITS, Ack, Status, Telemetry, decode_body
from lepton_edge.wire.topics import DeviceTopic, Kind


class Outgoing(NamedTuple):
    """A sealed message, and the order that it carries."""

    topic: str
    payload: bytes
    order: Order


class Voice:
    """Seals and checks; seq starts at 1 with each boot number."""

    def __init__(self, enrolment: Enrolment, boots: BootCounter) -> None:
        self._enrolment = enrolment
        self._boots = boots
        self._boot = 0
        self._seq = 0

    def next(self, kind: Kind, body: bytes) -> Outgoing:
        """A message with a fresh number; each publish takes one, a repetition too."""
        if self._boot != self._boots.boot:
            self._boot, self._seq = self._boots.boot, 0
        self._seq += 1
        order = Order(self._enrolment.generation, self._boot, self._seq)
        topic = DeviceTopic(self._enrolment.device, kind)
        return Outgoing(str(topic), self._seal(topic, body, boot=self._boot, seq=self._seq), order)

    def will(self) -> tuple[str, bytes]:
        """Topic and payload of the last will; it has no number."""
        topic = DeviceTopic(self._enrolment.device, Kind.STATUS)
        return str(topic), self._seal(topic, encode(Status(state="offline")), boot=self._boots.boot, seq=None)

    def is_own_online(self, payload: bytes) -> bool:
        """Whether a status message is one in which this device says that it is there."""
        topic = DeviceTopic(self._enrolment.device, Kind.STATUS)
        try:
            sealed = unseal(self._enrolment.secret, payload, topic, limit=LIMITS[Kind.STATUS])
            return decode_body(Kind.STATUS, sealed.body) == Status(state="online")
        except MessageError:
            return False

    def read_ack(self, payload: bytes) -> Ack:
        """An ack of the manager.

        Raises:
            AuthenticationError: the MAC is wrong: it may be anybody's.
            MessageError: it is malformed, or of another enrolment.
        """
        topic = DeviceTopic(self._enrolment.device, Kind.ACK)
        sealed = unseal(self._enrolment.secret, payload, topic, limit=LIMITS[Kind.ACK])
        ack = decode_body(Kind.ACK, sealed.body)
        if not isinstance(ack, Ack) or sealed.header.generation != self._enrolment.generation:
            raise MessageError(f"ack: of enrolment {sealed.header.generation}, this is {self._enrolment.generation}")
        return ack

    def _seal(self, topic: DeviceTopic, body: bytes, *, boot: int, seq: int | None) -> bytes:
        generation = self._enrolment.generation
        return seal(self._enrolment.secret, topic, body, speaker="device", generation=generation, boot=boot, seq=seq)


def fitting(windows: Iterable[Window]) -> list[Window]:
    """The first of the windows that fit one telemetry message together. Pure."""
    batch: list[Window] = []
    size = len(encode(Telemetry(windows=[])))
    for window in windows:
        size += len(encode(window)) + 1
        if size > LIMITS[Kind.TELE]:
            break
        batch.append(window)
    return batch
