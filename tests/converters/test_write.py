"""Files: the lowest opset that expresses a graph, the same outputs, equal bytes, bounded memory."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import checker, defs, helper, numpy_helper

from converters.ort import session
from converters.write.onnx import Written, write_onnx
from converters.write.rewrites import REWRITES
from converters.write.runtimes import min_runtime
from converters.write.versions import SAME, TOP
from lepton_edge.errors import ModelError, NotYetSupportedError, StorageError
from tests.converters.one_node import CASES, Case, build


def run(model: bytes | str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return session(model if isinstance(model, bytes) else Path(model)).run(None, feeds)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_node_is_written_at_its_lowest_opset_and_computes_the_same(case: Case, tmp_path: Path) -> None:
    model = build(case)
    wanted = run(ir.to_proto(model).SerializeToString(), case.fed)
    path = tmp_path / "node.onnx"
    written = write_onnx(model, path)
    assert written.opset == case.opset
    checker.check_model(str(path), full_check=True)
    # Gelu alone is computed from other parts than the kernel's; the rest may run in other kernels of the same sums.
    for got, want in zip(run(str(path), case.fed), wanted, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6 if case.op == "Gelu" else 1e-7)


HISTORY = {(one.name, one.since_version): one for one in defs.get_all_schemas_with_history() if not one.domain}
STEPS = [(op, newer, older) for op, versions in SAME.items() for newer, older in pairwise(versions)]


@pytest.mark.parametrize(("op", "newer", "older"), STEPS)
def test_the_table_names_only_steps_that_widen(op: str, newer: int, older: int) -> None:
    """No version lies between; inputs keep their places, attributes their types; tensors of one type fit both."""
    new, old = HISTORY[op, newer], HISTORY[op, older]
    assert not [version for name, version in HISTORY if name == op and older < version < newer]
    assert len(old.inputs) <= len(new.inputs)
    assert set(old.attributes) <= set(new.attributes) | {"axes", "is_test", "spatial", "consumed_inputs"}
    for name in set(old.attributes) & set(new.attributes):
        assert old.attributes[name].type == new.attributes[name].type
    allowed = {kind.type_param_str: set(kind.allowed_type_strs) for kind in new.type_constraints}
    for before, now in zip(old.inputs, new.inputs, strict=False):
        kinds = {kind.type_param_str: set(kind.allowed_type_strs) for kind in old.type_constraints}
        assert kinds.get(before.type_str, {before.type_str}) & allowed.get(now.type_str, {now.type_str})


def test_the_table_starts_at_opset_20s_versions_and_every_entry_is_tried() -> None:
    assert all(defs.get_schema(op, TOP, "").since_version == versions[0] for op, versions in SAME.items())
    tried = {case.op for case in CASES.values()}
    nested = {"If", "Loop", "Scan", "Constant"}  # tried with bodies below
    assert set(SAME) - nested <= tried
    assert {op for op, _ in REWRITES} <= tried


def held(model: ir.Model) -> bytes:
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


@pytest.mark.parametrize("name", ["Gelu", "ReduceMean", "Resize to sizes", "Split in two"])
def test_the_callers_model_stays_as_it_is(name: str, tmp_path: Path) -> None:
    model = build(CASES[name])
    before = held(model)
    write_onnx(model, tmp_path / "one.onnx")
    assert held(model) == before


def test_equal_graphs_give_equal_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    write_onnx(build(CASES["Gelu"]), one)
    model = build(CASES["Gelu"])
    model.metadata_props["when"] = "now"
    model.doc_string = "made today"
    for node in model.graph:
        node.doc_string = "line 7"
        node.metadata_props["pkg"] = "x"
    write_onnx(model, two)
    assert one.read_bytes() == two.read_bytes()


def test_a_rewriting_comes_only_where_it_lowers_the_file(tmp_path: Path) -> None:
    """Beside a layer norm (17) HardSwish (14) stays; Gelu (20) does not."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "s"], ["n"], "norm"),
        helper.make_node("HardSwish", ["n"], ["h"], "swish"),
        helper.make_node("Gelu", ["h"], ["y"], "gelu"),
    ]
    path = tmp_path / "net.onnx"
    assert write_onnx(graph(nodes, {"s": np.ones(4, np.float32)}), path) == Written(17, 8, "1.12")
    assert {node.op_type for node in onnx.load(path).graph.node} >= {"LayerNormalization", "HardSwish", "Erf"}


def graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], *, width: int | str = 4) -> ir.Model:
    """(batch, 4) -> (batch, width)."""
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(made, opset_imports=opsets, ir_version=9))


def test_types_that_a_pass_left_out_are_inferred(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"], "relu"), helper.make_node("Add", ["r", "r"], ["y"], "add")]
    model = graph(nodes, {})
    assert model.graph[0].outputs[0].type is None
    assert write_onnx(model, tmp_path / "net.onnx").opset == 11


def test_bodies_are_lowered_too(tmp_path: Path) -> None:
    axes = helper.make_node("Constant", [], ["axes"], "axes", value=numpy_helper.from_array(np.array([1]), "axes"))
    then = helper.make_graph(
        [axes, helper.make_node("ReduceMean", ["x", "axes"], ["t"], "mean")],
        "then",
        [],
        [helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, ["batch", 1])],
    )
    other = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["e"], "gelu")],
        "else",
        [],
        [helper.make_tensor_value_info("e", onnx.TensorProto.FLOAT, ["batch", 4])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], "max", keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"], "positive"),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other),
    ]
    model = graph(nodes, {"zero": np.float32(0)}, width="n")
    before = held(model)
    path = tmp_path / "if.onnx"
    assert write_onnx(model, path).opset == 11
    assert held(model) == before
    for x in (np.ones((2, 4), np.float32), -np.ones((2, 4), np.float32)):
        np.testing.assert_allclose(run(str(path), {"x": x})[0], run(before, {"x": x})[0], rtol=2e-6)


def loop() -> onnx.NodeProto:
    """Three times: double what there is, and count with a Constant."""
    info, one = helper.make_tensor_value_info, numpy_helper.from_array(np.float32(2), "two")
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["two"], "two", value=one),
            helper.make_node("Mul", ["before", "two"], ["after"], "double"),
            helper.make_node("Identity", ["on"], ["still"], "go"),
        ],
        "body",
        [
            info("i", onnx.TensorProto.INT64, []),
            info("on", onnx.TensorProto.BOOL, []),
            info("before", onnx.TensorProto.FLOAT, ["batch", 4]),
        ],
        [info("still", onnx.TensorProto.BOOL, []), info("after", onnx.TensorProto.FLOAT, ["batch", 4])],
    )
    return helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)


