"""int8 without data: what each kind of constant becomes, how near it stays, and what is left alone."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from converters.ort import session
from converters.quantize.nodata import quantize_without_data
from converters.write.onnx import write_onnx

RNG = np.random.default_rng(11)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    x: list[int | str],
    y: list[int | str],
    kind: int = FLOAT,
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", FLOAT, y)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return ir.from_proto(shape_inference.infer_shapes(made, check_type=True, strict_mode=True))


def convolutions() -> ir.Model:
    """Plain, depthwise, transposed and grouped transposed: (batch, 16, 8, 8) -> (batch, 16, 32, 32)."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "plain", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], "relu"),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], "depth", kernel_shape=[5, 5], pads=[2] * 4, group=64),
        helper.make_node("ConvTranspose", ["c1", "w2", "b2"], ["c2"], "up", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node(
            "ConvTranspose", ["c2", "w3", "b2"], ["y"], "grouped", kernel_shape=[2, 2], strides=[2, 2], group=4
        ),
    ]
    channels = np.exp(RNG.uniform(-3, 3, 64)).astype(np.float32)
    weights = {
        "w0": normal(64, 16, 3, 3) * channels[:, None, None, None],
        "b0": normal(64),
        "w1": normal(64, 1, 5, 5) / channels[:, None, None, None],
        "b1": normal(64),
        "w2": normal(64, 64, 2, 2),
        "b2": normal(64),
        "w3": normal(64, 16, 2, 2),
    }
    return model(nodes, weights, ["batch", 16, 8, 8], ["batch", 64, 32, 32])


