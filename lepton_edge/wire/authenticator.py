"""The authenticator: a header line with an HMAC before each body, so that nobody speaks as somebody else.

Payload = one line of JSON {v, from, device, generation, boot, seq, mac}, LF, body. The MAC is HMAC-SHA256 under the
key of the device's enrolment, over

    lepton-edge 1 LF from LF device LF generation LF boot LF seq LF topic LF body

with decimal integers; seq is empty in the will, because a will is written before the session it ends has a number.
A broker without any rules can then withhold or repeat messages, but not forge one.
"""

import hashlib
import hmac
from typing import Literal, NamedTuple

from lepton_edge.errors import AuthenticationError, MessageError
from lepton_edge.typed import Record, decode, encode
from lepton_edge.wire.topics import DeviceTopic, Kind

KEY_SIZE = 32
MAX_HEADER = 1024
_CONTEXT = "lepton-edge 1"

Speaker = Literal["device", "manager"]


class Order(NamedTuple):
    """What decides which of two messages on one topic is newer; a will has seq 0, below all others of its boot."""

    generation: int
    boot: int
    seq: int


class Header(Record, frozen=True, kw_only=True, rename={"speaker": "from"}):
    """The first line of an authenticated payload."""

    speaker: Speaker
    device: str
    generation: int
    boot: int
    seq: int | None
    mac: str
    v: int = 1

    def __post_init__(self) -> None:
        numbers = (self.generation, self.boot, self.seq or 0)
        if not all(0 <= number < 2**63 for number in numbers):
            raise ValueError("generation, boot and seq must be natural numbers below 2^63")

    @property
    def order(self) -> Order:
        return Order(self.generation, self.boot, self.seq or 0)

    @property
    def is_will(self) -> bool:
        return self.seq is None


class Sealed(NamedTuple):
    """An authenticated payload, taken apart."""

    header: Header
    body: bytes


def _mac(key: bytes, speaker: Speaker, order: tuple[int, int, int | None], topic: DeviceTopic, body: bytes) -> str:
    generation, boot, seq = order
    number = "" if seq is None else str(seq)
    prefix = "\n".join([_CONTEXT, speaker, topic.device, str(generation), str(boot), number, str(topic), ""])
    return hmac.new(key, prefix.encode() + body, hashlib.sha256).hexdigest()


def seal(
    key: bytes, topic: DeviceTopic, body: bytes, *, speaker: Speaker, generation: int, boot: int, seq: int | None
) -> bytes:
    """Put the header line before `body`.

    Args:
        key: the enrolment's 32 bytes.
        seq: starts at 1 with each boot and is fresh for each publish; None in the will.
    """
    mac = _mac(key, speaker, (generation, boot, seq), topic, body)
    header = Header(speaker=speaker, device=topic.device, generation=generation, boot=boot, seq=seq, mac=mac)
    return encode(header) + b"\n" + body


def peek(payload: bytes, topic: DeviceTopic, *, limit: int) -> Sealed:
    """Take a payload apart WITHOUT checking its MAC: only for choosing the key by device and generation.

    Raises:
        MessageError: too large, no header, another device than the topic's, or the wrong side for the topic.
    """
    if len(payload) > limit + MAX_HEADER:
        raise MessageError(f"{topic}: {len(payload)} bytes, at most {limit} are accepted")
    line, found, body = payload.partition(b"\n")
    if not found:
        raise MessageError(f"{topic}: no authenticator line")
    header = decode(line, Header, what=f"{topic}: authenticator", limit=MAX_HEADER)
    if header.device != topic.device:
        raise MessageError(f"{topic}: written by device {header.device[:64]!r}")
    expected = "manager" if topic.kind is Kind.ACK else "device"
    if header.speaker != expected:
        raise MessageError(f"{topic}: written by a {header.speaker}, expected a {expected}")
    return Sealed(header, body)


def check(key: bytes, sealed: Sealed, topic: DeviceTopic) -> Sealed:
    """Return `sealed` if its MAC is right under `key`. Raises AuthenticationError."""
    header = sealed.header
    order = (header.generation, header.boot, header.seq)
    want = _mac(key, header.speaker, order, topic, sealed.body)
    if not hmac.compare_digest(want.encode(), header.mac.encode()):
        raise AuthenticationError(f"{topic}: the MAC is wrong")
    return sealed


def unseal(key: bytes, payload: bytes, topic: DeviceTopic, *, limit: int) -> Sealed:
    """`peek`, then `check`."""
    return check(key, peek(payload, topic, limit=limit), topic)
