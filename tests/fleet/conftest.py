"""A fleet in a temporary folder, and its manager in this process on a real broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from fleet import operations
from fleet.api import views
from fleet.api.documents import PublishRequest, Rollout, RolloutRequest
from fleet.broker.process import BrokerProcess
from fleet.clock import now_ms
from fleet.config import BrokerConfig, DeviceConfig
from fleet.folder import FleetFolder
from fleet.init import init_fleet
from fleet.manager import Manager
from fleet.trust.keys import open_key
from lepton_edge.bundle import Bundle
from lepton_edge.wire.broker import parse_broker
from lepton_edge.wire.goal import Limits, Probation
from lepton_edge.wire.signatures import Context, sign
from tests.fleet.device_twin import DeviceTwin, eventually

PASSPHRASE = b"correct horse"


@pytest.fixture
def folder(tmp_path: Path, broker: BrokerProcess) -> FleetFolder:
    return init_fleet(
        tmp_path / "fleet",
        passphrase=b"",
        devices=DeviceConfig(telemetry_s=1.0),
        broker=BrokerConfig(url=broker.url),
    )


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.manager.FLUSH_S", 0.05)
    monkeypatch.setattr("fleet.core.needs.GATHER_S", 0.05)


class Desk:
    """An operator at a running manager."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager

    async def enrol(self, device: str, **labels: str) -> DeviceTwin:
        return DeviceTwin(await operations.enrol(self.manager, device, labels))

    async def publish(self, bundle: Bundle) -> None:
        import base64

        key = open_key(self.manager.folder.operator_key, b"")
        for path in bundle.manifest.files:
            self.manager.blobs.put(bundle.read(path))
        await operations.publish(
            self.manager,
            PublishRequest(
                manifest=base64.b64encode(bundle.manifest_bytes).decode(),
                signature=sign(key, Context.MANIFEST, bundle.manifest_bytes),
            ),
        )

    async def push(self, bundle: Bundle, to: str = "all") -> Rollout:
        await self.publish(bundle)
        return await self.roll_out(bundle, to)

    async def roll_out(self, bundle: Bundle, to: str = "all") -> Rollout:
        """Push a bundle that is published."""
        request = RolloutRequest(
            digest=bundle.digest,
            name=bundle.manifest.name,
            version=bundle.manifest.version,
            to=to,
            limits=Limits(),
            probation=Probation(probation_s=0.1),
        )
        return await operations.push(self.manager, request)

    async def rollout(self, name: str) -> Rollout:
        return await self.manager.database.run(lambda session: views.rollout(session, name, now_ms()))

    async def ended(self, rollout: Rollout, *, timeout_s: float = 20.0) -> Rollout:
        async with asyncio.timeout(timeout_s):
            while rollout.state not in {"done", "rolled-back"}:
                await self.manager.changes.after(self.manager.changes.revision, 0.5)
                rollout = await self.rollout(rollout.rollout)
        return rollout

    async def device(self, name: str):
        found = await self.manager.database.run(views.all_devices)
        return next(line for line in found.devices if line.id == name)

    async def until(self, name: str, condition: Callable[[object], object], *, timeout_s: float = 15.0):
        """Wait until a device's line fulfils `condition`; returns it."""
        line = await self.device(name)
        async with asyncio.timeout(timeout_s):
            while not condition(line):
                await self.manager.changes.after(self.manager.changes.revision, 0.1)
                line = await self.device(name)
        return line


@asynccontextmanager
async def managing(folder: FleetFolder) -> AsyncIterator[Desk]:
    """A manager on the fleet's configured broker, for as long as the block lasts."""
    config = folder.config()
    manager = Manager(folder, config, parse_broker(config.broker.url))
    await manager.start()
    task = asyncio.create_task(manager.run(), name="manager")
    try:
        await eventually(lambda: manager.link.is_connected)
        yield Desk(manager)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await manager.close()


@pytest.fixture
def start(folder: FleetFolder) -> Callable[[], AbstractAsyncContextManager[Desk]]:
    return lambda: managing(folder)


@pytest.fixture
async def desk(folder: FleetFolder) -> AsyncIterator[Desk]:
    async with managing(folder) as found:
        yield found