def scan() -> onnx.NodeProto:
    """The running sum over the batch."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "row"], ["next"], "add"),
            helper.make_node("Identity", ["next"], ["shown"], "show"),
        ],
        "body",
        [info(name, onnx.TensorProto.FLOAT, [4]) for name in ("sum", "row")],
        [info(name, onnx.TensorProto.FLOAT, [4]) for name in ("next", "shown")],
    )
    return helper.make_node("Scan", ["start", "x"], ["total", "y"], "scan", body=body, num_scan_inputs=1)


@pytest.mark.parametrize("node", [loop(), scan()], ids=["Loop", "Scan"])
def test_loops_are_written_at_opset_11(node: onnx.NodeProto, tmp_path: Path) -> None:
    model = graph([node], {"times": np.array(3), "start": np.zeros(4, np.float32)})
    path, x = tmp_path / "loop.onnx", np.arange(8, dtype=np.float32).reshape(2, 4)
    assert write_onnx(model, path).opset == 11
    np.testing.assert_array_equal(run(str(path), {"x": x})[0], run(held(model), {"x": x})[0])


def test_a_graph_of_another_opset_is_refused(tmp_path: Path) -> None:
    model = build(CASES["Relu"])
    model.opset_imports[""] = 17
    with pytest.raises(ModelError, match="at opset 17, not 20"):
        write_onnx(model, tmp_path / "net.onnx")


def test_contrib_operators_keep_their_version_and_raise_the_runtime(tmp_path: Path) -> None:
    path = tmp_path / "contrib.onnx"
    node = helper.make_node("QuickGelu", ["x"], ["y"], "gelu", domain="com.microsoft")
    written = write_onnx(graph([node], {}), path)
    assert written == Written(11, 6, "1.17")
    assert {entry.domain: entry.version for entry in onnx.load(path).opset_import} == {"": 11, "com.microsoft": 1}
    assert len(run(str(path), {"x": np.ones((2, 4), np.float32)})) == 1


@pytest.mark.parametrize(
    ("opset", "ir_version", "operator", "release"),
    [
        (11, 6, "Conv", "1.0"),
        (12, 7, "Einsum", "1.3"),
        (13, 7, "DequantizeLinear", "1.7"),
        (11, 6, "MatMulInteger", "1.8"),
        (18, 8, "Pad", "1.14"),
        (19, 9, "Pad", "1.16"),
        (20, 9, "Gelu", "1.17"),
    ],
)
def test_the_oldest_runtime_is_what_the_tables_say(opset: int, ir_version: int, operator: str, release: str) -> None:
    assert min_runtime(opset=opset, ir_version=ir_version, operators=[("", operator)]) == release


def test_all_types_of_constants_come_back(tmp_path: Path) -> None:
    held_values = {
        "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f16": np.array([1.5], np.float16),
        "f64": np.array(2.5),
        "i8": np.array([-3], np.int8),
        "u8": np.array([200], np.uint8),
        "i64": np.array([-(2**40)]),
        "yes": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
    }
    nodes = [
        helper.make_node("Identity", ["x"], ["y"], "keep"),
        *[helper.make_node("Identity", [name], [f"o_{name}"], f"use_{name}") for name in held_values],
    ]
    path = tmp_path / "constants.onnx"
    model = graph(nodes, held_values)
    write_onnx(model, path)
    back = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    assert set(back) == set(held_values)
    for name, array in held_values.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def big(elements: int, *, array: np.ndarray | None = None) -> ir.Model:
    """x of (batch, 4) times a wide matrix."""
    model = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "wide")], {"w": np.zeros((4, 1), np.float32)}, width="w"
    )
    value = model.graph.initializers["w"]
    whole = np.broadcast_to(np.float32(0.5), (4, elements // 4)) if array is None else array
    value.const_value = ir.tensor(whole, name="w")
    value.shape = ir.Shape(whole.shape)
    return model


def test_weights_are_not_in_memory_twice(tmp_path: Path) -> None:
    model = big(0, array=np.random.default_rng(0).standard_normal((4, 4_000_000)).astype(np.float32))
    tracemalloc.start()
    write_onnx(model, tmp_path / "big.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000
    assert (tmp_path / "big.onnx").stat().st_size > 64_000_000


def test_more_than_2_gib_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with pytest.raises(NotYetSupportedError, match=r"huge\.onnx: 21474\d+ bytes; files above 2 GiB"):
        write_onnx(big(2**29), path)
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_graph_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"what was there before")
    node = helper.make_node("Reshape", ["x", "missing"], ["y"], "lost")
    model = graph([node], {"missing": np.array([1.5], np.float32)})
    with pytest.raises(ModelError, match=r"bad\.onnx: the graph to be written is not valid ONNX"):
        write_onnx(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.onnx"]
    assert path.read_bytes() == b"what was there before"


def test_a_folder_that_is_none_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_onnx(build(CASES["Relu"]), tmp_path / "file" / "net.onnx")
