"""The goal: one signed document that names each model a device shall run. What is absent is removed."""

import base64
import binascii
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_edge.bundle.manifest import MAX_MANIFEST
from lepton_edge.errors import BundleError, GoalRefusedError, MessageError, SignatureError
from lepton_edge.names import is_name
from lepton_edge.typed import Record, decode, encode
from lepton_edge.wire.chunks import BlobRef
from lepton_edge.wire.signatures import Context, PublicKey, Signature, sign, verify

MAX_GOAL = 512 * 1024

MAX_MODELS = 256
"""What a `reported` message can speak of."""

Positive = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Limits(Record, frozen=True, kw_only=True):
    """What a deployment may cost a device.

    max_candidates: how many variants a device fetches and measures before it chooses.
    memory_bytes: the most memory a loaded variant may need; None: what the device has.
    """

    max_candidates: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2
    memory_bytes: Positive | None = None
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1


class Probation(Record, frozen=True, kw_only=True):
    """How long a newly active variant is watched before it counts as good.

    probation_s: seconds. probation_n: requests below which the golden inputs are run instead.
    max_errors: failed inferences that are still forgiven.
    """

    probation_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 5.0
    probation_n: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    max_errors: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class ModelGoal(Record, frozen=True, kw_only=True):
    """One model of a goal.

    deployment: a retry has a new one; a deployment that ended is never tried again under its id.
    manifest: the manifest's bytes, whose hash is the bundle's identity.
    signature: the operator's, over these bytes.
    """

    deployment: str
    manifest: BlobRef
    signature: Signature
    limits: Limits = Limits()
    probation: Probation = Probation()


class Settings(Record, frozen=True, kw_only=True):
    """Device-wide settings. telemetry_s: seconds per latency window. keep_removed_s: how long a removed model's
    files stay on the device.
    """

    telemetry_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 60.0
    keep_removed_s: Annotated[float, msgspec.Meta(ge=0)] = 7 * 86_400.0


class Goal(Record, frozen=True, kw_only=True):
    """The device's whole goal. counter: max(last + 1, Unix milliseconds) when it was signed."""

    fleet: str
    device: str
    generation: Positive
    counter: Positive
    models: Annotated[dict[str, ModelGoal], msgspec.Meta(max_length=MAX_MODELS)]
    settings: Settings = Settings()
    v: int = 1


class SignedGoal(Record, frozen=True, kw_only=True):
    """The payload of d/{id}/desired. goal: base64 of the Goal's JSON bytes, which are what is signed."""

    keyid: str
    sig: str
    goal: str


def sign_goal(private: Ed25519PrivateKey, goal: Goal) -> bytes:
    """The payload for d/{id}/desired."""
    document = encode(goal)
    signature = sign(private, Context.GOAL, document)
    text = base64.b64encode(document).decode("ascii")
    return encode(SignedGoal(keyid=signature.keyid, sig=signature.sig, goal=text))


def open_goal(payload: bytes, trusted: list[PublicKey]) -> Goal:
    """Read and verify a signed goal; whether it is meant for this device and fresh is `check_addressee`'s matter.

    Raises:
        MessageError: it is malformed, of an unknown version, or names an impossible model or blob.
        SignatureError: no trusted key signed it.
    """
    signed = decode(payload, SignedGoal, what="goal", limit=MAX_GOAL)
    try:
        document = base64.b64decode(signed.goal, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise SignatureError("goal: not base64") from cause
    verify(trusted, Context.GOAL, document, Signature(keyid=signed.keyid, sig=signed.sig), what="goal")
    goal = decode(document, Goal, what="goal", limit=MAX_GOAL)
    for name, model in goal.models.items():
        _check_model(name, model)
    return goal


def _check_model(name: str, model: ModelGoal) -> None:
    if not is_name(name) or not is_name(model.deployment):
        raise MessageError(f"goal: {name[:64]!r} or its deployment {model.deployment[:64]!r} is no allowed name")
    try:
        model.manifest.check(what=f"goal: manifest of {name}", max_size=MAX_MANIFEST)
    except BundleError as cause:
        raise MessageError(str(cause)) from cause


def check_addressee(goal: Goal, *, fleet: str, device: str, generation: int) -> None:
    """Raise GoalRefusedError unless the goal names this fleet, this device and this enrolment."""
    if goal.fleet != fleet:
        raise GoalRefusedError(
            f"goal: for fleet {goal.fleet!r}, this device is in {fleet!r}", reason_code="other-fleet"
        )
    if goal.device != device:
        raise GoalRefusedError(f"goal: for device {goal.device!r}, this is {device!r}", reason_code="other-device")
    if goal.generation != generation:
        raise GoalRefusedError(
            f"goal: for enrolment {goal.generation}, this device's is {generation}", reason_code="other-generation"
        )


def check_fresh(goal: Goal, payload: bytes, held: tuple[int, bytes] | None) -> bool:
    """Whether `goal` is news.

    Args:
        held: counter and payload of the goal that the device holds on disk, if any.

    Returns:
        True: follow it. False: it is the held one, byte for byte: nothing to do, or resume.

    Raises:
        GoalRefusedError: its counter is lower, or equal with other bytes.
    """
    if held is None or goal.counter > held[0]:
        return True
    if goal.counter == held[0] and payload == held[1]:
        return False
    raise GoalRefusedError(
        f"goal: counter {goal.counter} is not above {held[0]}, which this device already follows",
        reason_code="old-counter",
    )
