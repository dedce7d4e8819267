"""What goes over the API, both ways. Unknown fields are tolerated; a changed meaning gets a new path."""

from typing import Annotated

import msgspec

from fleet.telemetry.lines import By, Line
from lepton_edge.typed import Record
from lepton_edge.wire.goal import Limits, Probation
from lepton_edge.wire.messages import Digest, Info, ModelReport, Refusal
from lepton_edge.wire.signatures import Signature

MAX_REQUEST = 12 * 1024 * 1024
"""A manifest of 8 MiB in base64, with room."""


class Problem(Record, frozen=True, kw_only=True):
    """The body of every error."""

    code: str
    message: str


class PublishRequest(Record, frozen=True, kw_only=True):
    """manifest: base64 of its bytes."""

    manifest: str
    signature: Signature


class PublishAnswer(Record, frozen=True, kw_only=True):
    """missing: blobs to upload before asking again; published when there are none."""

    bundle: str
    digest: str
    published: bool
    missing: list[str]


class Bundles(Record, frozen=True, kw_only=True):
    """digests: of all published bundles -> NAME-VERSION."""

    digests: dict[str, str]


class RolloutRequest(Record, frozen=True, kw_only=True):
    """to: as `push --to`. dry_run: only say what would happen; the bundle need not be published then."""

    digest: Digest
    name: str
    version: str
    to: Annotated[str, msgspec.Meta(max_length=64 * 1024)]
    dry_run: bool = False
    limits: Limits = Limits()
    probation: Probation = Probation()


class RolloutDevice(Record, frozen=True, kw_only=True):
    """One device of a rollout; the figures are of the variant that it chose, None before it has.

    why: the device's reason for its choice.
    """

    id: str
    state: str
    code: str
    reason: str
    variant: str
    runtime: str
    p50_ms: float | None
    p99_ms: float | None
    progress: float
    fetched_bytes: int
    status: str
    why: str = ""


class Rollout(Record, frozen=True, kw_only=True):
    """`push --wait`'s document. revision: to wait for the next change."""

    rollout: str
    state: str
    bundle: str
    devices: list[RolloutDevice]
    bytes_published: int
    seconds: float
    revision: int = 0


class Rollouts(Record, frozen=True, kw_only=True):
    rollouts: list[Rollout]


class EnrolRequest(Record, frozen=True, kw_only=True):
    labels: dict[str, str] = {}


class DeviceLine(Record, frozen=True, kw_only=True):
    """A device as `devices` shows it.

    adopt: it follows goals that this manager does not know. blocked: why nothing is signed for it, empty where it may.
    counts: what was dropped, refused or attacked.
    """

    id: str
    status: str
    generation: int
    seen_ms: int
    labels: dict[str, str]
    adopt: bool
    blocked: str
    counter: int
    reported_counter: int
    models: dict[str, ModelReport]
    goal: dict[str, str]
    refused: Refusal | None
    info: Info | None
    counts: dict[str, int]


class Devices(Record, frozen=True, kw_only=True):
    """bundles: digest -> NAME-VERSION of all that is published here. unattributed: counts of messages that name no
    enrolled device. revision: to wait for the next change.
    """

    devices: list[DeviceLine]
    bundles: dict[str, str]
    unattributed: dict[str, int]
    revision: int = 0


class AdoptRequest(Record, frozen=True, kw_only=True):
    """device: an id, or "all" that need it."""

    device: str


class RemoveRequest(Record, frozen=True, kw_only=True):
    model: str
    to: Annotated[str, msgspec.Meta(max_length=64 * 1024)]


class DeviceIds(Record, frozen=True, kw_only=True):
    """The devices that an operation changed."""

    devices: list[str]


class TelemetryAnswer(Record, frozen=True, kw_only=True):
    by: By
    lines: list[Line]


class FleetAnswer(Record, frozen=True, kw_only=True):
    fleet: str
    version: str
    broker: str
    connected: bool
    operator_keys: list[str]
