"""The bodies of the authenticated messages, with the most bytes that each may have.

Their version is the `v` of the authenticator line before them.
"""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from lepton_edge.names import PATTERN
from lepton_edge.telemetry.window import Window, WindowId
from lepton_edge.typed import Record, decode
from lepton_edge.wire.chunks import MAX_BITS, MAX_CHUNKS
from lepton_edge.wire.goal import MAX_MODELS
from lepton_edge.wire.topics import Kind

Short = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Name = Annotated[str, msgspec.Meta(pattern=f"^{PATTERN}$")]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class State(StrEnum):
    """The deployment states: the words of journal, `reported`, database and JSON alike."""

    PENDING = "pending"
    VERIFYING_META = "verifying-meta"
    PREFLIGHT = "preflight"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STAGING = "staging"
    SELF_TESTING = "self-testing"
    ACTIVATING = "activating"
    PROBATION = "probation"
    COMMITTED = "committed"
    WAITING = "waiting"
    ROLLING_BACK = "rolling-back"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.COMMITTED, State.FAILED, State.CANCELLED})


class Status(Record, frozen=True, kw_only=True):
    """d/{id}/status."""

    state: Literal["online", "offline"]


class RuntimeInfo(Record, frozen=True, kw_only=True):
    """A runtime that a device has, with its version and the back ends that it offers."""

    name: Short
    version: Short
    providers: Annotated[list[Short], msgspec.Meta(max_length=64)] = []


class Info(Record, frozen=True, kw_only=True):
    """d/{id}/info: what the device is. Sizes in bytes."""

    agent: Short
    system: Short
    machine: Short
    cpu: Short
    cpu_flags: Annotated[list[Short], msgspec.Meta(max_length=512)]
    cores: Natural
    memory: Natural
    disk_free: Natural
    runtimes: Annotated[list[RuntimeInfo], msgspec.Meta(max_length=32)]
    labels: Annotated[dict[Short, Short], msgspec.Meta(max_length=64)] = {}


class Choice(Record, frozen=True, kw_only=True):
    """What a device measured when it chose.

    Latencies in milliseconds. fetched: bytes of chunks that it took in. reason: for people, why this variant.
    """

    variant: Short
    runtime: Short
    p50_ms: float
    p99_ms: float
    golden_ratio: float
    fetched: Natural = 0
    reason: Text = ""


class ModelReport(Record, frozen=True, kw_only=True):
    """Where one model stands.

    deployment: what the goal names. bundle: the digest of the manifest that it names.
    serving: the digest of the manifest that answers requests, empty where none does.
    choice: of the serving variant, or of the one on trial while a deployment runs.
    measured: all variants that the deployment measured.
    progress: share of the bytes fetched while downloading.
    until_ms, returns_to: only in `waiting`.
    """

    deployment: Name
    state: State
    bundle: Digest
    version: Short = ""
    code: Short = ""
    reason: Text = ""
    serving: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    choice: Choice | None = None
    measured: Annotated[list[Choice], msgspec.Meta(max_length=32)] = []
    progress: float = 0.0
    until_ms: Natural = 0
    returns_to: State | None = None


class Refusal(Record, frozen=True, kw_only=True):
    """A goal that the device did not follow, and why."""

    code: Short
    reason: Text
    counter: Natural | None = None


class Reported(Record, frozen=True, kw_only=True):
    """d/{id}/reported. counter: of the goal that the device follows, 0 where none; refused: the last goal refused
    since then.
    """

    counter: Natural
    models: Annotated[dict[Name, ModelReport], msgspec.Meta(max_length=MAX_MODELS)]
    refused: Refusal | None = None


class Telemetry(Record, frozen=True, kw_only=True):
    """d/{id}/tele."""

    windows: Annotated[list[Window], msgspec.Meta(max_length=64)]


class Need(Record, frozen=True, kw_only=True):
    """d/{id}/need: chunks of one blob that the device lacks. first: index of the first bit; bits: `pack_bits`."""

    blob: Digest
    first: Annotated[int, msgspec.Meta(ge=0, lt=MAX_CHUNKS)] = msgspec.field(name="from")
    bits: Annotated[str, msgspec.Meta(max_length=4 * ((MAX_BITS // 8 + 2) // 3))]


class Seen(Record, frozen=True, kw_only=True):
    """The order of the last message of one kind that the manager has committed."""

    generation: Natural
    boot: Natural
    seq: Natural


class Ack(Record, frozen=True, kw_only=True):
    """d/{id}/ack: what is committed in the manager's database.

    boot: the highest boot known of the device; one that is below takes that + 1 and publishes again.
    """

    boot: Natural
    seen: dict[Kind, Seen] = {}
    windows: Annotated[list[WindowId], msgspec.Meta(max_length=1024)] = []


class ManagerStatus(Record, frozen=True, kw_only=True):
    """mgr/{manager}/status, retained, not authenticated: devices act on nothing in it but to publish again."""

    state: Literal["online", "offline"]
    started_ms: Natural = 0
    v: int = 1


Body = Status | Info | Reported | Telemetry | Need | Ack

BODIES: dict[Kind, type[Body]] = {
    Kind.STATUS: Status,
    Kind.INFO: Info,
    Kind.REPORTED: Reported,
    Kind.TELE: Telemetry,
    Kind.NEED: Need,
    Kind.ACK: Ack,
}
LIMITS: dict[Kind, int] = {
    Kind.STATUS: 1024,
    Kind.INFO: 64 * 1024,
    Kind.REPORTED: 256 * 1024,
    Kind.TELE: 512 * 1024,
    Kind.NEED: 2048,
    Kind.ACK: 64 * 1024,
}
MAX_PAYLOAD = 768 * 1024
"""What a broker must let pass: the largest message with its authenticator."""


def decode_body(kind: Kind, body: bytes) -> Body:
    """Raises MessageError."""
    return decode(body, BODIES[kind], what=f"{kind} message", limit=LIMITS[kind])
