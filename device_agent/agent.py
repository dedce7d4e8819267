"""The agent: store, engine, endpoint, updater and link, tied together.

Order at start: the state folder is taken, the committed models answer, the endpoint listens, and only then comes the
network. A broker that is away delays deployments and telemetry, never an inference.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.info import device_of, probe
from device_agent.link.link import Link
from device_agent.link.pace import Pace, chance
from device_agent.link.transfer import Transfer
from device_agent.serve.engine import Engine
from device_agent.serve.http import Server, serve
from device_agent.status import Ready
from device_agent.store import documents
from device_agent.store.blobs import Blobs
from device_agent.store.boot import BootCounter
from device_agent.store.layout import Layout, locked
from device_agent.telemetry.ring import Ring
from device_agent.threads import in_thread
from device_agent.trust import OperatorKeys
from device_agent.updater.follower import Follower
from device_agent.updater.parts import Parts, now_ms, os_boot_id
from lepton_edge.errors import StorageError
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.topics import Kind

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to run.

    state: the folder for all that must outlive the process. port: 0 picks one. runtimes: that may be used; none: all
    that are installed.
    """

    state: Path
    host: str = "127.0.0.1"
    port: int = 8600
    socket: Path | None = None
    pace: Pace = field(default_factory=Pace)
    runtimes: frozenset[str] = frozenset()


async def run(enrolment: Enrolment, options: Options, on_ready: Callable[[Ready], None]) -> None:
    """Be the agent until cancelled.

    Args:
        on_ready: called once the endpoint answers, with the committed models; the broker may still be away.

    Raises:
        UsageError: the enrolment names an impossible broker.
        StorageError: the state folder cannot be used, or another agent uses it.
        ListenError: the endpoint cannot listen.
    """
    layout = Layout(options.state)
    with locked(options.state):
        layout.create()
        engine = Engine()
        try:
            await _Agent(enrolment, options, layout, engine).run(on_ready)
        finally:
            await engine.close()


class _Agent:
    """One life of the agent."""

    def __init__(self, enrolment: Enrolment, options: Options, layout: Layout, engine: Engine) -> None:
        self._enrolment = enrolment
        self._options = options
        self._layout = layout
        self._engine = engine
        self._ring = Ring(layout.telemetry)
        self._boots = BootCounter(layout.boot)
        self._follower = Follower(enrolment, layout, lambda reported: self._link.say(Kind.REPORTED, reported))
        self._link = Link(enrolment, self._boots, self._ring, on_goal=self._follower.receive, pace=options.pace)
        self._info = probe(options.state, enrolment.labels, only=options.runtimes)
        self._parts = Parts(
            layout=layout,
            blobs=Blobs(layout.blobs, layout.partial),
            transfer=Transfer(self._link, options.pace),
            engine=engine,
            verifier=OperatorKeys(enrolment.operator_keys),
            device=device_of(self._info),
            boot_id=os_boot_id(),
            chance=chance,
            changed=self._follower.changed,
            ended=self._follower.ended,
            make_room=self._follower.make_room,
        )

    async def run(self, on_ready: Callable[[Ready], None]) -> None:
        await self._follower.restore(self._parts)
        options = self._options
        server = await serve(self._engine, host=options.host, port=options.port, socket=options.socket)
        async with server:
            await in_thread(self._boots.begin, now_ms())
            on_ready(self._ready(server))
            self._link.say(Kind.INFO, self._info)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._follower.run(self._parts), name="agent: follower")
                    tasks.create_task(self._link.run(), name="agent: link")
                    tasks.create_task(self._record_telemetry(), name="agent: telemetry")
            finally:
                self._keep_windows()

    def _ready(self, server: Server) -> Ready:
        enrolment = self._enrolment
        ready = Ready(
            id=enrolment.device,
            http=server.url,
            socket=str(server.socket or ""),
            pid=os.getpid(),
            broker=enrolment.broker,
        )
        try:
            documents.save(self._layout.ready, ready)
        except StorageError as error:
            _LOG.warning("`agent status` will not know this agent's address: %s", error)
        return ready

    async def _record_telemetry(self) -> None:
        """Every `telemetry_s` seconds, move what the engine counted into the ring."""
        changed = self._follower.settings_changed
        started = time.monotonic()
        while True:
            left = started + self._follower.settings.telemetry_s - time.monotonic()
            changed.clear()
            try:
                async with asyncio.timeout(max(0.0, left)):
                    await changed.wait()
            except TimeoutError:
                self._keep_windows()
                started = time.monotonic()

    def _keep_windows(self) -> None:
        windows = self._engine.take_windows(now_ms())
        for window in windows:
            self._ring.add(window)
        if windows:
            self._link.windows_added()
