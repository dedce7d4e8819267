"""The topics of DESIGN: fixed depth below one versioned prefix, built and parsed here only."""

from dataclasses import dataclass
from enum import StrEnum

from lepton_edge.errors import MessageError
from lepton_edge.names import check_name, is_name
from lepton_edge.wire.chunks import MAX_CHUNKS, is_digest

PREFIX = "lep/v1"


class Kind(StrEnum):
    """The last level of a device's topic."""

    STATUS = "status"
    INFO = "info"
    DESIRED = "desired"
    REPORTED = "reported"
    TELE = "tele"
    NEED = "need"
    ACK = "ack"


FROM_DEVICE = (Kind.STATUS, Kind.INFO, Kind.REPORTED, Kind.TELE, Kind.NEED)
"""What a manager subscribes to, for every device."""
_KINDS = frozenset(kind.value for kind in Kind)
RETAINED = frozenset({Kind.STATUS, Kind.INFO, Kind.DESIRED, Kind.REPORTED})


@dataclass(frozen=True)
class DeviceTopic:
    """`lep/v1/d/{device}/{kind}`."""

    device: str
    kind: Kind

    def __str__(self) -> str:
        return f"{PREFIX}/d/{self.device}/{self.kind}"


@dataclass(frozen=True)
class ChunkTopic:
    """`lep/v1/blob/{sha256}/{n}`."""

    blob: str
    index: int

    def __str__(self) -> str:
        return f"{PREFIX}/blob/{self.blob}/{self.index}"


@dataclass(frozen=True)
class ManagerTopic:
    """`lep/v1/mgr/{manager}/status`."""

    manager: str

    def __str__(self) -> str:
        return f"{PREFIX}/mgr/{self.manager}/status"


Topic = DeviceTopic | ChunkTopic | ManagerTopic


def device_topic(device: str, kind: Kind) -> str:
    """Raises UsageError for an id that a topic could not hold."""
    return str(DeviceTopic(check_name(device, what="device id"), kind))


def chunk_topic(blob: str, index: int) -> str:
    return str(ChunkTopic(blob, index))


def all_chunks_of(blob: str) -> str:
    """The subscription filter for one blob's chunks."""
    return f"{PREFIX}/blob/{blob}/+"


def manager_topic(manager: str) -> str:
    return str(ManagerTopic(check_name(manager, what="manager id")))


def from_all_devices() -> list[str]:
    """The subscription filters of a manager."""
    return [f"{PREFIX}/d/+/{kind}" for kind in FROM_DEVICE]


def parse(topic: str) -> Topic:
    """Read a topic that somebody published to.

    Raises:
        MessageError: it is not one of ours.
    """
    match topic.split("/"):
        case ["lep", "v1", "d", device, kind] if is_name(device) and kind in _KINDS:
            return DeviceTopic(device, Kind(kind))
        case ["lep", "v1", "blob", blob, index] if is_digest(blob) and _is_index(index):
            return ChunkTopic(blob, int(index))
        case ["lep", "v1", "mgr", manager, "status"] if is_name(manager):
            return ManagerTopic(manager)
    raise MessageError(f"topic {topic[:120]!r} is none of lepton-edge's")


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6 and str(int(text)) == text and int(text) < MAX_CHUNKS
