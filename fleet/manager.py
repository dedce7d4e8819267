"""The manager: ties link, registry, goals and transfer together. One runs per fleet folder.

Every change goes the same way: one transaction that stores it and signs what follows from it, and only after the
commit are acknowledgements and goals published.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from fleet.clock import now_ms
from fleet.config import Config
from fleet.folder import FleetFolder
from fleet.link.client import Link
from fleet.link.inbox import Inbox
from fleet.registry import counters, devices, goals, intake, rollouts
from fleet.registry.counters import Tallies
from fleet.registry.database import Database
from fleet.registry.goals import GoalMaker
from fleet.registry.intake import Incoming, Outcome
from fleet.transfer.blobs import BlobStore
from fleet.transfer.judge import Judge, Wanted
from fleet.transfer.sender import Sender
from lepton_edge.errors import StorageError
from lepton_edge.typed import encode
from lepton_edge.wire.authenticator import seal
from lepton_edge.wire.broker import BrokerAddress
from lepton_edge.wire.goal import sign_goal
from lepton_edge.wire.messages import Ack
from lepton_edge.wire.topics import DeviceTopic, Kind, device_topic

log = logging.getLogger(__name__)

T = TypeVar("T")
FLUSH_S = 1.0
RETRY_S = 1.0
MAX_ACK_WINDOWS = 1024


class Changes:
    """Wakes whoever waits for the registry to change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.revision = now_ms()  # above every revision of an earlier start, for those who waited through it

    def notify(self) -> None:
        self.revision += 1
        self._event.set()
        self._event = asyncio.Event()

    async def after(self, revision: int, timeout_s: float) -> None:
        """Return when the revision is above `revision`, or after `timeout_s` seconds."""
        if self.revision <= revision:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()


