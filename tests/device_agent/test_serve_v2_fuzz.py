"""Whatever bytes come: an answer, or an error that is the client's."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from device_agent.serve import v2
from device_agent.serve.errors import PayloadTooLargeError
from device_agent.serve.packing import unpack
from lepton_edge.bundle import ModelSignature
from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError
from tests.device_agent.models import served, tensor

DTYPES = list(v2.DATATYPES)
MODEL = served(
    lambda inputs: {name.replace("in_", "out_"): array for name, array in inputs.items()},
    ModelSignature(
        inputs=[tensor(f"in_{dtype}", dtype, "n", 2) for dtype in DTYPES],
        outputs=[tensor(f"out_{dtype}", dtype, "n", 2) for dtype in DTYPES],
    ),
)
TWO = served(
    lambda inputs: {"y": inputs["x"], "b": inputs["a"]},
    ModelSignature(
        inputs=[tensor("x", "float32", "n", 2), tensor("a", "bool", 1)],
        outputs=[tensor("y", "float32", "n", 2), tensor("b", "bool", 1)],
    ),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["x", "a", "FP32"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def ask(body: bytes, length: int | None) -> None:
    """Go the whole way of a request; errors that are the client's are fine."""
    try:
        request = v2.read_request(body, length, TWO.manifest)
        outputs = TWO.session.run(request.inputs)
    except (DataError, PayloadTooLargeError):
        return
    v2.write_answer(request, outputs, TWO)


@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_any_bytes(body: bytes, length: int | None) -> None:
    ask(body, length)


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON document."""
    keys: list[Any] = list(document) if isinstance(document, dict) else list(range(len(document)))
    found = [(document, key) for key in keys]
    for key in keys:
        if isinstance(document[key], dict | list):
            found += places(document[key])
    return found


def request() -> dict[str, Any]:
    return {
        "id": "1",
        "inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "a", "shape": [1], "datatype": "BOOL", "data": [True]},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}, {"name": "b"}],
        "parameters": {"binary_data_output": False},
    }


@settings(max_examples=400)
@given(st.data())
def test_a_request_with_anything_changed(data: st.DataObject) -> None:
    document = request()
    for _ in range(data.draw(st.integers(0, 3))):
        container, key = data.draw(st.sampled_from(places(document)))
        action = data.draw(st.sampled_from(["replace", "delete", "repeat"]))
        if action == "replace":
            container[key] = data.draw(json_values)
        elif action == "repeat" and isinstance(container, list):
            container.append(container[key])
        else:
            del container[key]
        assume(document)
    header = json.dumps(document).encode()
    blob = data.draw(st.sampled_from([b"\0\0\x80?\0\0\0@", b"\xff" * 8]) | st.binary(max_size=12))
    ask(header + blob, data.draw(st.just(len(header)) | st.integers(0, len(header) + 20)))


def test_deep_nesting_and_huge_numbers_are_the_clients_fault() -> None:
    text = json.dumps(request())
    for data in ("[" * 100_000, "[" * 40 + "]" * 40, "[1" + "0" * 400 + "]", "[1" + "0" * 20_000 + "]", "[-1e999]"):
        for name in ("FP32", "BOOL"):
            body = text.replace("[true]", data).replace("BOOL", name).encode()
            ask(body + b"\0" * 8, len(body))
    shape = text.replace("[1, 2]", str([2**48] * 32)).encode()
    ask(shape + b"\0" * 8, len(shape))


def arrays(dtype: str) -> st.SearchStrategy[Array]:
    kind = np.dtype(dtype)
    return st.binary(min_size=4 * kind.itemsize, max_size=4 * kind.itemsize).map(
        lambda raw: (np.frombuffer(raw, kind) if dtype != "bool" else np.frombuffer(raw, np.uint8) > 99).reshape(2, 2)
    )


@given(st.fixed_dictionaries({dtype: arrays(dtype) for dtype in DTYPES}), st.booleans())
def test_tensors_of_every_type_survive_the_round_trip(tensors: dict[str, Array], binary: bool) -> None:
    inputs, blobs = [], []
    for dtype, array in tensors.items():
        entry = {"name": f"in_{dtype}", "shape": [2, 2], "datatype": v2.DATATYPES[dtype]}
        if binary or dtype == "float16" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            blobs.append(array.tobytes())
            inputs.append(entry | {"parameters": {"binary_data_size": len(blobs[-1])}})
        else:
            inputs.append(entry | {"data": array.tolist()})
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    request = v2.read_request(header + b"".join(blobs), len(header), MODEL.manifest)
    answer, length = v2.write_answer(request, MODEL.session.run(request.inputs), MODEL)
    document, rest = json.loads(answer[:length]), answer[length:]
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        sent = tensors[output["name"].removeprefix("out_")]
        assert output["shape"] == [2, 2]
        assert rest[:size] == sent.tobytes()
        assert size == math.prod(output["shape"]) * sent.itemsize
        rest = rest[size:]
    assert not rest


@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate", "identity", "br", ""]))
def test_unpacking_any_bytes(data: bytes, encoding: str) -> None:
    try:
        assert len(unpack(data, encoding, limit=100)) <= 100
    except (DataError, PayloadTooLargeError):
        return
