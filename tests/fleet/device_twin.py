"""A small device for tests of the manager, on a real broker: enrolled, authenticated, following goals.

It does what DESIGN asks of a device as far as a manager can see, and lets a test misbehave: fail deployments, ignore
acknowledgements, publish any payload anywhere.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiomqtt

from lepton_edge.bundle.manifest import read_manifest
from lepton_edge.errors import AuthenticationError, GoalRefusedError, SignatureError
from lepton_edge.telemetry.histogram import Recorder
from lepton_edge.telemetry.window import Window
from lepton_edge.typed import decode, encode
from lepton_edge.wire.authenticator import seal, unseal
from lepton_edge.wire.chunks import BlobRef, pack_bits, sha256
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.goal import Goal, ModelGoal, check_addressee, check_fresh, open_goal
from lepton_edge.wire.messages import (
    LIMITS,
    Ack,
    Body,
    Choice,
    Info,
    ModelReport,
    Need,
    Refusal,
    Reported,
    State,
    Status,
    Telemetry,
)
from lepton_edge.wire.mqtt import honour_cancellation
from lepton_edge.wire.topics import ChunkTopic, DeviceTopic, Kind, all_chunks_of, parse

_BOOTS = itertools.count(1)


async def eventually(condition: Callable[[], object], *, timeout_s: float = 15.0, what: str = "") -> None:
    """Return when `condition` holds; fail at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        await asyncio.sleep(0.02)


def window(model: str = "digits", *, latencies_s: tuple[float, ...] = (0.001, 0.002)) -> Window:
    recorder = Recorder()
    for value in latencies_s:
        recorder.record(value)
    return Window(
        id=secrets.token_hex(16),
        model=model,
        version="1",
        bundle="0" * 64,
        variant="int8",
        runtime="onnxruntime",
        start_ms=0,
        end_ms=1000,
        latency=recorder.snapshot(),
    )


