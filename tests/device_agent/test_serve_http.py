"""The endpoint, as the real tritonclient and aiohttp's client see it."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from device_agent.serve.engine import Engine
from device_agent.serve.errors import ListenError
from device_agent.serve.http import Limits, Server, serve
from lepton_edge.bundle import ModelSignature
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import SelfTestError
from tests.device_agent.models import plus_one, served, tensor

DTYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
ALL_TYPES = ModelSignature(
    inputs=[tensor(f"in_{dtype}", dtype, "n", 3) for dtype in DTYPES],
    outputs=[tensor(f"out_{dtype}", dtype, "n", 3) for dtype in DTYPES],
)


def echo(inputs: Mapping[str, Array]) -> Arrays:
    return {name.replace("in_", "out_"): array for name, array in inputs.items()}


def broken(inputs: Mapping[str, Array]) -> Arrays:
    raise SelfTestError("the runtime failed")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    engine.install(served(plus_one, name="plus-one", version="1.0"))
    engine.install(served(echo, ALL_TYPES, name="echo"))
    engine.install(served(broken, name="broken"))
    yield engine
    await engine.close()


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[Server]:
    limits = Limits(body_bytes=100_000, held_bytes=250_000)
    async with await serve(engine, host="127.0.0.1", port=0, socket=tmp_path / "s", limits=limits) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as client:
        yield client


def extremes(dtype: str) -> Array:
    if dtype == "bool":
        return np.array([[True, False, True]])
    if dtype.startswith("float"):
        return np.array([[np.finfo(dtype).max, np.finfo(dtype).tiny, -0.5]], dtype)
    return np.array([[np.iinfo(dtype).max, np.iinfo(dtype).min, 1]], dtype)


def triton(server: Server) -> Any:
    http = pytest.importorskip("tritonclient.http")
    return http, http.InferenceServerClient(server.url.removeprefix("http://"))


@pytest.mark.parametrize("how", ["binary", "json", "gzip", "deflate", "default"])
async def test_tritonclient_gets_every_datatype_back(server: Server, how: str) -> None:
    def talk() -> None:
        http, client = triton(server)
        sent = {dtype: extremes(dtype) for dtype in DTYPES}
        inputs, outputs = [], []
        for dtype, array in sent.items():
            binary = how != "json" or dtype == "float16"  # FP16 has no JSON form
            inputs.append(http.InferInput(f"in_{dtype}", list(array.shape), DTYPES[dtype]))
            inputs[-1].set_data_from_numpy(array, binary_data=binary)
            outputs.append(http.InferRequestedOutput(f"out_{dtype}", binary_data=binary))
        packing = how if how in ("gzip", "deflate") else None
        result = client.infer(
            "echo",
            inputs,
            outputs=None if how == "default" else outputs,
            request_id="42",
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        assert result.get_response()["id"] == "42"
        for dtype, array in sent.items():
            got = result.as_numpy(f"out_{dtype}")
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)
        client.close()

    await asyncio.to_thread(talk)


async def test_tritonclient_asks_after_server_and_models(server: Server) -> None:
    def talk() -> None:
        _, client = triton(server)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("plus-one")
        assert client.is_model_ready("plus-one", "1.0")
        assert not client.is_model_ready("plus-one", "2.0")
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata()["name"] == "lepton-edge"
        assert client.get_model_metadata("plus-one") == {
            "name": "plus-one",
            "versions": ["1.0"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        }
        assert [model["name"] for model in client.get_model_repository_index()] == ["broken", "echo", "plus-one"]
        client.close()

    await asyncio.to_thread(talk)


async def test_tritonclients_large_packed_tensors_arrive(engine: Engine) -> None:
    array = np.arange(600_000, dtype=np.float32).reshape(-1, 2)

    def talk(server: Server) -> None:
        http, client = triton(server)
        for packing in (None, "gzip", "deflate"):
            tensor = http.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
            how = {"request_compression_algorithm": packing, "response_compression_algorithm": packing}
            np.testing.assert_array_equal(client.infer("plus-one", [tensor], **how).as_numpy("y"), array + 1)
        client.close()

    async with await serve(engine, host="127.0.0.1", port=0, socket=None) as server:
        await asyncio.to_thread(talk, server)


async def test_tritonclients_asyncio_client_infers(server: Server) -> None:
    http = pytest.importorskip("tritonclient.http.aio")
    async with http.InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = http.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 2), np.float32))
        result = await client.infer("plus-one", [tensor], model_version="1.0")
        assert result.as_numpy("y").tolist() == [[1, 1]]


def body(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1.5, 2]]}
    return {"inputs": [{**tensor, **changes.pop("input", {})}], **changes}


async def test_an_answer_says_who_gave_it(client: aiohttp.ClientSession) -> None:
    async with client.post("/v2/models/plus-one/infer", json=body(id="7")) as response:
        assert response.status == 200
        assert await response.json() == {
            "model_name": "plus-one",
            "model_version": "1.0",
            "id": "7",
            "parameters": {"variant": "float-onnx", "bundle": "b" * 64},
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.5, 3]}],
        }


async def test_the_unix_socket_answers_like_the_port(server: Server, tmp_path: Path) -> None:
    assert server.socket == tmp_path / "s"
    assert server.socket.stat().st_mode & 0o777 == 0o660
    async with (
        aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(server.socket))) as client,
        client.post("/v2/models/plus-one/versions/1.0/infer", json=body()) as response,
    ):
        assert (await response.json())["outputs"][0]["data"] == [2.5, 3]


X, PLUS = "/v2/models/plus-one/infer", "/v2/models/plus-one"
REFUSED: dict[str, tuple[int, str, dict[str, Any] | bytes, str]] = {
    "no JSON": (400, X, b"{nope", "not valid JSON"),
    "no object": (400, X, b"[]", "Expected `object`"),
    "no inputs": (400, X, {}, "missing required field `inputs`"),
    "wrong name": (400, X, body(input={"name": "z"}), "none of the model's inputs"),
    "twice": (400, X, {"inputs": body()["inputs"] * 2}, "twice"),
    "missing": (400, X, {"inputs": []}, "the model takes"),
    "wrong shape": (400, X, body(input={"shape": [2, 1]}), "has shape"),
    "too few data": (400, X, body(input={"data": [1.0]}), "1 elements, its shape takes 2"),
    "ragged": (400, X, body(input={"data": [[1.0], 2.0]}), "nested unevenly"),
    "no numbers": (400, X, body(input={"data": ["1", "2"]}), "not all of its data are FP32"),
    "null": (400, X, body(input={"data": [1.0, None]}), "not all of its data are FP32"),
    "too large a number": (400, X, body(input={"data": [1e300, 1]}), "not all of its data are FP32"),
    "no data": (400, X, body(input={"data": None}), "needs either data"),
    "negative shape": (400, X, body(input={"shape": [-1, 2]}), "Expected `int` >= 0"),
    "empty": (400, X, body(input={"shape": [0, 2], "data": []}), "empty"),
    "other datatype": (400, X, body(input={"datatype": "FP64"}), "the model takes FP32"),
    "shared memory": (400, X, body(input={"parameters": {"shared_memory_region": "r"}}), "shared memory"),
    "unknown output": (400, X, body(outputs=[{"name": "z"}]), "none of the model's outputs"),
    "classification": (400, X, body(outputs=[{"name": "y", "parameters": {"classification": 3}}]), "not supported"),
    "unknown model": (404, "/v2/models/nobody/infer", body(), "no model 'nobody' here"),
    "unknown version": (404, f"{PLUS}/versions/2.0/infer", body(), "no version '2.0'"),
    "unknown path": (404, "/v2/else", b"", "Not Found"),
    "wrong method": (405, "/v2/health/live", b"", "Method Not Allowed"),
    "too large": (413, X, b" " * 100_001, "more than 100000 bytes"),
    "failing model": (500, "/v2/models/broken/infer", body(), "the runtime failed"),
}


@pytest.mark.parametrize(("status", "path", "data", "message"), REFUSED.values(), ids=REFUSED)
async def test_a_bad_request_gets_one_clear_line(
    client: aiohttp.ClientSession, status: int, path: str, data: dict[str, Any] | bytes, message: str
) -> None:
    async with client.post(path, data=data if isinstance(data, bytes) else json.dumps(data)) as response:
        assert response.status == status
        assert message in (await response.json())["error"]


HEADER = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}]}
).encode()
BAD_BINARY = {
    "no length": (HEADER + b"12345678", None, "not valid JSON"),
    "length is no number": (HEADER + b"12345678", "-1", "expected a number of bytes"),
    "length beyond the body": (HEADER + b"12345678", "100000", "the body has"),
    "short data": (HEADER + b"1234", str(len(HEADER)), "only 4 bytes are left"),
    "long data": (HEADER + b"123456789", str(len(HEADER)), "1 bytes more than its inputs take"),
    "size and shape differ": (
        HEADER.replace(b": 8", b": 9") + b"123456789", str(len(HEADER)), "its shape and type take 8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "length", "message"), BAD_BINARY.values(), ids=BAD_BINARY)
async def test_bad_binary_data_get_one_clear_line(
    client: aiohttp.ClientSession, data: bytes, length: str | None, message: str
) -> None:
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    async with client.post(X, data=data, headers=headers) as response:
        assert response.status == 400
        assert message in (await response.json())["error"]


PACKED = {
    "a gzip bomb": ("gzip", gzip.compress(b" " * 50_000_000), 413),
    "a deflate bomb": ("deflate", zlib.compress(b" " * 50_000_000), 413),
    "no gzip": ("gzip", b"this is no gzip", 400),
    "cut off": ("gzip", gzip.compress(b"{}")[:-1], 400),
    "more follows": ("deflate", zlib.compress(b"{}") + b"more", 400),
    "an unknown packing": ("rot13", b"{}", 400),
}


@pytest.mark.parametrize(("encoding", "data", "status"), PACKED.values(), ids=PACKED)
async def test_packed_bodies_are_bounded_and_checked(
    client: aiohttp.ClientSession, encoding: str, data: bytes, status: int
) -> None:
    async with client.post(X, data=data, headers={"Content-Encoding": encoding}) as response:
        assert response.status == status
        assert (await response.json())["error"].startswith("request: ")
    async with client.post(X, json=body()) as response:
        assert response.status == 200


async def test_bodies_are_bounded_together_too(client: aiohttp.ClientSession, server: Server) -> None:
    def endless() -> tuple[asyncio.Event, AsyncIterator[bytes]]:
        release = asyncio.Event()

        async def parts() -> AsyncIterator[bytes]:
            yield b" " * 90_000
            await release.wait()

        return release, parts()

    held = [endless() for _ in range(3)]
    posts = [asyncio.create_task(client.post(X, data=parts)) for _, parts in held]
    done, _ = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    for release, _ in held:
        release.set()
    assert [task.result().status for task in done] == [503]
    statuses = sorted(response.status for response in await asyncio.gather(*posts))
    assert statuses == [400, 400, 503]
    async with client.post(X, json=body()) as response:
        assert response.status == 200


async def test_a_client_that_sends_no_body_is_let_go(engine: Engine) -> None:
    limits = Limits(read_s=0.05)
    async with await serve(engine, host="127.0.0.1", port=0, socket=None, limits=limits) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(f"POST {X} HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n{{".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 20)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 0.05 s" in answer
        writer.close()
        await writer.wait_closed()


async def test_a_swap_to_another_signature_under_way_is_no_servers_error(
    engine: Engine, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ModelSignature(
        inputs=[tensor("x", "float32", "n", 2)], outputs=[tensor("z", "float32", "n", 2), tensor("y", "bool", 1)]
    )
    after = served(lambda inputs: {"z": inputs["x"], "y": np.array([True])}, other, name="plus-one", version="1.0")
    real_infer = engine.infer

    async def infer(name: str, inputs: Mapping[str, Array]) -> Any:
        engine.install(after)
        return await real_infer(name, inputs)

    monkeypatch.setattr(engine, "infer", infer)
    before = engine.serving("plus-one")
    assert before is not None
    async with client.post(X, json=body()) as response:
        assert [output["name"] for output in (await response.json())["outputs"]] == ["z", "y"]
    engine.install(before)
    after = served(lambda inputs: {"z": inputs["x"]}, ModelSignature(inputs=other.inputs, outputs=other.outputs[:1]),
                   name="plus-one", version="1.0")  # fmt: skip
    async with client.post(X, json=body(outputs=[{"name": "y"}])) as response:
        assert response.status == 400
        assert "none of the model's outputs" in (await response.json())["error"]


async def test_a_stopping_engine_is_not_ready(engine: Engine, client: aiohttp.ClientSession) -> None:
    await engine.close()
    async with client.get("/v2/health/ready") as response:
        assert response.status == 503
    async with client.get("/v2/health/live") as response:
        assert response.status == 200


async def test_a_port_in_use_is_one_clear_line(engine: Engine, server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(ListenError, match=f"127.0.0.1:{port} is in use"):
        await serve(engine, host="127.0.0.1", port=port, socket=None)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 99999)])
async def test_an_impossible_address_is_one_clear_line(engine: Engine, host: str, port: int) -> None:
    with pytest.raises(ListenError, match="cannot listen on"):
        await serve(engine, host=host, port=port, socket=None)


async def test_a_living_socket_is_not_taken_and_a_stale_one_is(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    first = await serve(engine, host="127.0.0.1", port=0, socket=path)
    with pytest.raises(ListenError, match="in use"):
        await serve(engine, host="127.0.0.1", port=0, socket=path)
    await first._runner.cleanup()
    assert path.exists()  # as a kill would have left it
    async with await serve(engine, host="127.0.0.1", port=0, socket=path):
        assert path.exists()
    assert not path.exists()


async def test_a_socket_path_that_cannot_be_is_one_clear_line(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "none" / "s", tmp_path / ("x" * 200)):
        with pytest.raises(ListenError, match="Unix socket"):
            await serve(engine, host="127.0.0.1", port=0, socket=path)
    assert (tmp_path / "file").exists()
