"""`fleet serve`: the manager's process, with the embedded broker as its child, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from fleet.api.server import build
from fleet.broker.embedded import EmbeddedBroker
from fleet.folder import FleetFolder, Serving
from fleet.manager import Manager
from fleet.registry.database import migrate
from lepton_edge import durable
from lepton_edge.errors import ConnectionFailedError, NotYetSupportedError, UsageError
from lepton_edge.wire.broker import parse_broker

log = logging.getLogger(__name__)

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_BROKER_BACKOFF_S = 1.0
_GOODBYE_S = 2.0


def parse_http(text: str) -> tuple[str, int]:
    """Read HOST:PORT.

    Raises:
        UsageError: no such form.
        NotYetSupportedError: an address that other machines could reach: the token would travel in the clear.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise UsageError(f"--http {text!r}: expected HOST:PORT, such as 127.0.0.1:8700")
    if host not in _LOOPBACK:
        raise NotYetSupportedError(f"--http {text}: not yet: an API beyond loopback needs TLS; use 127.0.0.1:{port}")
    return host, int(port)


@asynccontextmanager
async def _embedded(folder: FleetFolder, port: int) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(folder.broker, port=port)
    await asyncio.to_thread(broker.start)
    try:
        yield broker
    finally:
        await asyncio.to_thread(broker.stop)


async def _keep_running(broker: EmbeddedBroker) -> None:
    """Start the broker again whenever it ends by itself."""
    while True:
        await asyncio.to_thread(broker.wait)
        log.warning("the embedded broker ended; starting it again")
        try:
            await asyncio.to_thread(broker.start)
        except ConnectionFailedError as cause:
            log.error("%s", cause)  # noqa: TRY400
            await asyncio.sleep(_BROKER_BACKOFF_S)


@asynccontextmanager
async def _http(manager: Manager, host: str, port: int) -> AsyncIterator[str]:
    """Serve the API; yields its URL. Raises ConnectionFailedError: the port is in use."""
    runner = web.AppRunner(build(manager, manager.folder.token()), access_log=None, shutdown_timeout=_GOODBYE_S)
    await runner.setup()
    try:
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
        except OSError as cause:
            reason = os.strerror(cause.errno) if cause.errno else str(cause)
            raise ConnectionFailedError(f"{host}:{port}: {reason}; choose another with --http") from cause
        found = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{found}"
    finally:
        await runner.cleanup()


async def serve(folder: FleetFolder, *, http: str, broker_url: str, on_ready: Callable[[Serving], None]) -> None:
    """Serve a fleet until SIGTERM or SIGINT.

    Args:
        http: HOST:PORT; empty: as configured.
        broker_url: empty: as configured, else the embedded broker.
        on_ready: called once everything answers.

    Raises:
        BusyError: another process serves this folder.
        ConnectionFailedError: a port is in use, or the broker does not answer.
    """
    config = folder.config()
    host, port = parse_http(http or config.http)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(folder.locked())
        durable.remove_leftovers(folder.root)
        migrate(folder.database_url)
        url = broker_url or config.broker.url
        broker = None if url else await stack.enter_async_context(_embedded(folder, config.broker.port))
        address = parse_broker(broker.url if broker is not None else url)
        await _serve_on(Manager(folder, config, address), (host, port), broker, on_ready=on_ready)


async def _serve_on(
    manager: Manager,
    where: tuple[str, int],
    broker: EmbeddedBroker | None,
    *,
    on_ready: Callable[[Serving], None],
) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        manager.blobs.clean()
        await manager.start()
        await manager.link.check()
        async with _http(manager, *where) as url, asyncio.TaskGroup() as group:
            tasks = [group.create_task(manager.run(), name="manager")]
            if broker is not None:
                tasks.append(group.create_task(_keep_running(broker), name="broker"))
            serving = Serving(http=url, broker=manager.address.url, pid=os.getpid())
            manager.folder.announce(serving)
            on_ready(serving)
            await stopped.wait()
            manager.folder.withdraw()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await manager.link.goodbye()
            for task in tasks:
                task.cancel()
    finally:
        await manager.close()
