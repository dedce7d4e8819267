"""Rollouts in the database: planned, followed through the devices' reports, ended."""

import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.core import rollout as machine
from fleet.core.rollout import ENDED, RolloutState, Tally
from fleet.registry import bundles, devices
from fleet.registry.models import BundleRow, DeviceRow, GoalModelRow, ReportedModelRow, RolloutDeviceRow, RolloutRow
from lepton_edge.typed import Record, decode, encode
from lepton_edge.wire.goal import Limits, Probation
from lepton_edge.wire.messages import TERMINAL, ModelReport, State

_MAX_PREVIOUS = 16 * 1024
_OPEN = [state.value for state in State if state not in TERMINAL]


class Entry(Record, frozen=True, kw_only=True):
    """A goal_model row without its keys: what a rollout puts back when it gives a device up."""

    deployment: str
    digest: str
    limits: Limits
    probation: Probation


@dataclass(frozen=True)
class Plan:
    """What a push asks for. device_ids: as selected."""

    digest: str
    target: str
    device_ids: list[str]
    limits: Limits
    probation: Probation


def start(session: Session, plan: Plan, now_ms: int) -> str:
    """Record a rollout and change what its devices shall run. Returns its id.

    Raises:
        UnknownError: the bundle is not published.
    """
    bundle = bundles.get(session, plan.digest)
    row = RolloutRow(
        id=f"r-{now_ms:x}-{secrets.token_hex(3)}",
        digest=bundle.digest,
        model=bundle.name,
        version=bundle.version,
        target=plan.target,
        state=RolloutState.DRAFT,
        created_ms=now_ms,
    )
    session.add(row)
    session.flush()
    for device in plan.device_ids:
        session.add(_begin_on(session, row, bundle, device, plan))
    session.flush()
    return row.id


def _begin_on(session: Session, rollout: RolloutRow, bundle: BundleRow, device: str, plan: Plan) -> RolloutDeviceRow:
    entry = Entry(deployment=rollout.id, digest=bundle.digest, limits=plan.limits, probation=plan.probation)
    held = session.get(GoalModelRow, (device, bundle.name))
    before = _entry_of(held) if held is not None else None
    if before is not None and (before.digest, before.limits) == (entry.digest, entry.limits):
        report = session.get(ReportedModelRow, (device, bundle.name))
        if report is not None and report.deployment == before.deployment and report.state == State.COMMITTED:
            return _already(rollout, device, report)
    previous = _supersede(session, device, before)
    _set_entry(session, device, bundle.name, entry)
    return RolloutDeviceRow(
        rollout=rollout.id,
        device=device,
        deployment=entry.deployment,
        state=State.PENDING,
        previous=encode(previous).decode() if previous is not None else "",
    )


def _already(rollout: RolloutRow, device: str, report: ReportedModelRow) -> RolloutDeviceRow:
    """The device has committed this very bundle within these very limits: it is not disturbed."""
    row = RolloutDeviceRow(rollout=rollout.id, device=device, deployment=report.deployment, state=State.PENDING)
    _copy(row, decode(report.report.encode(), ModelReport, what="report", limit=devices.MAX_STORED))
    return row


def _supersede(session: Session, device: str, before: Entry | None) -> Entry | None:
    """End the rollout that still waits for this model's deployment here; returns what it would have put back."""
    if before is None:
        return None
    rows = session.scalars(
        select(RolloutDeviceRow).where(
            RolloutDeviceRow.device == device,
            RolloutDeviceRow.deployment == before.deployment,
            RolloutDeviceRow.state.in_(_OPEN),
        )
    ).all()
    for row in rows:
        row.state, row.code, row.reason = State.CANCELLED, "superseded", "a newer push or removal took its place"
    return _previous(rows[0]) if rows else before


def _previous(row: RolloutDeviceRow) -> Entry | None:
    if not row.previous:
        return None
    return decode(row.previous.encode(), Entry, what="previous entry", limit=_MAX_PREVIOUS)


