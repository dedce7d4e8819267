"""The API's routes on aiohttp: check the token, read typed JSON, call an operation, answer typed JSON."""

import hmac
import logging
import math
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from fleet import operations
from fleet.api import views
from fleet.api.documents import (
    MAX_REQUEST,
    AdoptRequest,
    Bundles,
    DeviceIds,
    EnrolRequest,
    FleetAnswer,
    Problem,
    PublishRequest,
    RemoveRequest,
    RolloutRequest,
    Rollouts,
    TelemetryAnswer,
)
from fleet.clock import now_ms
from fleet.errors import FleetError
from fleet.manager import Manager
from fleet.telemetry.lines import By
from fleet.telemetry.summary import summarise
from lepton_edge.errors import LeptonError, StorageError
from lepton_edge.typed import decode, encode
from lepton_edge.version import VERSION
from lepton_edge.wire.chunks import MAX_BLOB_SIZE, is_digest

log = logging.getLogger(__name__)

R = TypeVar("R")
MAX_WAIT_S = 30.0
_PART = 256 * 1024


def _answer(document: object, status: int = 200) -> web.Response:
    return web.Response(body=encode(document), status=status, content_type="application/json")


def _problem(error: LeptonError) -> web.Response:
    status = 422
    if isinstance(error, FleetError):
        status = error.status
    elif isinstance(error, StorageError):
        status = 507
    return _answer(Problem(code=error.code, message=str(error)), status)


def guard(token: str) -> Middleware:
    """The middleware: the bearer token on every request, errors of ours as typed answers."""
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            return _answer(Problem(code="unauthorised", message="the API token is missing or wrong"), 401)
        try:
            return await handler(request)
        except LeptonError as error:
            log.info("%s %s: %s", request.method, request.path, error)
            return _problem(error)
        except web.HTTPException as error:
            return _answer(Problem(code="http", message=error.reason), error.status)

    return middleware


async def _read(request: web.Request, kind: type[R]) -> R:
    return decode(
        await request.read(), kind, what=f"{request.method} {request.path}", limit=MAX_REQUEST, error=FleetError
    )


def _number(request: web.Request, name: str) -> float:
    try:
        number = float(request.query.get(name, "0"))
    except ValueError as cause:
        raise FleetError(f"{name}: not a number") from cause
    if not math.isfinite(number):
        raise FleetError(f"{name}: not a number")
    return number


def _by(text: str) -> By:
    try:
        found: By = msgspec.convert(text, By)
    except msgspec.ValidationError as cause:
        raise FleetError(f"by={text[:20]!r}: use all, device or variant") from cause
    return found


class Routes:
    """The handlers, on one manager."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/fleet", self.fleet),
            web.get("/v1/bundles", self.bundles),
            web.post("/v1/bundles", self.publish),
            web.put("/v1/blobs/{digest}", self.put_blob),
            web.post("/v1/rollouts", self.push),
            web.get("/v1/rollouts", self.rollouts),
            web.get("/v1/rollouts/{id}", self.rollout),
            web.get("/v1/devices", self.devices),
            web.post("/v1/devices/{id}/enrolments", self.enrol),
            web.post("/v1/adoptions", self.adopt),
            web.post("/v1/removals", self.remove),
            web.get("/v1/telemetry", self.telemetry),
        ]

    async def fleet(self, _request: web.Request) -> web.Response:
        manager = self._manager
        return _answer(
            FleetAnswer(
                fleet=manager.config.fleet,
                version=VERSION,
                broker=manager.address.url,
                connected=manager.link.is_connected,
                operator_keys=[key.keyid for key in manager.folder.operator_keys()],
            )
        )

    async def publish(self, request: web.Request) -> web.Response:
        answer = await operations.publish(self._manager, await _read(request, PublishRequest))
        return _answer(answer, 201 if answer.published else 202)

    async def bundles(self, _request: web.Request) -> web.Response:
        return _answer(Bundles(digests=await self._manager.database.run(views.published)))

    async def put_blob(self, request: web.Request) -> web.Response:
        """Streamed to the disk; known contents are accepted again."""
        digest, size = request.match_info["digest"], request.content_length
        if not is_digest(digest):
            raise FleetError("blob: its name is not a SHA-256 in lower-case hex")
        if size is None or size > MAX_BLOB_SIZE:
            raise FleetError(f"blob: needs a Content-Length of at most {MAX_BLOB_SIZE} bytes")
        await self._manager.blobs.receive(digest, size, request.content.iter_chunked(_PART))
        return web.Response(status=204)

    async def push(self, request: web.Request) -> web.Response:
        return _answer(await operations.push(self._manager, await _read(request, RolloutRequest)), 201)

    async def rollouts(self, _request: web.Request) -> web.Response:
        found = await self._manager.database.run(lambda session: views.all_rollouts(session, now_ms()))
        return _answer(Rollouts(rollouts=found))

    async def rollout(self, request: web.Request) -> web.Response:
        """With `after` and `wait_s`: answers when something changed since revision `after`."""
        revision = await self._wait(request)
        name = request.match_info["id"]
        found = await self._manager.database.run(lambda session: views.rollout(session, name, now_ms()))
        return _answer(msgspec.structs.replace(found, revision=revision))

    async def devices(self, request: web.Request) -> web.Response:
        """With `after` and `wait_s`, as `rollout`."""
        revision = await self._wait(request)
        found = await self._manager.database.run(views.all_devices)
        return _answer(msgspec.structs.replace(found, revision=revision))

    async def _wait(self, request: web.Request) -> int:
        wait_s = min(MAX_WAIT_S, _number(request, "wait_s"))
        if wait_s > 0:
            await self._manager.changes.after(int(_number(request, "after")), wait_s)
        return self._manager.changes.revision  # before the read: a change meanwhile answers the next call at once

    async def enrol(self, request: web.Request) -> web.Response:
        document = await _read(request, EnrolRequest)
        return _answer(await operations.enrol(self._manager, request.match_info["id"], document.labels), 201)

    async def adopt(self, request: web.Request) -> web.Response:
        document = await _read(request, AdoptRequest)
        return _answer(DeviceIds(devices=await operations.adopt(self._manager, document.device)))

    async def remove(self, request: web.Request) -> web.Response:
        document = await _read(request, RemoveRequest)
        return _answer(DeviceIds(devices=await operations.remove(self._manager, document.model, document.to)))

    async def telemetry(self, request: web.Request) -> web.Response:
        model, by = request.query.get("model", ""), _by(request.query.get("by", "all"))
        lines = await self._manager.database.run(lambda session: summarise(session, model=model, by=by))
        return _answer(TelemetryAnswer(by=by, lines=lines))


def build(manager: Manager, token: str) -> web.Application:
    """The application, ready to run."""
    application = web.Application(middlewares=[guard(token)], client_max_size=MAX_REQUEST)
    application.add_routes(Routes(manager).table())
    return application