class Manager:
    """A fleet's manager on one broker. `start` before `run`."""

    def __init__(self, folder: FleetFolder, config: Config, address: BrokerAddress) -> None:
        self.folder = folder
        self.config = config
        self.address = address
        self.database = Database(folder.database_url)
        self.blobs = BlobStore(folder.blobs)
        self.changes = Changes()
        self._tallies = Tallies()
        self._inbox = Inbox(self._tallies)
        self._judge = Judge(self._tallies, config.transfer.device_bytes_hour)
        self._heard: dict[str, int] = {}
        self._turn = asyncio.Lock()  # whoever signs must know what the transactions before it have heard
        goal_key = folder.goal_key()
        self._maker = GoalMaker(config.fleet, config.devices.settings(), lambda goal: sign_goal(goal_key, goal))
        self._boot = self._seq = 0
        self.link: Link
        self._sender: Sender

    async def start(self) -> None:
        """Read the registry and take a new boot."""
        row = await self.database.run(lambda session: devices.start_manager(session, now_ms()))
        self._boot = row.boot
        self._inbox.members = await self.database.run(devices.members)
        self._judge.reach = await self.database.run(goals.reach)
        self.link = Link(
            self.address,
            manager=row.id,
            started_ms=row.boot,
            on_message=self._inbox.receive,
            on_connected=self._publish_all_goals,
        )
        self._sender = Sender(
            self.blobs,
            lambda topic, data: self.link.publish(topic, data, qos=0),
            most_bytes_s=self.config.transfer.rate_bytes_s,
            tallies=self._tallies,
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.link.run(), name="link")
            group.create_task(self._take_in(), name="intake")
            group.create_task(self._sender.run(), name="sender")
            group.create_task(self._flush_forever(), name="flush")

    async def close(self) -> None:
        """Write what is still in memory, and close the database."""
        try:
            await self.database.run(self._flush)
        except StorageError as cause:
            log.warning("%s", cause)
        self.database.close()

    # Messages from devices

    async def _take_in(self) -> None:
        while True:
            batch = await self._inbox.batch()
            try:
                await self._commit(batch)
            except StorageError as cause:
                # Nothing is acknowledged, so the devices send it all again.
                log.error("%s; %d messages not stored", cause, len(batch))  # noqa: TRY400
                await asyncio.sleep(RETRY_S)

    async def _commit(self, batch: list[Incoming]) -> None:
        def work(session: Session) -> tuple[Outcome, dict[str, bytes], list[Wanted]]:
            now = now_ms()
            outcome = intake.commit(session, batch, self._tallies, now)
            moved = rollouts.advance_all(session, now)
            first_heard = {device for device, at in outcome.heard.items() if heard.get(device) != at}
            signed = self._reconcile(session, moved | first_heard, heard | outcome.heard)
            wanted = [self._judge.judge(session, device, need, now) for device, need in outcome.needs]
            self._flush(session)
            return outcome, signed, [one for one in wanted if one is not None]

        async with self._turn:
            heard = dict(self._heard)
            outcome, signed, wanted = await self.database.run(work)
            self._heard |= outcome.heard
        for one in wanted:
            self._sender.add(one)
        self.changes.notify()
        await self._publish_acks(outcome.acks)
        await self._publish_goals(signed)
        await self._publish_again(outcome.behind - set(signed))

    async def _publish_acks(self, acks: dict[str, Ack]) -> None:
        await asyncio.gather(*(self._publish_ack(device, part) for device, ack in acks.items() for part in _parts(ack)))

    async def _publish_ack(self, device: str, ack: Ack) -> None:
        member = self._inbox.members[device]
        topic = DeviceTopic(device, Kind.ACK)
        self._seq += 1
        payload = seal(
            member.key,
            topic,
            encode(ack),
            speaker="manager",
            generation=member.generation,
            boot=self._boot,
            seq=self._seq,
        )
        await self.link.publish(str(topic), payload, qos=1)

    # Goals

    def _reconcile(self, session: Session, device_ids: set[str], heard: dict[str, int]) -> dict[str, bytes]:
        """Sign what changed, but only for devices that have said, in this start and enrolment, what they follow."""
        signed = {}
        for device in sorted(device_ids):
            if heard.get(device) != devices.get(session, device).generation:
                continue
            payload = goals.reconcile(session, device, self._maker, now_ms())
            if payload is not None:
                signed[device] = payload
                goal = goals.signed(session, device)
                self._judge.reach[device] = goals.digests(goal) if goal is not None else frozenset()
        return signed

    async def _publish_goals(self, payloads: dict[str, bytes]) -> None:
        topics = {device: device_topic(device, Kind.DESIRED) for device in payloads}
        await asyncio.gather(
            *(self.link.publish(topics[device], payloads[device], qos=1, retain=True) for device in payloads)
        )

    async def _publish_all_goals(self) -> None:
        await self._publish_goals(await self.database.run(goals.payloads))

    async def _publish_again(self, device_ids: set[str]) -> None:
        """For devices that follow an older goal: the broker may have lost the newer one."""
        if device_ids:
            held = await self.database.run(goals.payloads)
            await self._publish_goals({device: held[device] for device in device_ids & set(held)})

    async def change(self, work: Callable[[Session], tuple[T, set[str]]]) -> T:
        """Run an operator's change in one transaction, and publish the goals that follow from it.

        Args:
            work: returns its result and the devices whose goals may have changed.
        """

        def whole(session: Session) -> tuple[T, dict[str, bytes]]:
            result, touched = work(session)
            moved = rollouts.advance_all(session, now_ms())
            session.flush()
            return result, self._reconcile(session, touched | moved, heard)

        async with self._turn:
            heard = dict(self._heard)
            result, signed = await self.database.run(whole)
        self.changes.notify()
        await self._publish_goals(signed)
        return result

    async def enrol(self, device: str, labels: dict[str, str]) -> tuple[devices.Member, dict[str, str]]:
        """Enrol a device; its old key is worth nothing from now on."""
        member, kept = await self.database.run(lambda session: devices.enrol(session, device, labels, now_ms()))
        self._inbox.members[device] = member
        self.changes.notify()
        return member, kept

    # Counts

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.database.run(self._flush)
            except StorageError as cause:
                log.warning("%s", cause)

    def _flush(self, session: Session) -> None:
        counters.flush(session, self._tallies.take())
        rollouts.add_bytes(session, self._sender.take_bytes())


def _parts(ack: Ack) -> list[Ack]:
    """An ack names at most MAX_ACK_WINDOWS windows."""
    cuts = range(0, max(1, len(ack.windows)), MAX_ACK_WINDOWS)
    return [Ack(boot=ack.boot, seen=ack.seen, windows=ack.windows[at : at + MAX_ACK_WINDOWS]) for at in cuts]