def _entry_of(row: GoalModelRow) -> Entry:
    return Entry(
        deployment=row.deployment,
        digest=row.digest,
        limits=decode(row.limits.encode(), Limits, what="limits", limit=_MAX_PREVIOUS),
        probation=decode(row.probation.encode(), Probation, what="probation", limit=_MAX_PREVIOUS),
    )


def _set_entry(session: Session, device: str, model: str, entry: Entry) -> None:
    session.merge(
        GoalModelRow(
            device=device,
            model=model,
            deployment=entry.deployment,
            digest=entry.digest,
            limits=encode(entry.limits).decode(),
            probation=encode(entry.probation).decode(),
        )
    )


def remove(session: Session, model: str, device_ids: list[str]) -> list[str]:
    """Take `model` out of what the devices shall run. Returns the devices that had it."""
    changed = []
    for device in device_ids:
        row = session.get(GoalModelRow, (device, model))
        if row is not None:
            _supersede(session, device, _entry_of(row))
            session.delete(row)
            changed.append(device)
    session.flush()
    return changed


def note_report(session: Session, device: str, report: ModelReport) -> set[str]:
    """Carry a device's report into the rollouts that wait for it; returns their ids."""
    rows = session.scalars(
        select(RolloutDeviceRow).where(
            RolloutDeviceRow.device == device,
            RolloutDeviceRow.deployment == report.deployment,
            RolloutDeviceRow.state.in_(_OPEN),
        )
    ).all()
    for row in rows:
        _copy(row, report)
    return {row.rollout for row in rows}


def _copy(row: RolloutDeviceRow, report: ModelReport) -> None:
    row.state, row.code, row.reason = report.state, report.code, report.reason
    row.progress = report.progress
    row.choice = encode(report.choice).decode() if report.choice is not None else None


def active(session: Session) -> list[RolloutRow]:
    """The rollouts that have not ended."""
    return list(session.scalars(select(RolloutRow).where(RolloutRow.state.not_in([state.value for state in ENDED]))))


def advance_all(session: Session, now_ms: int) -> set[str]:
    """Move each active rollout as far as its devices allow. Returns the devices whose goals changed by that."""
    changed: set[str] = set()
    for row in active(session):
        members = members_of(session, row.id)
        state = machine.advance(RolloutState(row.state), Tally.of(member.state for member in members))
        if state is RolloutState.ABORTING:
            changed |= _give_up(session, row, members)
            state = machine.advance(state, Tally.of(member.state for member in members))
        row.state = state
        row.ended_ms = now_ms if state in ENDED else 0
    return changed


def members_of(session: Session, rollout: str) -> list[RolloutDeviceRow]:
    rows = select(RolloutDeviceRow).where(RolloutDeviceRow.rollout == rollout).order_by(RolloutDeviceRow.device)
    return list(session.scalars(rows))


def _give_up(session: Session, rollout: RolloutRow, members: list[RolloutDeviceRow]) -> set[str]:
    """Put the previous entry back on the devices that have not begun, or are away."""
    changed = set()
    for member in members:
        device = session.get_one(DeviceRow, member.device)
        if not machine.gives_up(device_state=member.state, online=device.status == "online"):
            continue
        member.state, member.code = State.CANCELLED, "aborted"
        member.reason = "another device of this rollout failed"
        held = session.get(GoalModelRow, (member.device, rollout.model))
        if held is None or held.deployment != member.deployment:
            continue
        previous = _previous(member)
        if previous is None:
            session.delete(held)
        else:
            _set_entry(session, member.device, rollout.model, previous)
        changed.add(member.device)
    return changed


def open_models(session: Session, device: str) -> set[str]:
    """The models of which a rollout waits for this device."""
    rows = session.scalars(
        select(RolloutRow.model)
        .join(RolloutDeviceRow, RolloutDeviceRow.rollout == RolloutRow.id)
        .where(RolloutDeviceRow.device == device, RolloutDeviceRow.state.in_(_OPEN))
    )
    return set(rows)


def add_bytes(session: Session, counts: dict[str, int]) -> None:
    """Add published chunk bytes to their rollouts."""
    for rollout, number in counts.items():
        row = session.get(RolloutRow, rollout)
        if row is not None:
            row.bytes_published += number
