"""The manager's connection: kept up with backoff, its own will, and a greeting after every CONNACK.

Retained messages are a cache that brokers lose, so the greeting publishes all of the manager's again.
"""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable

import aiomqtt

from lepton_edge.errors import ConnectionFailedError
from lepton_edge.typed import encode
from lepton_edge.wire.broker import BrokerAddress
from lepton_edge.wire.messages import ManagerStatus
from lepton_edge.wire.mqtt import NO_DELAY, honour_cancellation
from lepton_edge.wire.topics import from_all_devices, manager_topic

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
TIMEOUT_S = 5.0
"""For each exchange with the broker; also how long a CONNECT waits that a dying broker swallowed."""
_STABLE_S = 5.0
_PENDING = 4096
_QUIET = logging.getLogger("fleet.link.mqtt")
_QUIET.setLevel(logging.ERROR)  # paho tells of each packet


class Link:
    """The connection, and all publishing."""

    def __init__(
        self,
        address: BrokerAddress,
        *,
        manager: str,
        started_ms: int,
        on_message: Callable[[str, bytes], None],
        on_connected: Callable[[], Awaitable[None]],
    ) -> None:
        """Args: on_message: must not block. on_connected: publishes what is retained; cancelled when the link fails."""
        self._address = address
        self._manager = manager
        self._started_ms = started_ms
        self._on_message = on_message
        self._on_connected = on_connected
        self._client: aiomqtt.Client | None = None
        self._limits: set[asyncio.Timeout] = set()

    @property
    def is_connected(self) -> bool:
        return self._client is not None

    async def check(self) -> None:
        """Connect once, to say at the start whether the broker is there. Raises ConnectionFailedError."""
        try:
            async with self._new_client(f"{self._manager}-check", will=False):
                pass
        except aiomqtt.MqttError as cause:
            raise ConnectionFailedError(f"broker {self._address.url} does not answer: {cause}") from cause

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = FIRST_BACKOFF_S
        loop = asyncio.get_running_loop()
        while True:
            honour_cancellation()
            began = loop.time()
            try:
                await self._session()
            except* aiomqtt.MqttError as lost:
                log.warning("broker %s: %s; trying again", self._address.url, lost.exceptions[0])
            if loop.time() - began > _STABLE_S:
                backoff = FIRST_BACKOFF_S
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            backoff = min(MAX_BACKOFF_S, backoff * 2)

    async def _session(self) -> None:
        async with self._new_client(self._manager, will=True) as client:
            client.pending_calls_threshold = _PENDING
            await client.subscribe([(topic, 1) for topic in from_all_devices()])
            honour_cancellation()
            self._client = client
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._greet(), name="greet")
                    async for message in client.messages:
                        if isinstance(message.payload, bytes):
                            self._on_message(str(message.topic), message.payload)
            finally:
                self._client = None
                self._give_up_publishing()

    def _new_client(self, identifier: str, *, will: bool) -> aiomqtt.Client:
        topic = manager_topic(self._manager)
        offline = encode(ManagerStatus(state="offline", started_ms=self._started_ms))
        return aiomqtt.Client(
            self._address.host,
            self._address.port,
            identifier=f"lepton-{identifier}",
            protocol=aiomqtt.ProtocolVersion.V5,
            will=aiomqtt.Will(topic, offline, qos=1, retain=True) if will else None,
            logger=_QUIET,
            keepalive=20,
            timeout=TIMEOUT_S,
            socket_options=NO_DELAY,
        )

    async def _greet(self) -> None:
        status = ManagerStatus(state="online", started_ms=self._started_ms)
        await self.publish(manager_topic(self._manager), encode(status), qos=1, retain=True)
        await self._on_connected()

    async def goodbye(self) -> None:
        """Say that this manager stops on purpose."""
        status = ManagerStatus(state="offline", started_ms=self._started_ms)
        await self.publish(manager_topic(self._manager), encode(status), qos=1, retain=True)

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> bool:
        """Hand a message to the broker; False where that failed: whoever needs it asks again, or is greeted."""
        client = self._client
        if client is None:
            return False
        try:
            async with asyncio.timeout(TIMEOUT_S) as limit:
                self._limits.add(limit)
                try:
                    await client.publish(topic, payload, qos=qos, retain=retain, timeout=math.inf)
                finally:
                    self._limits.discard(limit)
        except (aiomqtt.MqttError, TimeoutError) as cause:
            log.info("not published to %s: %s", topic, cause)
            return False
        honour_cancellation()
        return True

    def _give_up_publishing(self) -> None:
        """End all waits for an answer that cannot come any more; aiomqtt itself would wait on."""
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)
