"""The HTTP API from outside: who is let in, what is refused, and that nothing half-written stays."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.api.documents import PublishRequest
from fleet.api.server import build
from fleet.trust.keys import open_key
from lepton_edge.bundle import Bundle
from lepton_edge.typed import encode
from lepton_edge.wire.chunks import sha256
from lepton_edge.wire.signatures import Context, sign
from tests.fleet.bundles import make_bundle
from tests.fleet.conftest import Desk
from tests.fleet.device_twin import eventually

pytestmark = pytest.mark.parametrize("broker", ["iotcore"], indirect=True)
TOKEN = "secret"


@pytest.fixture
async def url(desk: Desk) -> AsyncIterator[str]:
    runner = web.AppRunner(build(desk.manager, TOKEN), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        yield session


def request_for(desk: Desk, bundle: Bundle, *, key: Ed25519PrivateKey | None = None) -> bytes:
    key = key or open_key(desk.manager.folder.operator_key, b"")
    signature = sign(key, Context.MANIFEST, bundle.manifest_bytes)
    return encode(PublishRequest(manifest=base64.b64encode(bundle.manifest_bytes).decode(), signature=signature))


def stored(desk: Desk) -> list[str]:
    return sorted(path.name for path in desk.manager.folder.blobs.rglob("*") if path.is_file())


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "secret", "bearer \udcff"])
async def test_without_the_token_nobody_is_let_in(url: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("utf-8", "surrogateescape").decode("latin-1")}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        for path in ("/v1/fleet", "/v1/devices", "/v1/nothing"):
            async with session.get(path) as response:
                assert response.status == 401
                assert (await response.json())["code"] == "unauthorised"


async def test_publishing_uploads_what_is_missing_once(http: aiohttp.ClientSession, desk: Desk) -> None:
    bundle = make_bundle()
    files = {ref.sha256: bundle.read(path) for path, ref in bundle.manifest.files.items()}
    async with http.post("/v1/bundles", data=request_for(desk, bundle)) as response:
        assert response.status == 202
        assert (await response.json())["missing"] == sorted(files)
    for digest, data in files.items():
        async with http.put(f"/v1/blobs/{digest}", data=data) as response:
            assert response.status == 204
    for _ in range(2):
        async with http.post("/v1/bundles", data=request_for(desk, bundle)) as response:
            assert response.status == 201
    assert stored(desk) == sorted([*files, bundle.digest])
    async with http.get("/v1/bundles") as response:
        assert await response.json() == {"digests": {bundle.digest: "digits-1"}}


@dataclass(frozen=True)
class Upload:
    path: str
    body: bytes
    says: str
    status: int = 422


GOOD = b"model"
UPLOADS = {
    "wrong hash": Upload(sha256(GOOD), b"madel", "the bytes hash to"),
    "no hash": Upload("x" * 64, GOOD, "not a SHA-256", 400),
    "upper case": Upload(sha256(GOOD).upper(), GOOD, "not a SHA-256", 400),
    "path": Upload("..%2F..%2Ftoken", GOOD, "not a SHA-256", 400),
}


@pytest.mark.parametrize("case", UPLOADS.values(), ids=UPLOADS)
async def test_bad_upload_leaves_nothing(http: aiohttp.ClientSession, desk: Desk, case: Upload) -> None:
    async with http.put(f"/v1/blobs/{case.path}", data=case.body) as response:
        assert response.status == case.status
        assert case.says in (await response.json())["message"]
    assert stored(desk) == []


def _head(length: str) -> str:
    path = f"/v1/blobs/{sha256(GOOD)}"
    return f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{length}\r\n\r\n"


async def _raw(url: str, head: str, body: bytes, *, close: bool) -> bytes:
    """Speak HTTP by hand, to say one thing and do another."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body)
    if close:
        writer.write_eof()
    try:
        async with asyncio.timeout(5):
            return await reader.read(4096)
    finally:
        writer.close()


async def test_truncated_upload_leaves_nothing(url: str, desk: Desk) -> None:
    await _raw(url, _head("Content-Length: 5"), GOOD[:3], close=True)
    await eventually(lambda: stored(desk) == [])


async def test_oversized_upload_is_refused_before_it_is_read(url: str, desk: Desk) -> None:
    for length in (f"Content-Length: {2**40}", "Transfer-Encoding: chunked"):
        assert b"needs a Content-Length of at most" in await _raw(url, _head(length), b"", close=False)
    assert stored(desk) == []


async def _refused(http: aiohttp.ClientSession, body: bytes | io.BytesIO, says: str) -> None:
    async with http.post("/v1/bundles", data=body) as response:
        assert 400 <= response.status < 500
        assert says in (await response.json())["message"]


