"""Registry rows as the API's documents."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.api.documents import DeviceLine, Devices, Rollout, RolloutDevice
from fleet.core.rollout import RolloutState
from fleet.errors import UnknownError
from fleet.registry import bundles, counters, devices, goals, rollouts
from fleet.registry.counters import UNKNOWN
from fleet.registry.models import DeviceRow, RolloutDeviceRow, RolloutRow
from lepton_edge.typed import decode
from lepton_edge.wire.messages import Choice, Info, Refusal, State


def rollout(session: Session, rollout_id: str, now_ms: int) -> Rollout:
    """Raises UnknownError."""
    row = session.get(RolloutRow, rollout_id)
    if row is None:
        raise UnknownError(f"rollout {rollout_id[:80]!r} is unknown here")
    ended_ms = row.ended_ms or now_ms
    return Rollout(
        rollout=row.id,
        state=row.state,
        bundle=f"{row.model}-{row.version}",
        devices=[_rollout_device(session, member) for member in rollouts.members_of(session, row.id)],
        bytes_published=row.bytes_published,
        seconds=(ended_ms - row.created_ms) / 1000,
    )


def _rollout_device(session: Session, row: RolloutDeviceRow) -> RolloutDevice:
    choice = None
    if row.choice is not None:
        choice = decode(row.choice.encode(), Choice, what="choice", limit=devices.MAX_STORED)
    device = session.get_one(DeviceRow, row.device)
    return RolloutDevice(
        id=row.device,
        state=row.state,
        code=row.code,
        reason=row.reason or _why_pending(session, device, row),
        variant=choice.variant if choice else "",
        runtime=choice.runtime if choice else "",
        p50_ms=choice.p50_ms if choice else None,
        p99_ms=choice.p99_ms if choice else None,
        progress=row.progress,
        fetched_bytes=choice.fetched if choice else 0,
        status=device.status,
        why=choice.reason if choice else "",
    )


def _why_pending(session: Session, device: DeviceRow, row: RolloutDeviceRow) -> str:
    if row.state != State.PENDING:
        return ""
    if device.status != "online":
        return f"the device is {device.status}"
    return goals.blocked_because(session, device) or _refusal(device)


def _refusal(device: DeviceRow) -> str:
    if device.reported is None:
        return ""
    refused = decode(device.reported.encode(), Refusal, what="refusal", limit=devices.MAX_STORED)
    return f"the device refused a goal: {refused.reason}"


def dry_run(session: Session, device_ids: Iterable[str], bundle: str) -> Rollout:
    """What a rollout to these devices would begin with."""
    return Rollout(
        rollout="",
        state=RolloutState.DRY_RUN,
        bundle=bundle,
        devices=[_would_be(session, devices.get(session, device)) for device in device_ids],
        bytes_published=0,
        seconds=0.0,
    )


def _would_be(session: Session, device: DeviceRow) -> RolloutDevice:
    away = "" if device.status == "online" else f"the device is {device.status}"
    return RolloutDevice(
        id=device.id,
        state=State.PENDING,
        code="",
        reason=goals.blocked_because(session, device) or away,
        variant="",
        runtime="",
        p50_ms=None,
        p99_ms=None,
        progress=0.0,
        fetched_bytes=0,
        status=device.status,
    )


def all_rollouts(session: Session, now_ms: int) -> list[Rollout]:
    ids = session.scalars(select(RolloutRow.id).order_by(RolloutRow.created_ms)).all()
    return [rollout(session, rollout_id, now_ms) for rollout_id in ids]


def all_devices(session: Session) -> Devices:
    counts = counters.read(session)
    rows = session.scalars(select(DeviceRow).order_by(DeviceRow.id)).all()
    lines = [_device_line(session, row, counts.get(row.id, {})) for row in rows]
    return Devices(devices=lines, bundles=published(session), unattributed=counts.get(UNKNOWN, {}))


def published(session: Session) -> dict[str, str]:
    """Digest -> NAME-VERSION."""
    return {row.digest: f"{row.name}-{row.version}" for row in bundles.all_bundles(session)}


def _device_line(session: Session, row: DeviceRow, counts: dict[str, int]) -> DeviceLine:
    refused = info = None
    if row.reported is not None:
        refused = decode(row.reported.encode(), Refusal, what="refusal", limit=devices.MAX_STORED)
    if row.info is not None:
        info = decode(row.info.encode(), Info, what="info", limit=devices.MAX_STORED)
    return DeviceLine(
        id=row.id,
        status=row.status,
        generation=row.generation,
        seen_ms=row.seen_ms,
        labels=devices.labels_of(row),
        adopt=row.lost,
        blocked=goals.blocked_because(session, row),
        counter=row.counter,
        reported_counter=row.reported_counter,
        models=devices.reported_models(session, row.id),
        goal={name: model.digest for name, model in devices.goal_models(session, row.id).items()},
        refused=refused,
        info=info,
        counts=counts,
    )