def uneven() -> ir.Model:
    """Four dead channels whose bias is 10,000 beside live ones of 1, met by weights of a ten thousandth."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "one", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], "relu"),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["y"], "two", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    ]
    weights = {
        "w0": normal(32, 8, 3, 3, scale=0.1),
        "b0": normal(32, scale=0.1),
        "w1": normal(32, 32, 3, 3, scale=0.1),
        "b1": normal(32, scale=0.1),
    }
    weights["w0"][:4], weights["b0"][:4] = weights["w0"][:4] * 1e-8, 1e4
    weights["w1"][:, :4] *= 1e-4
    return model(nodes, weights, ["batch", 8, 8, 8], ["batch", 32, 8, 8])


def encoder() -> ir.Model:
    """One attention block over a table of words: (batch, length) -> (batch, length, 8); query, key, value share x."""
    width = 64
    nodes = [
        helper.make_node("Gather", ["words", "x"], ["e"], "embed"),
        *[helper.make_node("MatMul", ["e", f"w{one}"], [f"m{one}"], f"m{one}") for one in "qkv"],
        *[helper.make_node("Add", [f"m{one}", f"b{one}"], [one], f"add{one}") for one in "qkv"],
        helper.make_node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["score"], "score"),
        helper.make_node("Div", ["score", "eight"], ["scaled"], "scale"),
        helper.make_node("Softmax", ["scaled"], ["p"], "soft", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["a"], "mix"),
        helper.make_node("Add", ["a", "e"], ["s"], "skip"),
        helper.make_node("LayerNormalization", ["s", "gain"], ["n"], "norm", axis=-1),
        helper.make_node("MatMul", ["n", "up"], ["u"], "up"),
        helper.make_node("Gelu", ["u"], ["g"], "gelu"),
        helper.make_node("MatMul", ["g", "down"], ["y"], "down"),
    ]
    weights = {
        "words": normal(500, width),
        **{f"w{one}": normal(width, width, scale=0.1) for one in "qkv"},
        **{f"b{one}": normal(width, scale=0.1) for one in "qkv"},
        "eight": np.float32(8),
        "gain": np.ones(width, np.float32),
        "up": normal(width, 256, scale=0.1),
        "down": normal(256, 8, scale=0.1),
    }
    return model(nodes, weights, ["batch", "length"], ["batch", "length", 8], INT64)


def recurrent(op: str, gates: int) -> ir.Model:
    """Both directions: (length, batch, 32) -> (length, 2, batch, 16)."""
    weights = {"w": normal(2, gates * 16, 32, scale=0.3), "r": normal(2, gates * 16, 16, scale=0.3)}
    node = helper.make_node(op, ["x", "w", "r"], ["y"], "memory", hidden_size=16, direction="bidirectional")
    return model([node], weights, ["length", "batch", 32], ["length", 2, "batch", 16])


def perceptron() -> ir.Model:
    """Two Gemm: (batch, 64) -> (batch, 32)."""
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], "one"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["y"], "two"),
    ]
    weights = {"w0": normal(64, 128), "b0": normal(128), "w1": normal(128, 32), "b1": normal(32)}
    return model(nodes, weights, ["batch", 64], ["batch", 32])


def positions() -> ir.Model:
    """A table of positions that is sliced, then added: (batch, 16, 64) -> the same."""
    nodes = [
        helper.make_node("Slice", ["table", "from", "to", "axis"], ["part"], "part"),
        helper.make_node("Add", ["x", "part"], ["y"], "add"),
    ]
    bounds = {"from": np.array([0]), "to": np.array([16]), "axis": np.array([1])}
    return model(nodes, {"table": normal(1, 64, 64), **bounds}, ["batch", 16, 64], ["batch", 16, 64])


def feed(made: ir.Model, count: int = 6) -> dict[str, np.ndarray]:
    value = made.graph.inputs[0]
    shape = [size if isinstance(size, int) else count for size in value.shape or ()]
    if value.dtype == ir.DataType.INT64:
        return {"x": np.random.default_rng(5).integers(-500, 500, shape)}
    return {"x": np.random.default_rng(5).standard_normal(shape).astype(np.float32)}


def run(file: Path, feeds: dict[str, np.ndarray], *, optimised: Path | None = None) -> np.ndarray:
    result: np.ndarray = session(file, optimised=optimised).run(None, feeds)[0]
    return result


def ops(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file).graph.node)


NETS = {
    "convolutions": (convolutions, 0.30, 0.02),
    "uneven channels": (uneven, 0.32, 0.05),
    "encoder": (encoder, 0.32, 0.05),
    "LSTM": (lambda: recurrent("LSTM", 4), 0.35, 0.02),
    "GRU": (lambda: recurrent("GRU", 3), 0.37, 0.02),
    "RNN": (lambda: recurrent("RNN", 1), 0.60, 0.02),
    "perceptron": (perceptron, 0.36, 0.03),
    "positions": (positions, 0.35, 0.01),
}
"""Net, most of the file's size, most of the outputs' relative error."""


@pytest.mark.parametrize("signed", [False, True], ids=["u8", "s8"])
@pytest.mark.parametrize(("net", "size", "error"), NETS.values(), ids=NETS)
def test_the_file_shrinks_and_computes_about_what_float_does(
    net: object, size: float, error: float, signed: bool, tmp_path: Path
) -> None:
    plain = net()  # type: ignore[operator]
    made = quantize_without_data(plain, signed=signed)
    write_onnx(plain, tmp_path / "float.onnx")
    write_onnx(made.model, tmp_path / "int8.onnx")
    assert made.notes == []
    assert (tmp_path / "int8.onnx").stat().st_size < size * (tmp_path / "float.onnx").stat().st_size
    feeds = feed(plain)
    want, got = run(tmp_path / "float.onnx", feeds), run(tmp_path / "int8.onnx", feeds)
    assert np.sqrt(np.mean((got - want) ** 2)) < error * np.std(want)


def test_stored_weights_are_folded_at_load(tmp_path: Path) -> None:
    """So the speed is float's: what runs is what runs for the float file."""
    plain = uneven()
    for name, made in (("float", plain), ("int8", quantize_without_data(plain).model)):
        write_onnx(made, tmp_path / f"{name}.onnx")
        run(tmp_path / f"{name}.onnx", feed(made), optimised=tmp_path / f"{name}-run.onnx")
    assert ops(tmp_path / "int8-run.onnx") == ops(tmp_path / "float-run.onnx")


def test_products_are_fused_and_share_one_quantisation_of_what_they_read(tmp_path: Path) -> None:
    made = quantize_without_data(encoder()).model
    file, fused = tmp_path / "int8.onnx", tmp_path / "run.onnx"
    write_onnx(made, file)
    run(file, feed(made), optimised=fused)
    assert ops(file)["MatMulInteger"] == 5
    assert ops(file)["DynamicQuantizeLinear"] == 3
    assert ops(fused)["MatMulIntegerToFloat"] == 3
    assert ops(fused)["DynamicQuantizeMatMul"] == 2
    assert ops(fused)["MatMulInteger"] == 0


def test_product_weights_are_u8_around_128_unless_signed_ones_are_asked_for() -> None:
    for signed, kind, centre in ((False, np.uint8, 128), (True, np.int8, 0)):
        graph = quantize_without_data(perceptron(), signed=signed).model.graph
        values = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
        assert values["w0_int8"].dtype == kind
        assert values["weights_zero_point"] == centre
        assert values["w0_scale"].shape == (128,)
        assert np.abs(values["w0_int8"].astype(int) - centre).max() <= 127