async def test_bad_bundles_are_refused_and_leave_nothing(http: aiohttp.ClientSession, desk: Desk) -> None:
    bundle = make_bundle()
    thief = Ed25519PrivateKey.generate()
    good = request_for(desk, bundle)
    await _refused(http, request_for(desk, bundle, key=thief), "not trusted here")
    await _refused(http, good.replace(b'"sig":"', b'"sig":"AAAA'), "the signature is wrong")
    await _refused(http, good[:-20], "not valid JSON")
    await _refused(http, b'{"manifest": "!", "signature": {"keyid": "", "sig": ""}}', "not base64")
    await _refused(http, io.BytesIO(b"x" * (13 << 20)), "Request Entity Too Large")
    damaged = msgspec.structs.replace(bundle.manifest, files={"../x": bundle.manifest_ref})
    key = open_key(desk.manager.folder.operator_key, b"")
    document = encode(damaged)
    request = PublishRequest(
        manifest=base64.b64encode(document).decode(), signature=sign(key, Context.MANIFEST, document)
    )
    await _refused(http, encode(request), "'../x' is not allowed")
    assert stored(desk) == []
    async with http.get("/v1/bundles") as response:
        assert await response.json() == {"digests": {}}


async def test_manifest_whose_chunks_are_not_the_files_is_refused(http: aiohttp.ClientSession, desk: Desk) -> None:
    bundle = make_bundle()
    files = dict(bundle.manifest.files)
    ref = files["int8.onnx"]
    files["int8.onnx"] = msgspec.structs.replace(ref, chunks=[("0" * 64, size) for _, size in ref.chunks])
    for path in files:
        desk.manager.blobs.put(bundle.read(path))
    document = encode(msgspec.structs.replace(bundle.manifest, files=files))
    key = open_key(desk.manager.folder.operator_key, b"")
    request = PublishRequest(
        manifest=base64.b64encode(document).decode(), signature=sign(key, Context.MANIFEST, document)
    )
    await _refused(http, encode(request), "its chunks are not those of its content")


async def test_other_content_under_a_known_version_is_a_conflict(http: aiohttp.ClientSession, desk: Desk) -> None:
    await desk.publish(make_bundle(seed=1))
    async with http.post("/v1/bundles", data=request_for(desk, make_bundle(seed=2))) as response:
        assert response.status == 409
        assert "give yours a new version" in (await response.json())["message"]


@pytest.mark.parametrize("device", ["a+b", "%2Fx", "a%23", "%20", "x" * 64])
async def test_impossible_device_ids_are_refused(http: aiohttp.ClientSession, device: str) -> None:
    async with http.post(f"/v1/devices/{device}/enrolments", data=b"{}") as response:
        assert response.status == 400
        assert "is not allowed: use 1 to 63" in (await response.json())["message"]


async def test_long_poll_answers_on_a_change_and_at_its_end(http: aiohttp.ClientSession, desk: Desk) -> None:
    async with http.get("/v1/devices") as response:
        revision = (await response.json())["revision"]
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with http.get(f"/v1/devices?after={revision}&wait_s=0.2") as response:
        assert (await response.json())["revision"] == revision
    assert loop.time() - began >= 0.2
    waiting = asyncio.create_task(_devices(http, f"/v1/devices?after={revision}&wait_s=20"))
    await desk.enrol("dev-1")
    async with asyncio.timeout(10):
        assert [device["id"] for device in (await waiting)["devices"]] == ["dev-1"]


async def _devices(http: aiohttp.ClientSession, path: str):
    async with http.get(path) as response:
        return await response.json()


async def test_unknown_things_are_named(http: aiohttp.ClientSession) -> None:
    cases = [
        ("GET", "/v1/rollouts/r-9", b"", 404, "rollout 'r-9' is unknown"),
        ("GET", "/v1/telemetry?by=moon", b"", 400, "use all, device or variant"),
        ("GET", "/v1/devices?wait_s=x", b"", 400, "wait_s: not a number"),
        ("POST", "/v1/adoptions", b'{"device":"x"}', 404, "'x' is not enrolled"),
        ("POST", "/v1/removals", b'{"model":"m","to":"all"}', 404, "no enrolled device"),
        ("POST", "/v1/rollouts", b"[]", 400, "POST /v1/rollouts"),
        ("GET", "/v2/devices", b"", 404, "Not Found"),
        ("DELETE", "/v1/devices", b"", 405, "Method Not Allowed"),
    ]
    for method, path, body, status, says in cases:
        async with http.request(method, path, data=body) as response:
            assert response.status == status, path
            assert says in (await response.json())["message"]
