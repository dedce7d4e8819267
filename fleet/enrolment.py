"""Enrolments: what DEVICE.zip says, made by the running manager or, while none runs, straight in the folder."""

import base64

from fleet.api.client import Client
from fleet.clock import now_ms
from fleet.errors import BusyError
from fleet.folder import FleetFolder
from fleet.registry import devices
from fleet.registry.database import Database, migrate
from fleet.registry.devices import Member, check_id
from lepton_edge.wire.enrolment import Enrolment


def enrolment_of(folder: FleetFolder, member: Member, labels: dict[str, str], *, fleet: str, broker: str) -> Enrolment:
    """Args: broker: URL that the device shall use."""
    return Enrolment(
        fleet=fleet,
        device=member.id,
        generation=member.generation,
        key=base64.b64encode(member.key).decode("ascii"),
        broker=broker,
        goal_keys=folder.goal_keys(),
        operator_keys=folder.operator_keys(),
        labels=labels,
    )


def enrol(folder: FleetFolder, device: str, labels: dict[str, str]) -> Enrolment:
    """Enrol a device, through the manager where one runs: it holds the devices' keys in memory."""
    check_id(device)
    try:
        return enrol_offline(folder, device, labels)
    except BusyError:
        with Client(folder) as client:
            return client.enrol(device, labels)


def enrol_offline(folder: FleetFolder, device: str, labels: dict[str, str]) -> Enrolment:
    """Enrol while no manager runs.

    Raises:
        BusyError: one runs: it must do it, because it holds the devices' keys in memory.
    """
    with folder.locked():
        config = folder.config()
        migrate(folder.database_url)
        database = Database(folder.database_url)
        try:
            member, kept = database.transact(lambda session: devices.enrol(session, device, labels, now_ms()))
        finally:
            database.close()
    broker = config.broker.url or f"mqtt://127.0.0.1:{config.broker.port}"
    return enrolment_of(folder, member, kept, fleet=config.fleet, broker=broker)
