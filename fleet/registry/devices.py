"""Devices: enrolment, what is known of them, adoption after lost history."""

import base64
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from fleet.core import goals
from fleet.errors import FleetError, UnknownError
from fleet.registry.models import DeviceRow, GoalModelRow, ManagerRow, ReportedModelRow
from lepton_edge.names import is_name
from lepton_edge.typed import decode, encode
from lepton_edge.wire.enrolment import new_key
from lepton_edge.wire.goal import Limits, Probation
from lepton_edge.wire.messages import ModelReport

MAX_STORED = 1 << 20
MAX_COUNTER = 2**62
"""Far above any clock, and far enough below what a goal can hold."""


@dataclass(frozen=True)
class Member:
    """What authenticates a device."""

    id: str
    generation: int
    key: bytes


def check_id(device: str) -> str:
    """Return `device` if it may name one. Raises FleetError."""
    if not is_name(device):
        raise FleetError(
            f"device id {device[:80]!r} is not allowed: use 1 to 63 letters, digits, '_', '.' or '-', "
            "starting with a letter or digit"
        )
    return device


def enrol(session: Session, device: str, labels: dict[str, str], now_ms: int) -> tuple[Member, dict[str, str]]:
    """Enrol a device, or enrol it again with a new key and a higher generation; its models stay.

    Args:
        labels: take the place of those of the last enrolment; where none are given, those stay.
    """
    check_id(device)
    row = session.get(DeviceRow, device)
    if row is None:
        row = DeviceRow(id=device, generation=0, key="", enrolled_ms=now_ms)
        session.add(row)
    row.generation = goals.next_generation(row.generation, now_ms)
    row.key = new_key()
    row.enrolled_ms = now_ms
    # The new enrolment has said nothing yet; what was known of the old one may be of another machine.
    row.status, row.lost, row.boot, row.reported_counter = "never-seen", False, 0, 0
    if labels:
        row.labels = encode(labels).decode()
    session.flush()  # fills in the columns' defaults
    return _member(row), labels_of(row)


def _member(row: DeviceRow) -> Member:
    return Member(row.id, row.generation, base64.b64decode(row.key))


def members(session: Session) -> dict[str, Member]:
    """All enrolled devices."""
    return {row.id: _member(row) for row in session.scalars(select(DeviceRow))}


def labels_of(row: DeviceRow) -> dict[str, str]:
    return decode(row.labels.encode(), dict[str, str], what=f"labels of {row.id}", limit=MAX_STORED)


def all_labels(session: Session) -> dict[str, dict[str, str]]:
    return {row.id: labels_of(row) for row in session.scalars(select(DeviceRow))}


def get(session: Session, device: str) -> DeviceRow:
    """Raises UnknownError."""
    row = session.get(DeviceRow, device)
    if row is None:
        raise UnknownError(f"device {device[:80]!r} is not enrolled here; see `lepton-edge devices`")
    return row


def reported_models(session: Session, device: str) -> dict[str, ModelReport]:
    rows = session.scalars(select(ReportedModelRow).where(ReportedModelRow.device == device))
    return {
        row.model: decode(row.report.encode(), ModelReport, what=f"report of {row.model}", limit=MAX_STORED)
        for row in rows
    }


def goal_models(session: Session, device: str) -> dict[str, GoalModelRow]:
    rows = session.scalars(select(GoalModelRow).where(GoalModelRow.device == device))
    return {row.model: row for row in rows}


def lost(session: Session) -> list[str]:
    """The devices that follow goals of another history."""
    return list(session.scalars(select(DeviceRow.id).where(DeviceRow.lost).order_by(DeviceRow.id)))


def adopt(session: Session, device: str, *, keep: set[str]) -> None:
    """Take what the device reports for its goal: an operator has said that this manager is the right one.

    Args:
        keep: models that were pushed while the device waited for adoption: they stay as pushed.

    Raises:
        UnknownError: no such device.
        FleetError: its history is not lost: nothing to adopt.
    """
    row = get(session, device)
    if not row.lost:
        raise FleetError(f"device {device}: nothing to adopt, its goal is known here")
    if row.reported_counter > MAX_COUNTER:
        raise FleetError(f"device {device}: no goal can go past its counter {row.reported_counter}: enrol anew")
    session.execute(delete(GoalModelRow).where(GoalModelRow.device == device, GoalModelRow.model.not_in(keep)))
    for model, report in reported_models(session, device).items():
        if model not in keep:
            session.add(_adopted(device, model, report))
    row.counter = row.reported_counter
    row.lost = False


def _adopted(device: str, model: str, report: ModelReport) -> GoalModelRow:
    return GoalModelRow(
        device=device,
        model=model,
        deployment=report.deployment,
        digest=report.bundle,
        limits=encode(Limits()).decode(),
        probation=encode(Probation()).decode(),
    )


def start_manager(session: Session, now_ms: int) -> ManagerRow:
    """This manager's identity with the boot of this start: above every boot that it had."""
    row = session.scalars(select(ManagerRow)).first()
    if row is None:
        row = ManagerRow(id=f"manager-{now_ms:x}", boot=0)
        session.add(row)
    row.boot = max(row.boot + 1, now_ms)
    return row
