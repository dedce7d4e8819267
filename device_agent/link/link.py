"""One connection to the broker that is made again whenever it breaks.

After every CONNACK all retained state is published with fresh numbers; nothing counts as said before the manager's
`ack` with a right MAC names it. The will carries generation and boot, so a new boot number needs a new connection.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import aiomqtt

from device_agent.link.broker import make_client
from device_agent.link.outbox import Outbox
from device_agent.link.pace import Pace, chance, delay_s
from device_agent.link.voice import Voice, fitting
from device_agent.store.boot import BootCounter
from lepton_edge.errors import AuthenticationError, MessageError, StorageError
from lepton_edge.telemetry.window import Window
from lepton_edge.typed import decode, encode
from lepton_edge.wire import topics
from lepton_edge.wire.authenticator import Order
from lepton_edge.wire.broker import parse_broker
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.messages import LIMITS, ManagerStatus, Need, Status, Telemetry
from lepton_edge.wire.mqtt import honour_cancellation
from lepton_edge.wire.topics import ChunkTopic, DeviceTopic, Kind, ManagerTopic

_LOG = logging.getLogger(__name__)
_GOODBYE_S = 2.0
_MAX_MANAGERS = 64
_MAX_WINDOWS = 64
_MANAGERS = f"{topics.PREFIX}/mgr/+/status"


class WindowStore(Protocol):
    """Where telemetry windows wait for their acknowledgement."""

    def pending(self, limit: int) -> list[Window]: ...
    def acknowledge(self, ids: list[str]) -> None: ...


class Listener(Protocol):
    """Who takes the chunks of one blob, and hears when it makes sense to ask again at once."""

    def take(self, index: int, data: bytes) -> None: ...
    def wake(self) -> None: ...


class _RebootError(Exception):
    """The manager knows a higher boot number than ours: connect again under a higher one."""


class Link:
    """The device's side of the topics."""

    def __init__(
        self,
        enrolment: Enrolment,
        boots: BootCounter,
        windows: WindowStore,
        *,
        on_goal: Callable[[bytes], None],
        pace: Pace,
    ) -> None:
        """`on_goal` gets the payload of each goal that arrives, whatever it is worth; it must not block."""
        self._enrolment = enrolment
        self._address = parse_broker(enrolment.broker)
        self._boots = boots
        self._voice = Voice(enrolment, boots)
        self._windows = windows
        self._on_goal = on_goal
        self._pace = pace
        self._outbox = Outbox(pace.resend)
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._changed = asyncio.Event()
        self._tele_changed = asyncio.Event()
        self._listeners: dict[str, Listener] = {}
        self._last_repeat = self._next_repeat = -float("inf")
        self._managers: dict[str, bool] = {}
        self.forged = 0
        self._say(Kind.STATUS, Status(state="online"))

    # -- what the agent says

    def say(self, kind: Kind, body: object) -> None:
        """Publish info or reported, now or when connected, until it is acknowledged."""
        self._say(kind, body)

    def windows_added(self) -> None:
        """There is telemetry to send."""
        self._tele_changed.set()

    async def need(self, need: Need) -> bool:
        """Say what is lacking; False where there is no connection to say it on."""
        try:
            await self._publish(Kind.NEED, encode(need))
        except aiomqtt.MqttError as error:
            _LOG.debug("need is not sent: %s", error)
            return False
        return True

    @property
    def has_manager(self) -> bool:
        """Whether somebody may be there to answer: connected, and not all known managers have gone."""
        return self._connected.is_set() and (not self._managers or any(self._managers.values()))

    async def wait_connected(self) -> None:
        await self._connected.wait()

    @asynccontextmanager
    async def listening(self, blob: str, listener: Listener) -> AsyncIterator[None]:
        """Have the chunks of `blob` sent to `listener`, across reconnections."""
        self._listeners[blob] = listener
        try:
            await self._on_broker("subscribe", topics.all_chunks_of(blob))
            yield
        finally:
            del self._listeners[blob]
            await self._on_broker("unsubscribe", topics.all_chunks_of(blob))

    async def _on_broker(self, what: str, topic: str) -> None:
        if self._client is None:
            return
        try:
            if what == "subscribe":
                await self._client.subscribe(topic, qos=0)
            else:
                await self._client.unsubscribe(topic)
            honour_cancellation()
        except aiomqtt.MqttError as error:
            _LOG.debug("%s %s: %s", what, topic, error)  # the next connection subscribes to what is listened to

    # -- the connection

    async def run(self) -> None:
        """Keep a connection until cancelled; then say goodbye."""
        attempt = 0
        while True:
            try:
                await self._connect_once()
                attempt = 0
            except* aiomqtt.MqttError as group:
                if self._connected.is_set():
                    attempt = 0
                self._log_failure(group.exceptions[0], attempt)
            except* _RebootError:
                attempt = 0
            finally:
                self._connected.clear()
                self._client = None
            honour_cancellation()
            await asyncio.sleep(delay_s(self._pace.reconnect, attempt, chance()))
            attempt += 1

    def _log_failure(self, error: BaseException, attempt: int) -> None:
        level = logging.WARNING if attempt == 0 else logging.DEBUG
        _LOG.log(level, "no connection to the broker at %s, trying again: %s", self._address.url, error)

    async def _connect_once(self) -> None:
        topic, payload = self._voice.will()
        will = aiomqtt.Will(topic, payload, qos=1, retain=True)
        async with make_client(self._address, identifier=self._enrolment.device, will=will) as client:
            self._client = client
            await self._subscribe(client)
            self._outbox.again(time.monotonic())
            self._managers.clear()
            self._connected.set()
            self._wake_all()
            _LOG.info("connected to the broker at %s, boot %d", self._address.url, self._boots.boot)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._send_state(), name="link: send state")
                    tasks.create_task(self._send_telemetry(), name="link: send telemetry")
                    # In the body: where a task fails while only __aexit__ waits, Python 3.11's group leaves this task
                    # marked as cancelled for good.
                    await self._receive(client)
            except asyncio.CancelledError:
                await self._say_goodbye()
                raise

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        own = [topics.device_topic(self._enrolment.device, kind) for kind in (Kind.DESIRED, Kind.ACK, Kind.STATUS)]
        for topic in [*own, _MANAGERS]:
            await client.subscribe(topic, qos=1)
        for blob in list(self._listeners):  # listeners come and go meanwhile; a new one subscribes by itself
            await client.subscribe(topics.all_chunks_of(blob), qos=0)
        honour_cancellation()

    async def _say_goodbye(self) -> None:
        """An orderly stop says `offline` itself: the broker drops the will when a client disconnects."""
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._publish(Kind.STATUS, encode(Status(state="offline")))
        except (TimeoutError, aiomqtt.MqttError) as error:
            _LOG.debug("no goodbye: %s", error)

    # -- sending

    def _say(self, kind: Kind, body: object) -> None:
        self._outbox.put(kind, encode(body), time.monotonic())
        self._changed.set()

    async def _publish(self, kind: Kind, body: bytes) -> Order:
        """Send one message with a fresh number; returns the order that it carries."""
        if self._client is None:
            raise aiomqtt.MqttError("not connected")
        message = self._voice.next(kind, body)
        await self._client.publish(message.topic, message.payload, qos=1, retain=kind in topics.RETAINED)
        honour_cancellation()
        return message.order

    async def _send_state(self) -> None:
        while True:
            self._changed.clear()
            for item in self._outbox.due(time.monotonic()):
                order = await self._publish(item.kind, item.body)
                self._outbox.sent(item, order, time.monotonic(), chance())
            await _wait(self._changed, self._outbox.next_due() - time.monotonic())

    async def _send_telemetry(self) -> None:
        attempt = 0
        while True:
            self._tele_changed.clear()
            batch = fitting(self._windows.pending(_MAX_WINDOWS))
            if batch:
                await self._publish(Kind.TELE, encode(Telemetry(windows=batch)))
            wait = delay_s(self._pace.resend, attempt, chance()) if batch else float("inf")
            attempt = 0 if await _wait(self._tele_changed, wait) else attempt + 1

    # -- receiving

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            try:
                self._dispatch(topics.parse(message.topic.value), payload, is_old=message.retain)
            except AuthenticationError as error:
                self.forged += 1
                _LOG.warning("ignored a forged message: %s", error)
            except MessageError as error:
                _LOG.debug("ignored a message: %s", error)

    def _dispatch(self, topic: topics.Topic, payload: bytes, *, is_old: bool) -> None:
        match topic:
            case ChunkTopic(blob, index):
                if (listener := self._listeners.get(blob)) is not None:
                    listener.take(index, payload)
            case DeviceTopic(device, kind) if device == self._enrolment.device:
                self._dispatch_own(kind, payload)
            case ManagerTopic(manager):
                self._on_manager(manager, payload, is_old=is_old)

    def _dispatch_own(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.DESIRED and payload:
            self._on_goal(payload)
        elif kind is Kind.ACK:
            self._on_ack(payload)
        elif kind is Kind.STATUS and not self._voice.is_own_online(payload):
            # A will that came late, or rubbish: either way the world sees the wrong thing of us.
            self._repeat(Kind.STATUS)

    def _on_manager(self, manager: str, payload: bytes, *, is_old: bool) -> None:
        """A manager came (back): it may have missed what we said. Not authenticated, so it earns repetition at most."""
        try:
            status = decode(payload, ManagerStatus, what="manager status", limit=LIMITS[Kind.STATUS])
        except MessageError:
            return
        if manager in self._managers or len(self._managers) < _MAX_MANAGERS:
            self._managers[manager] = status.state == "online"
        if status.state == "online" and not is_old:
            self._repeat(None)
            self._wake_all()

    def _repeat(self, kind: Kind | None) -> None:
        """Publish again, but not more often than `pace.repeat`: nobody can make us flood the broker."""
        now = time.monotonic()
        if self._next_repeat <= now:
            self._next_repeat = max(now, self._last_repeat + self._pace.repeat)
        self._last_repeat = self._next_repeat
        self._outbox.again(self._next_repeat, kind)
        self._changed.set()

    def _on_ack(self, payload: bytes) -> None:
        ack = self._voice.read_ack(payload)
        if ack.boot > self._boots.boot:
            self._overtake(ack.boot)
        for kind, seen in ack.seen.items():
            self._outbox.acknowledged(kind, Order(seen.generation, seen.boot, seen.seq))
        if ack.windows:
            self._windows.acknowledge(ack.windows)
            self._tele_changed.set()
        self._changed.set()

    def _overtake(self, known: int) -> None:
        _LOG.warning("the manager knows boot %d, above ours: starting a new one", known)
        try:
            self._boots.overtake(known)
        except StorageError as error:
            _LOG.warning("no new boot number, as it cannot be kept: %s", error)  # the next ack tries again
            return
        raise _RebootError

    def _wake_all(self) -> None:
        for listener in self._listeners.values():
            listener.wake()
        self._tele_changed.set()


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event`, at most this long; whether it came."""
    try:
        async with asyncio.timeout(None if seconds == float("inf") else max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True