def test_one_output_of_a_batch_of_one_is_near_float_for_each_sample(tmp_path: Path) -> None:
    made = quantize_without_data(perceptron()).model
    write_onnx(perceptron(), tmp_path / "float.onnx")
    write_onnx(made, tmp_path / "int8.onnx")
    for x in np.random.default_rng(8).standard_normal((5, 1, 64)).astype(np.float32):
        assert run(tmp_path / "int8.onnx", {"x": x}).shape == (1, 32)


def held(made: ir.Model) -> bytes:
    data: bytes = ir.to_proto(made).SerializeToString(deterministic=True)
    return data


def test_the_callers_model_stays_and_two_runs_give_equal_bytes(tmp_path: Path) -> None:
    plain = encoder()
    before = held(plain)
    for name in ("one", "two"):
        write_onnx(quantize_without_data(plain).model, tmp_path / f"{name}.onnx")
    assert held(plain) == before
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def shared_table() -> ir.Model:
    """A table that is both gathered from and multiplied with: (batch,) -> (batch, 64)."""
    nodes = [
        helper.make_node("Gather", ["w", "x"], ["e"], "embed"),
        helper.make_node("MatMul", ["e", "w"], ["y"], "head"),
    ]
    return model(nodes, {"w": normal(64, 64)}, ["batch"], ["batch", 64], INT64)


def test_a_constant_with_unlike_readers_is_held_once() -> None:
    graph = quantize_without_data(shared_table()).model.graph
    assert sorted(graph.initializers) == ["w_int8", "w_scale"]
    assert [node.op_type for node in graph] == ["Cast", "Mul", "Gather", "MatMul"]


def in_a_body() -> ir.Model:
    """An If whose branches multiply with the same matrix."""
    info = helper.make_tensor_value_info
    bodies = {
        branch: helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [branch], branch)], branch, [], [info(branch, FLOAT, ["b", 256])]
        )
        for branch in ("then_branch", "else_branch")
    }
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], "max", keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"], "positive"),
        helper.make_node("If", ["c"], ["y"], "choose", **bodies),
    ]
    return model(nodes, {"w": normal(256, 256), "zero": np.float32(0)}, ["batch", 256], ["batch", 256])


def one_node(op: str, array: np.ndarray) -> ir.Model:
    """x and a constant of the same rank."""
    node = helper.make_node(op, ["x", "w"], ["y"], "node")
    return model([node], {"w": array}, list(array.shape), list(array.shape))


SPREAD = normal(512, 128) * np.where(RNG.random((512, 128)) < 0.01, 1e4, 1).astype(np.float32)
INFINITE = np.where(SPREAD > 0, -np.inf, SPREAD)
LEFT = {
    "body": (in_a_body, "w stays float: it is read in the body of an If"),
    "values too far apart": (
        lambda: one_node("Add", SPREAD),
        r"w stays float: int8 would carry it with an error",
    ),
    "not finite": (
        lambda: one_node("Add", np.where(SPREAD > 0, -np.inf, SPREAD)),
        "w stays float: it holds NaN or Inf",
    ),
    "unknown reader": (
        lambda: model(
            [helper.make_node("PRelu", ["x", "w"], ["y"], "p")], {"w": SPREAD}, ["b", 512, 128], ["b", 512, 128]
        ),
        "w stays float: PRelu is not known to carry int8 weights",
    ),
}


@pytest.mark.parametrize(("net", "says"), LEFT.values(), ids=LEFT)
def test_what_int8_would_not_carry_stays_float_and_is_named(net: object, says: str) -> None:
    plain = net()  # type: ignore[operator]
    made = quantize_without_data(plain)
    assert len(made.notes) == 1
    assert re.match(says, made.notes[0])
    assert held(made.model) == held(plain)


def test_a_mask_of_two_values_is_carried_exactly(tmp_path: Path) -> None:
    mask = np.where(np.tri(64, dtype=bool), 0, -1e9).astype(np.float32)[None]
    made = quantize_without_data(one_node("Add", mask))
    write_onnx(made.model, tmp_path / "mask.onnx")
    x = np.zeros((1, 64, 64), np.float32)
    np.testing.assert_allclose(run(tmp_path / "mask.onnx", {"x": x}), mask, rtol=1e-6)


def test_small_constants_and_biases_stay_float() -> None:
    graph = quantize_without_data(perceptron()).model.graph
    assert {"b0", "b1"} <= set(graph.initializers)
    row = quantize_without_data(one_node("Add", normal(1, 4096)))
    assert list(row.model.graph.initializers) == ["w"]
