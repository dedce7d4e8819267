"""A small manager over a real broker: signs goals, answers needs, acknowledges; and lies where a test tells it to."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiomqtt
import numpy as np
from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent import agent
from device_agent.link.pace import Pace
from lepton_edge.bundle import Bundle
from lepton_edge.errors import MessageError
from lepton_edge.telemetry.window import Window
from lepton_edge.typed import encode
from lepton_edge.wire import topics
from lepton_edge.wire.authenticator import Order, Sealed, seal, unseal
from lepton_edge.wire.chunks import blob_ref, unpack_bits
from lepton_edge.wire.enrolment import Enrolment, new_key
from lepton_edge.wire.goal import Goal, ModelGoal, Settings, sign_goal
from lepton_edge.wire.messages import (
    LIMITS,
    Ack,
    Info,
    ManagerStatus,
    ModelReport,
    Need,
    Reported,
    Seen,
    State,
    Status,
    Telemetry,
    decode_body,
)
from lepton_edge.wire.mqtt import honour_cancellation
from lepton_edge.wire.signatures import public_key
from lepton_edge.wire.topics import DeviceTopic, Kind
from tests.bundles import blobs_of, entry

T = TypeVar("T")
DEADLINE_S = 30.0
FLEET = "test-fleet"
FAST = Pace(reconnect=(0.05, 0.5), resend=(0.3, 2.0), first_need=0.01, quiet=(0.2, 1.0), stall=20.0, repeat=0.05)
Forger = Callable[[str, int, bytes], list[bytes]]
"""(blob, index, right bytes) -> what is published in its place."""


async def becomes_true(claim: Callable[[], object], what: str, within_s: float = DEADLINE_S) -> None:
    """Look again and again at something that tells nobody when it changes: a file, a log."""
    try:
        async with asyncio.timeout(within_s):
            while not claim():  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}") from None


class ManagerTwin:
    """Knows the keys of its devices; all that arrives is kept for the test to look at."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.goal_key = Ed25519PrivateKey.generate()
        self.operator_key = Ed25519PrivateKey.generate()
        self.blobs: dict[str, bytes] = {}
        self.enrolments: dict[str, Enrolment] = {}
        self.last_seen: dict[tuple[str, Kind], Order] = {}
        self.received: dict[tuple[str, Kind], list[Sealed]] = defaultdict(list)
        self.windows: dict[str, Window] = {}
        self.reports: dict[str, list[Reported]] = defaultdict(list)
        self.statuses: dict[str, list[Status]] = defaultdict(list)
        self.infos: dict[str, Info] = {}
        self.needs: list[Need] = []
        self.sent_chunks: list[tuple[str, int]] = []
        self.forged = 0
        self.acks = True
        self.answers_needs = True
        self.highest_boot: dict[str, int] = {}
        self.forger: Forger | None = None
        self._counter = 0
        self._client: aiomqtt.Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    # -- enrolment and goals

    def enrol(self, device: str, *, generation: int = 1, **changes: object) -> Enrolment:
        fields: dict[str, object] = {
            "fleet": FLEET,
            "device": device,
            "generation": generation,
            "key": new_key(),
            "broker": self.url,
            "goal_keys": [public_key(self.goal_key)],
            "operator_keys": [public_key(self.operator_key)],
        }
        self.enrolments[device] = Enrolment(**{**fields, **changes})
        return self.enrolments[device]

    def add(self, bundle: Bundle) -> Bundle:
        self.blobs |= blobs_of(bundle)
        return bundle

    def entry(self, bundle: Bundle, deployment: str, **fields: object) -> ModelGoal:
        return entry(self.add(bundle), self.operator_key, deployment, **fields)

    def goal(self, device: str, models: dict[str, ModelGoal], /, **changes: object) -> bytes:
        """A signed goal with the next counter."""
        self._counter = max(self._counter + 1, time.time_ns() // 1_000_000)
        fields: dict[str, object] = {
            "fleet": FLEET,
            "device": device,
            "generation": self.enrolments[device].generation,
            "counter": self._counter,
            "models": models,
            "settings": Settings(telemetry_s=0.2),
        }
        return sign_goal(self.goal_key, Goal(**{**fields, **changes}))

    async def publish_goal(self, device: str, payload: bytes) -> None:
        await self.publish(topics.device_topic(device, Kind.DESIRED), payload, retain=True)

    async def want(self, device: str, **models: ModelGoal) -> bytes:
        payload = self.goal(device, models)
        await self.publish_goal(device, payload)
        return payload

    # -- the connection

    @asynccontextmanager
    async def connected(self, name: str = "twin") -> AsyncIterator["ManagerTwin"]:
        host, port = self.url.removeprefix("mqtt://").split(":")
        client = aiomqtt.Client(host, int(port), identifier=name, protocol=aiomqtt.ProtocolVersion.V5, clean_start=True)
        async with client:
            self._client = client
            await client.subscribe([(topic, 1) for topic in topics.from_all_devices()])
            online = encode(ManagerStatus(state="online", started_ms=1))
            await client.publish(topics.manager_topic(name), online, qos=1, retain=True)
            work = self._task = asyncio.create_task(self._work(client), name="twin")
            try:
                yield self
            finally:
                work.cancel()
                await asyncio.wait([work])
                self._client = None
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        assert self._client is not None
        await self._client.publish(topic, payload, qos=qos, retain=retain)
        honour_cancellation()

    async def _work(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            topic = topics.parse(message.topic.value)
            assert isinstance(topic, DeviceTopic)
            if topic.device in self.enrolments and isinstance(message.payload, bytes) and message.payload:
                await self._take(topic, message.payload)
            async with self._news:
                self._news.notify_all()

    async def _take(self, topic: DeviceTopic, payload: bytes) -> None:
        device, kind = topic.device, topic.kind
        try:
            sealed = unseal(self.enrolments[device].secret, payload, topic, limit=LIMITS[kind])
        except MessageError:
            self.forged += 1
            return
        body = decode_body(kind, sealed.body)
        self.received[device, kind].append(sealed)
        if kind is not Kind.TELE:
            order = sealed.header.order
            is_news = order > self.last_seen.get((device, kind), Order(0, 0, 0))
            self.last_seen[device, kind] = max(order, self.last_seen.get((device, kind), order))
            self.highest_boot[device] = max(order.boot, self.highest_boot.get(device, 0))
            if is_news or sealed.header.is_will:
                await self._keep(device, body)
        else:
            assert isinstance(body, Telemetry)
            self.windows |= {window.id: window for window in body.windows}
        if self.acks:
            await self.send_ack(device, windows=[w.id for w in body.windows] if isinstance(body, Telemetry) else [])

    async def _keep(self, device: str, body: object) -> None:
        match body:
            case Status():
                self.statuses[device].append(body)
            case Info():
                self.infos[device] = body
            case Reported():
                self.reports[device].append(body)
            case Need():
                self.needs.append(body)
                await self._answer(body)

    async def _answer(self, need: Need) -> None:
        if not self.answers_needs or need.blob not in self.blobs:
            return
        data = self.blobs[need.blob]
        ref = blob_ref(data)
        starts = ref.offsets()
        for bit in unpack_bits(need.bits):
            index = need.first + bit
            if index >= len(ref.chunks):
                continue
            right = data[starts[index] : starts[index] + ref.chunks[index][1]]
            for chunk in self.forger(need.blob, index, right) if self.forger else [right]:
                self.sent_chunks.append((need.blob, index))
                await self.publish(topics.chunk_topic(need.blob, index), chunk, qos=0)

    def sealed_ack(self, device: str, ack: Ack, *, key: bytes | None = None) -> bytes:
        enrolment = self.enrolments[device]
        return seal(
            key or enrolment.secret,
            DeviceTopic(device, Kind.ACK),
            encode(ack),
            speaker="manager",
            generation=enrolment.generation,
            boot=1,
            seq=time.time_ns(),
        )

    def ack(self, device: str, *, windows: list[str], boot: int | None = None) -> Ack:
        seen = {
            kind: Seen(generation=order.generation, boot=order.boot, seq=order.seq)
            for (name, kind), order in self.last_seen.items()
            if name == device
        }
        return Ack(boot=boot or self.highest_boot.get(device, 0), seen=seen, windows=windows)

    async def send_ack(self, device: str, *, windows: list[str], boot: int | None = None) -> None:
        payload = self.sealed_ack(device, self.ack(device, windows=windows, boot=boot))
        await self.publish(topics.device_topic(device, Kind.ACK), payload)

    # -- waiting

    async def until(self, claim: Callable[[], T], what: str = "", within_s: float = DEADLINE_S) -> T:
        """The first true value of `claim`, which is looked at whenever something has arrived."""
        try:
            async with asyncio.timeout(within_s), self._news:
                while not (value := claim()):
                    await self._news.wait()
                return value
        except TimeoutError:
            if self._task is not None and self._task.done():
                self._task.result()  # the twin itself has failed: say so
            raise AssertionError(f"not within {within_s} s: {what}; last: {self._last()}") from None

    def _last(self) -> object:
        return {device: reports[-1] for device, reports in self.reports.items() if reports}

    def report(self, device: str, model: str) -> ModelReport | None:
        reports = self.reports[device]
        return reports[-1].models.get(model) if reports else None

    async def until_state(self, device: str, model: str, deployment: str, *states: State) -> ModelReport:
        def reached() -> ModelReport | None:
            found = self.report(device, model)
            return found if found and found.deployment == deployment and found.state in states else None

        return await self.until(reached, f"{model} {deployment} in {states}")

    async def until_committed(self, device: str, model: str, deployment: str) -> ModelReport:
        return await self.until_state(device, model, deployment, State.COMMITTED)


class RunningAgent:
    """An agent in this process."""

    def __init__(self, url: str, task: "asyncio.Task[None]", session: ClientSession) -> None:
        self.url = url
        self.task = task
        self._session = session

    async def infer(self, model: str, x: np.ndarray) -> np.ndarray:
        body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}
        async with self._session.post(f"{self.url}/v2/models/{model}/infer", json=body) as response:
            document = await response.json()
            assert response.status == 200, document
            output = document["outputs"][0]
            return np.array(output["data"], np.float32).reshape(output["shape"])

    async def status_of(self, model: str, x: np.ndarray) -> int:
        body = {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]}
        async with self._session.post(f"{self.url}/v2/models/{model}/infer", json=body) as response:
            return response.status


@asynccontextmanager
async def running_agent(
    enrolment: Enrolment, state: Path, *, pace: Pace = FAST, runtimes: Collection[str] = ()
) -> AsyncIterator[RunningAgent]:
    """Run the agent until the block ends, then stop it in order."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    options = agent.Options(state=state, port=0, pace=pace, runtimes=frozenset(runtimes))
    task = asyncio.create_task(agent.run(enrolment, options, lambda told: ready.set_result(told.http)))
    await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    async with ClientSession() as session:
        try:
            yield RunningAgent(await ready, task, session)
        finally:
            task.cancel()
            await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
