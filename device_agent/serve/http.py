"""The Open Inference Protocol v2 over HTTP, on TCP and a Unix socket.

Bodies are bounded one by one and all together, before and after unpacking: a client cannot make the device run out
of memory. Every error is `{"error": "..."}` with the status that says whose fault it is.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from aiohttp import web

from device_agent.serve import v2
from device_agent.serve.engine import Engine, ServedModel
from device_agent.serve.errors import (
    InferenceTimeoutError,
    ListenError,
    OverloadedError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnknownModelError,
)
from device_agent.serve.listen import listen_tcp, listen_unix
from device_agent.serve.packing import unpack
from lepton_edge.errors import DataError, LeptonError
from lepton_edge.typed import encode
from lepton_edge.version import VERSION

_log = logging.getLogger(__name__)

_SHUTDOWN_S = 3.0
_WORTH_PACKING = 1024
_WORTH_A_THREAD = 256 * 1024
_HEADER_LENGTH = "Inference-Header-Content-Length"
_STATUS: Mapping[type[LeptonError], int] = {
    DataError: 400,
    UnknownModelError: 404,
    RequestTimeoutError: 408,
    PayloadTooLargeError: 413,
    OverloadedError: 503,
    InferenceTimeoutError: 504,
}
P = ParamSpec("P")
T = TypeVar("T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Limits:
    """What clients may cost.

    body_bytes: most bytes of one request, unpacked. held_bytes: of all requests that are being read or run.
    read_s: seconds that a client may take to send a body.
    """

    body_bytes: int = 64 * 1024 * 1024
    held_bytes: int = 256 * 1024 * 1024
    read_s: float = 60.0


class Server:
    """A running endpoint, closed as a context manager. url: of the TCP side; socket: the Unix socket, if any."""

    def __init__(self, runner: web.AppRunner, url: str, socket: Path | None) -> None:
        """Use `serve`."""
        self._runner = runner
        self.url = url
        self.socket = socket

    async def close(self) -> None:
        """Stop listening, and give requests under way a few seconds."""
        await self._runner.cleanup()
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def serve(engine: Engine, *, host: str, port: int, socket: Path | None, limits: Limits | None = None) -> Server:
    """Listen, and return once requests are answered: the server is then used as `async with server`.

    Args:
        engine: what answers; it is not closed with the server.
        host: address or name to listen on.
        port: 0 picks one.
        socket: path of the Unix socket; None: no such socket.
        limits: what clients may cost.

    Raises:
        ListenError: the port or the path is in use, or may not be used.
    """
    app = web.Application(middlewares=[_errors_as_json])
    app.add_routes(_Endpoint(engine, limits or Limits()).routes())
    # Not unpacked by aiohttp: `unpack` bounds the result and answers a broken body with one line.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S, auto_decompress=False)
    await runner.setup()
    try:
        url = await listen_tcp(runner, host, port)
        if socket is not None:
            await listen_unix(runner, socket)
    except ListenError:
        await runner.cleanup()
        raise
    return Server(runner, url, socket)


class _Endpoint:
    """The handlers."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._held = 0

    def routes(self) -> list[web.RouteDef]:
        routes = [
            web.get("/v2", self.server),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
            web.post("/v2/repository/index", self.index),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                web.get(model, self.model),
                web.get(f"{model}/ready", self.model_ready),
                web.post(f"{model}/infer", self.infer),
            ]
        return routes

    async def server(self, _: web.Request) -> web.Response:
        return _json({"name": "lepton-edge", "version": VERSION, "extensions": ["binary_tensor_data"]})

    async def live(self, _: web.Request) -> web.Response:
        return _json({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        return _json({"ready": self._engine.is_open}, status=200 if self._engine.is_open else 503)

    async def index(self, _: web.Request) -> web.Response:
        models = [model for name in self._engine.names() if (model := self._engine.serving(name))]
        return _json([{"name": m.manifest.name, "version": m.manifest.version, "state": "READY"} for m in models])

    async def model(self, request: web.Request) -> web.Response:
        served = self._served(request)
        return _json(v2.model_metadata(served.manifest, served.variant))

    async def model_ready(self, request: web.Request) -> web.Response:
        served = self._served(request)
        return _json({"name": served.manifest.name, "ready": True})

    async def infer(self, request: web.Request) -> web.Response:
        served = self._served(request)
        async with self._body(request) as body:
            length = _header_length(request)
            asked = await _off_the_loop(len(body), v2.read_request, body, length, served.manifest)
            answered, outputs = await self._engine.infer(served.manifest.name, asked.inputs)
            _check_version(answered, request)
            if answered.manifest.signature != served.manifest.signature:  # swapped since: do the outputs still exist?
                asked = v2.read_request(body, length, answered.manifest)
        size = sum(array.nbytes for array in outputs.values())
        data, header_length = await _off_the_loop(size, v2.write_answer, asked, outputs, answered)
        response = web.Response(body=data, content_type="application/json")
        if header_length is not None:
            response.content_type = "application/octet-stream"
            response.headers[_HEADER_LENGTH] = str(header_length)
        if len(data) >= _WORTH_PACKING:
            response.enable_compression()  # only where the client's Accept-Encoding asks for it
        return response

    def _served(self, request: web.Request) -> ServedModel:
        served = self._engine.serving(request.match_info["model"])
        if served is None:
            raise UnknownModelError(f"no model {request.match_info['model']!r} here; there are {self._engine.names()}")
        _check_version(served, request)
        return served

    @asynccontextmanager
    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        """Read the body; it counts as held until the block ends."""
        body = bytearray()
        held = 0
        try:
            async with _patience(self._limits.read_s):
                async for part in request.content.iter_any():
                    body += part
                    held += self._hold(len(part))
                    if len(body) > self._limits.body_bytes:
                        raise PayloadTooLargeError(f"request: more than {self._limits.body_bytes} bytes")
            encoding = request.headers.get("Content-Encoding", "")
            plain = await _off_the_loop(len(body), unpack, bytes(body), encoding, limit=self._limits.body_bytes)
            body.clear()
            held += self._hold(len(plain) - held)
            yield plain
        finally:
            self._hold(-held)

    def _hold(self, size: int) -> int:
        """Count `size` bytes as held and return it. Raises OverloadedError where all together are too many."""
        if size > 0 and self._held + size > self._limits.held_bytes:
            raise OverloadedError("too many requests are under way; try again later")
        self._held += size
        return size


@asynccontextmanager
async def _patience(read_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(read_s):
            yield
    except TimeoutError as cause:
        raise RequestTimeoutError(f"request: its body did not arrive within {read_s:g} s") from cause


def _check_version(served: ServedModel, request: web.Request) -> None:
    asked = request.match_info.get("version", served.manifest.version)
    if asked != served.manifest.version:
        raise UnknownModelError(
            f"no version {asked!r} of model {served.manifest.name!r} here; {served.manifest.version!r} answers"
        )


def _header_length(request: web.Request) -> int | None:
    text = request.headers.get(_HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise DataError(f"request: {_HEADER_LENGTH} is {text[:40]!r}, expected a number of bytes")
    return int(text)


async def _off_the_loop(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread where `size` bytes would hold up the agent's other work for long."""
    if size < _WORTH_A_THREAD:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


def _json(document: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=encode(document), status=status, content_type="application/json")


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """The one place where an error becomes a status."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = _json({"error": f"{request.method} {request.path}: {error.reason}"}, status=error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.RequestPayloadError as error:
        return _json({"error": f"request: its body does not arrive whole: {error}"}, status=400)
    except LeptonError as error:
        status = next((number for kind, number in _STATUS.items() if isinstance(error, kind)), 500)
        if status == 500:
            _log.warning("%s %s: %s", request.method, request.path, error)
        return _json({"error": str(error)}, status=status)