class DeviceTwin:
    """One device. Its state outlives its sessions, as a disk would.

    Attributes:
        goal: followed. chunks: received, by blob. acks: all that had a right MAC.
        fails: models whose deployments fail. resend_s: until acknowledged, reports are sent again so often.
        received: the number of chunk messages; of large blobs, the first `loses` are dropped, as a broker would.
    """

    def __init__(self, enrolment: Enrolment, *, fails: set[str] | None = None) -> None:
        self.enrolment = enrolment
        self.id = enrolment.device
        self.fails = fails or set()
        self.goal: Goal | None = None
        self.held: tuple[int, bytes] | None = None
        self.refused: list[str] = []
        self.payloads: list[bytes] = []
        self.chunks: dict[str, dict[int, bytes]] = {}
        self.received = 0
        self.reports: dict[str, ModelReport] = {}
        self.acks: list[Ack] = []
        self.acked = 0
        self.statuses: list[str] = []
        self.resend_s = 0.5
        self.deaf = False
        self.loses = 0
        self.boot = time.time_ns() // 1_000_000 + next(_BOOTS)
        self.seq = 0
        self._refs: dict[str, BlobRef] = {}
        self._client: aiomqtt.Client | None = None
        self._changed = asyncio.Event()
        self._deploying: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None

    # Speaking

    def sealed(self, kind: Kind, body: Body, *, seq: int | None = 0, key: bytes | None = None) -> bytes:
        """A payload. Args: seq: 0 takes a fresh one; None makes a will. key: to forge with."""
        if seq == 0:
            self.seq += 1
            seq = self.seq
        return seal(
            key or self.enrolment.secret,
            DeviceTopic(self.id, kind),
            encode(body),
            speaker="device",
            generation=self.enrolment.generation,
            boot=self.boot,
            seq=seq,
        )

    async def raw(self, kind: Kind, payload: bytes, *, retain: bool = False) -> None:
        assert self._client is not None, "the twin is not connected"
        await self._client.publish(str(DeviceTopic(self.id, kind)), payload, qos=1, retain=retain)
        honour_cancellation()

    async def say(self, kind: Kind, body: Body) -> None:
        await self.raw(kind, self.sealed(kind, body), retain=kind in {Kind.STATUS, Kind.INFO, Kind.REPORTED})

    async def hello(self) -> None:
        await self.say(Kind.STATUS, Status(state="online"))
        await self.say(Kind.INFO, INFO)
        await self.report()

    async def report(self) -> None:
        counter = self.goal.counter if self.goal else 0
        refused = Refusal(code="refused", reason=self.refused[-1]) if self.refused else None
        await self.say(Kind.REPORTED, Reported(counter=counter, models=dict(self.reports), refused=refused))

    async def need(self, ref: BlobRef, *, key: bytes | None = None) -> None:
        have = self.chunks.get(ref.sha256, {})
        bits = pack_bits([index not in have for index in range(len(ref.chunks))])
        await self.raw(Kind.NEED, self.sealed(Kind.NEED, Need(blob=ref.sha256, first=0, bits=bits), key=key))

    # Living

    @asynccontextmanager
    async def online(self, *, follow: bool = True) -> AsyncIterator["DeviceTwin"]:
        """A session: a new boot, as a new process has; follows goals unless told not to."""
        self.boot, self.seq = max(self.boot + 1, time.time_ns() // 1_000_000), 0
        async with self._connection(follow=follow) as client, asyncio.TaskGroup() as group:
            self._group = group
            tasks = [group.create_task(self._listen(client), name=f"{self.id} listens")]
            if follow:
                await self.hello()
                tasks.append(group.create_task(self._resend(), name=f"{self.id} resends"))
            try:
                yield self
            finally:
                for task in [*tasks, *([self._deploying] if self._deploying else [])]:
                    task.cancel()
                self._deploying = self._group = None

    @asynccontextmanager
    async def staying(self) -> AsyncIterator["DeviceTwin"]:
        """As `online`, but it connects again whenever the broker goes away."""

        async def live() -> None:
            while True:
                with contextlib.suppress(aiomqtt.MqttError, ExceptionGroup):
                    async with self.online():
                        await asyncio.Event().wait()
                await asyncio.sleep(0.2)

        task = asyncio.create_task(live(), name=f"{self.id} lives")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def _connection(self, *, follow: bool) -> AsyncIterator[aiomqtt.Client]:
        where = urlsplit(self.enrolment.broker)
        topic = DeviceTopic(self.id, Kind.STATUS)
        will = aiomqtt.Will(str(topic), self.sealed(Kind.STATUS, Status(state="offline"), seq=None), 1, retain=True)
        client = aiomqtt.Client(
            where.hostname or "",
            where.port or 1883,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=will if follow else None,
            timeout=2,
        )
        async with client:
            self._client = client
            kinds = (Kind.DESIRED, Kind.ACK, Kind.STATUS) if follow else (Kind.ACK,)
            await client.subscribe([(str(DeviceTopic(self.id, kind)), 1) for kind in kinds])
            try:
                yield client
            finally:
                self._client = None

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload
            assert isinstance(payload, bytes)
            match parse(str(message.topic)):
                case DeviceTopic(kind=Kind.ACK) as topic:
                    self._take_ack(topic, payload)
                case DeviceTopic(kind=Kind.DESIRED):
                    await self.take_goal(payload)
                case DeviceTopic(kind=Kind.STATUS) as topic:
                    await self._take_status(topic, payload)
                case ChunkTopic(blob=blob, index=index):
                    self.received += 1
                    ref = self._refs.get(blob)
                    if ref is not None and len(ref.chunks) > 1 and self.loses > 0:
                        self.loses -= 1
                    elif ref is not None and index < len(ref.chunks) and sha256(payload) == ref.chunks[index][0]:
                        self.chunks.setdefault(blob, {})[index] = payload
                        self._changed.set()

    def _take_ack(self, topic: DeviceTopic, payload: bytes) -> None:
        if self.deaf:
            return
        try:
            sealed = unseal(self.enrolment.secret, payload, topic, limit=LIMITS[Kind.ACK])
        except AuthenticationError:
            return  # forged, or of an earlier enrolment
        ack = decode(sealed.body, Ack, what="ack", limit=LIMITS[Kind.ACK])
        self.acks.append(ack)
        seen = ack.seen.get(Kind.REPORTED)
        if seen is not None and seen.boot == self.boot:
            self.acked = max(self.acked, seen.seq)

    async def _take_status(self, topic: DeviceTopic, payload: bytes) -> None:
        try:
            sealed = unseal(self.enrolment.secret, payload, topic, limit=LIMITS[Kind.STATUS])
        except AuthenticationError:
            return  # of an earlier enrolment, retained
        state = decode(sealed.body, Status, what="status", limit=1024).state
        self.statuses.append(state)
        if state == "offline":
            await self.say(Kind.STATUS, Status(state="online"))

    async def take_goal(self, payload: bytes) -> None:
        self.payloads.append(payload)
        e = self.enrolment
        try:
            goal = open_goal(payload, e.goal_keys)
            check_addressee(goal, fleet=e.fleet, device=e.device, generation=e.generation)
            fresh = check_fresh(goal, payload, self.held)
        except (GoalRefusedError, SignatureError) as cause:
            self.refused.append(str(cause))
            return
        if fresh:
            self.held, self.goal = (goal.counter, payload), goal
        if self._deploying is not None and not self._deploying.done():
            if not fresh:
                return  # it is being followed
            self._deploying.cancel()
        if self._group is not None:
            self._deploying = self._group.create_task(self._follow(goal), name=f"{self.id} deploys")

    async def _resend(self) -> None:
        while True:
            await asyncio.sleep(self.resend_s)
            if self.acked < self.seq and not self.deaf:
                await self.report()

    # Deploying

    async def _follow(self, goal: Goal) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            for name in set(self.reports) - set(goal.models):
                del self.reports[name]
            await self.report()
            for name, model in goal.models.items():
                held = self.reports.get(name)
                if held is None or held.deployment != model.deployment or held.state is State.DOWNLOADING:
                    await self._deploy(name, model)

    async def _deploy(self, name: str, model: ModelGoal) -> None:
        held = self.reports.get(name)
        serving = held.serving if held else ""
        digest = model.manifest.sha256

        async def now(state: State, **more: object) -> None:
            self.reports[name] = ModelReport(deployment=model.deployment, state=state, bundle=digest, **more)
            await self.report()

        await now(State.DOWNLOADING, serving=serving)
        manifest = read_manifest(await self.fetch(model.manifest))
        for path in (manifest.variants[0].file, "golden.npz"):
            await self.fetch(manifest.files[path])
        if name in self.fails:
            await now(State.FAILED, serving=serving, code="self-test", reason="told to fail", version=manifest.version)
            return
        choice = Choice(variant="int8", runtime="onnxruntime", p50_ms=1.0, p99_ms=2.0, golden_ratio=0.0)
        await now(State.COMMITTED, serving=digest, version=manifest.version, choice=choice)

    async def fetch(self, ref: BlobRef) -> bytes:
        """All chunks, asked for again while they do not come."""
        assert self._client is not None
        await self._client.subscribe(all_chunks_of(ref.sha256), qos=0)
        honour_cancellation()
        self._refs[ref.sha256] = ref
        have = self.chunks.setdefault(ref.sha256, {})
        while len(have) < len(ref.chunks):
            await self.need(ref)
            before = -1
            while before < len(have) < len(ref.chunks):
                before = len(have)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.5):
                        while len(have) == before:
                            self._changed.clear()
                            await self._changed.wait()
        await self._client.unsubscribe(all_chunks_of(ref.sha256))
        return ref.verify(b"".join(have[index] for index in range(len(ref.chunks))), what="blob")

    async def send_windows(self, *windows: Window) -> None:
        await self.say(Kind.TELE, Telemetry(windows=list(windows)))

    def windows_acked(self) -> Iterator[str]:
        return (identifier for ack in self.acks for identifier in ack.windows)


INFO = Info(
    agent="twin",
    system="test",
    machine="x86_64",
    cpu="none",
    cpu_flags=[],
    cores=1,
    memory=1 << 30,
    disk_free=1 << 30,
    runtimes=[],
)
