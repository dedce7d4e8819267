"""ONNX files that are damaged or built to do harm: refused by name, in little time and memory."""

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.importers import import_model
from converters.importers.wire import check_wire
from lepton_edge.errors import LeptonError, ModelError, NotYetSupportedError
from tests.converters import models

FLOAT = TensorProto.FLOAT
TERA = 10**12


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def chunk(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(**changes: object) -> onnx.ModelProto:
    """conv_net with fields of its first tensor changed."""
    net = models.conv_net()
    for name, value in changes.items():
        if isinstance(value, list):
            getattr(net.graph.initializer[0], name)[:] = value
        else:
            setattr(net.graph.initializer[0], name, value)
    return net


def twice(field: str) -> onnx.ModelProto:
    net = models.conv_net()
    values = getattr(net.graph, field)
    values.append(values[0])
    return net


def swapped() -> onnx.ModelProto:
    """A cycle: the first node reads what the last gives."""
    net = models.conv_net()
    net.graph.node[0].input[0] = "y"
    return net


def two_givers() -> onnx.ModelProto:
    net = models.conv_net()
    net.graph.node[1].output[0] = "c"
    return net


def dangling_output() -> onnx.ModelProto:
    net = models.conv_net()
    net.graph.output[0].name = "nowhere"
    return net


def sparse() -> onnx.ModelProto:
    net = models.conv_net()
    entry = net.graph.sparse_initializer.add()
    entry.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    entry.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    entry.dims[:] = [TERA]
    return net


def constant_attribute() -> onnx.ModelProto:
    net = models.conv_net()
    huge = TensorProto(data_type=FLOAT, dims=[TERA, TERA], raw_data=b"1234")
    net.graph.node.insert(0, helper.make_node("Constant", [], ["k"], "huge", value=huge))
    return net


def huge_input() -> onnx.ModelProto:
    return models.model(
        [helper.make_node("Relu", ["x"], ["y"])], {}, inputs={"x": ["n", TERA]}, outputs={"y": ["n", TERA]}
    )


def nested(depth: int) -> bytes:
    """If within If, written on the wire: protobuf would not even build it."""
    inner = chunk(1, chunk(4, b"Relu"))
    for _ in range(depth):
        inner = chunk(1, chunk(4, b"If") + chunk(5, chunk(1, b"then_branch") + chunk(6, inner)))
    return b"\x08\x08" + chunk(8, b"\x10\x11") + chunk(7, inner)


def deep_types() -> bytes:
    kind = b""
    for _ in range(500):
        kind = chunk(4, chunk(1, kind))
    node = chunk(1, chunk(4, b"Relu"))
    return b"\x08\x08" + chunk(8, b"\x10\x11") + chunk(7, node + chunk(11, chunk(1, b"x") + chunk(2, kind)))


def recursive_functions() -> onnx.ModelProto:
    net = models.conv_net()
    for name, callee in (("a", "b"), ("b", "a")):
        node = helper.make_node(callee, ["p"], ["q"], domain="f")
        net.functions.append(helper.make_function("f", name, ["p"], ["q"], [node], [helper.make_opsetid("f", 1)]))
    net.opset_import.append(helper.make_opsetid("f", 1))
    net.graph.node.append(helper.make_node("a", ["y"], ["z"], domain="f"))
    return net


def repeated() -> onnx.ModelProto:
    """Four numbers, 10^12 times: a few bytes in the file, 16 TB in a run."""
    repeats = {"r": np.array([1, TERA], np.int64)}
    return models.model(
        [helper.make_node("Tile", ["x", "r"], ["y"])], repeats, inputs={"x": ["n", 4]}, outputs={"y": ["n", "m"]}
    )


def counted() -> onnx.ModelProto:
    ends = {"a": np.array(0, np.int64), "b": np.array(TERA, np.int64), "c": np.array(1, np.int64)}
    nodes = [helper.make_node("Range", ["a", "b", "c"], ["s"]), helper.make_node("ReduceMax", ["s"], ["t"])]
    nodes += [helper.make_node("Cast", ["t"], ["u"], to=FLOAT), helper.make_node("Add", ["x", "u"], ["y"])]
    return models.model(nodes, ends, inputs={"x": ["n", 4]}, outputs={"y": ["n", 4]})


def string_input() -> onnx.ModelProto:
    net = models.conv_net()
    net.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    return net


def sequence_input() -> onnx.ModelProto:
    net = models.conv_net()
    net.graph.input.append(helper.make_tensor_sequence_value_info("s", FLOAT, ["n"]))
    return net


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], type[LeptonError], str]] = {
    "a tensor of 10^12 elements": (lambda: tensor(dims=[TERA]), ModelError, "'w' of shape .1000000000000. holds"),
    "sizes that overflow": (lambda: tensor(dims=[2**62, 4, 54]), ModelError, "'w' of shape"),
    "a negative size": (lambda: tensor(dims=[-8, 3, 3, 3]), ModelError, "'w' has a negative size"),
    "data too short": (lambda: tensor(raw_data=b"1234"), ModelError, r"holds 4 bytes, not \d{3,}"),
    "data in no field": (lambda: tensor(raw_data=b"", data_type=TensorProto.INT64), ModelError, "holds 0 bytes"),
    "an unknown type": (lambda: tensor(data_type=77), ModelError, "type 77"),
    "no type": (lambda: tensor(data_type=0), ModelError, "type 0"),
    "a constant of 10^24 elements": (constant_attribute, ModelError, "holds 4 bytes"),
    "two tensors of one name": (lambda: twice("initializer"), ModelError, "two initialisers are named 'w'"),
    "two inputs of one name": (lambda: twice("input"), ModelError, "two inputs are named 'x'"),
    "two outputs of one name": (lambda: twice("output"), ModelError, "two outputs are named 'y'"),
    "two nodes that give one value": (two_givers, ModelError, "not a valid ONNX model"),
    "a cycle": (swapped, ModelError, "not a valid ONNX model"),
    "an output from nowhere": (dangling_output, ModelError, "'nowhere'"),
    "a sparse tensor": (sparse, NotYetSupportedError, "'s' is a sparse tensor"),
    "an input of 10^12 elements": (huge_input, ModelError, "no device has that"),
    "a Tile by 10^12": (repeated, ModelError, "y gives a tensor of 1x4000000000000 elements"),
    "a Range of 10^12": (counted, ModelError, "s gives a tensor of 1000000000000 elements"),
    "graphs 30 deep": (lambda: nested(30), ModelError, "deeper than"),
    "graphs 20,000 deep": (lambda: nested(20_000), ModelError, "deeper than"),
    "types 500 deep": (deep_types, ModelError, "deeper than"),
    "functions that call each other": (recursive_functions, ModelError, "calls itself"),
    "text as input": (string_input, NotYetSupportedError, "'x' is no tensor of numbers"),
    "a sequence as input": (sequence_input, NotYetSupportedError, "'s' is no tensor of numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "says"), HOSTILE.values(), ids=HOSTILE)
def test_refused_by_name_in_little_time_and_memory(
    make: Callable[[], onnx.ModelProto | bytes], kind: type[LeptonError], says: str, tmp_path: Path
) -> None:
    made = make()
    path = tmp_path / "net.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(kind, match=says) as error:
            import_model(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "net.onnx" in str(error.value)
    assert "\n" not in str(error.value)
    assert peak < 20_000_000
    assert time.monotonic() - started < 5


CHILD = """
import resource, sys
from converters.importers import import_model
from lepton_edge.errors import ModelError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    import_model(sys.argv[1])
except ModelError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.parametrize(
    "graph",
    [b"\x0a\x00" * 5_000_000, chunk(1, b"\x2a\x00" * 5_000_000), chunk(5, b"\x32\x00" * 5_000_000)],
    ids=["nodes", "attributes", "strings"],
)
def test_ten_megabytes_of_empty_messages_take_no_gigabyte(graph: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08" + chunk(8, b"\x10\x11") + chunk(7, graph))
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, timeout=60)
    kib, _, message = done.stdout.partition(" ")
    assert "more than 2000000 messages" in message
    assert int(kib) < 100_000


@pytest.mark.parametrize(("make", "step"), [(models.no_weights_net, 1), (models.conv_net, 101)])
def test_every_prefix_of_a_file_is_refused(make: Callable[[], onnx.ModelProto], step: int, tmp_path: Path) -> None:
    whole = make().SerializeToString()
    path = tmp_path / "net.onnx"
    for length in range(0, len(whole), step):
        path.write_bytes(whole[:length])
        with suppress(ModelError):
            import_model(path)
            pytest.fail(f"{length} of {len(whole)} bytes were taken for a model")


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_walked_or_refused(data: bytes) -> None:
    with suppress(ModelError):
        check_wire(data, where="net")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4))
def test_damage_to_the_structure_is_our_error_or_still_a_model(
    edits: list[tuple[float, bytes]], tmp_path: Path
) -> None:
    data = bytearray(models.no_weights_net().SerializeToString())
    for place, put in edits:
        start = int(place * len(data))
        data[start : start + len(put)] = put
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(data))
    with suppress(LeptonError):
        import_model(path)


def external(path: Path, **entries: str) -> None:
    """conv_net with its weights in weights.bin, and other entries for the first of them."""
    onnx.save(models.conv_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    net = onnx.load(path, load_external_data=False)
    kept = {entry.key: entry.value for entry in net.graph.initializer[0].external_data} | entries
    del net.graph.initializer[0].external_data[:]
    for key, value in kept.items():
        net.graph.initializer[0].external_data.add(key=key, value=value)
    path.write_bytes(net.SerializeToString())


OUTSIDE: dict[str, tuple[dict[str, str], str]] = {
    "climbs out": ({"location": "../secret.bin"}, "not in the model's folder"),
    "climbs out and back": ({"location": "../models/weights.bin"}, "not in the model's folder"),
    "absolute": ({"location": "/etc/passwd"}, "not in the model's folder"),
    "empty": ({"location": ""}, "not in the model's folder"),
    "a link that leaves": ({"location": "link.bin"}, "not in the model's folder"),
    "a folder": ({"location": "folder"}, "no plain file"),
    "a pipe": ({"location": "pipe"}, "no plain file"),
    "a zero byte": ({"location": "a\0b"}, "lie in another file"),
    "a name too long": ({"location": "a" * 5000}, "lie in another file"),
    "offset beyond the end": ({"offset": str(10**18)}, "too short"),
    "length beyond the end": ({"length": str(10**18)}, r"10{18} bytes there, but its shape and type need \d{3,}"),
    "a negative offset": ({"offset": "-1"}, "offset '-1' is no number"),
    "a length that is text": ({"length": "many"}, "length 'many' is no number"),
    "a number of digits": ({"length": "9" * 5000}, "is no number"),
    "missing": ({"location": "absent.bin"}, "No such file"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.bin").write_bytes(bytes(5000))
    path = tmp_path / "models"
    path.mkdir()
    (path / "folder").mkdir()
    os.mkfifo(path / "pipe")
    (path / "link.bin").symlink_to(tmp_path / "secret.bin")
    return path


@pytest.mark.parametrize(("entries", "says"), OUTSIDE.values(), ids=OUTSIDE)
def test_external_data_that_lie(entries: dict[str, str], says: str, folder: Path) -> None:
    external(folder / "net.onnx", **entries)
    with pytest.raises(ModelError, match=says) as error:
        import_model(folder / "net.onnx")
    assert "'w'" in str(error.value)
    assert "net.onnx" in str(error.value)


def test_many_tensors_that_share_one_large_region(folder: Path) -> None:
    path = folder / "net.onnx"
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(1 << 30)
    net = models.conv_net()
    for index in range(1000):
        shared = TensorProto(name=f"t{index}", data_type=FLOAT, dims=[1 << 28], data_location=TensorProto.EXTERNAL)
        shared.external_data.add(key="location", value="weights.bin")
        net.graph.initializer.append(shared)
    path.write_bytes(net.SerializeToString())
    with pytest.raises(NotYetSupportedError, match="above 2 GiB"):
        import_model(path)


def test_a_link_that_stays_in_the_folder_is_followed(folder: Path) -> None:
    external(folder / "net.onnx", location="alias.bin")
    (folder / "alias.bin").symlink_to(folder / "weights.bin")
    assert import_model(folder / "net.onnx").model.graph.initializer[0].raw_data


def test_a_model_in_memory_whose_weights_lie_elsewhere(folder: Path) -> None:
    external(folder / "net.onnx")
    with pytest.raises(ModelError, match="read the model with onnx"):
        import_model(onnx.load(folder / "net.onnx", load_external_data=False))
