"""What our own writer makes is read back, with the batch open and shapes computed; what kernels get wrong is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from converters.graph.canonical import canonicalise
from converters.importers import import_model
from converters.importers.tflite.convert import to_onnx
from converters.importers.tflite.known import known_numbers
from converters.ort import PROVIDERS, options
from converters.tflite.check import check_model
from converters.tflite.model import Operator, Quantization, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file
from converters.tflite.parse import read_file
from converters.write.tflite import to_tflite
from lepton_edge.errors import LeptonError, ModelError, UnsupportedOperatorError
from tests.converters.test_import_tflite import CASES, f32, i32
from tests.converters.tflite.random_nets import random_inputs, random_net
from tests.converters.tflite_ops import SCALE, Case, build

NETS = (3, 15, 16, 24, 52, 53)
"""Seeds whose files compute shapes: of transposed convolutions, and what is broadcast."""


def answers(model: object, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options(threads=1, optimise=False), providers=PROVIDERS
    )
    return list(session.run(None, feeds))


@pytest.mark.parametrize("seed", NETS)
def test_a_net_that_was_written_is_read_again(seed: int, tmp_path: Path) -> None:
    source = random_net(seed)
    graph = canonicalise(import_model(source).model, where="net")
    made, _ = to_tflite(graph, where="net", native=False)
    write_file(made, tmp_path / "net.tflite")
    back = read_file(tmp_path / "net.tflite")
    write_file(back, tmp_path / "again.tflite")
    assert (tmp_path / "again.tflite").read_bytes() == (tmp_path / "net.tflite").read_bytes()
    read = to_onnx(back, where="net")
    for batch in (1, 3):
        feeds = random_inputs(source, seed, batch=batch)
        for got, want in zip(answers(read, feeds), answers(source, feeds), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4 * max(float(np.max(np.abs(want))), 1.0))


def shapes() -> Subgraph:
    """(batch, 6) -> its batch, twice its other size, and one in front."""
    tensors = [
        Tensor("x", (1, 6), "float32", signature=(-1, 6)), Tensor("shape", (2,), "int32"),
        Tensor("at 0", (1,), "int32", data=i32(0)), Tensor("at 1", (1,), "int32", data=i32(1)),
        Tensor("at 2", (1,), "int32", data=i32(2)), Tensor("batch", (), "int32"), Tensor("width", (), "int32"),
        Tensor("two", (), "int32", data=np.array(2, np.int32)), Tensor("twice", (), "int32"),
        Tensor("all", (3,), "int32"),
    ]  # fmt: skip
    operators = [
        Operator("SHAPE", (0,), (1,), {"out_type": "int32"}),
        Operator("STRIDED_SLICE", (1, 2, 3, 3), (5,), {"shrink_axis_mask": 1}),
        Operator("STRIDED_SLICE", (1, 3, 4, 3), (6,), {"shrink_axis_mask": 1}),
        Operator("MUL", (6, 7), (8,)),
        Operator("PACK", (5, 8, 7), (9,), {"values_count": 3, "axis": 0}),
    ]
    return Subgraph("main", tensors, operators, (0,), (9,))


def test_of_a_computed_shape_all_is_known_but_what_is_open() -> None:
    assert known_numbers(shapes(), 9) == [None, 12, 2]
    assert known_numbers(shapes(), 0) == [None] * 6


def test_what_cannot_be_computed_is_not_known() -> None:
    graph = shapes()
    wrong = replace(graph.operators[4], inputs=(5, 0, 7))
    assert known_numbers(replace(graph, operators=[*graph.operators[:4], wrong]), 9) == [None] * 3
    divided = replace(graph.operators[3], code="FLOOR_DIV", inputs=(6, 2))
    assert known_numbers(replace(graph, operators=[*graph.operators[:3], divided, graph.operators[4]]), 9) == [
        None, None, 2,
    ]  # fmt: skip


REFUSED = {
    "its fused activation is TANH": build(
        Case("ADD", [(2, 3), (2, 3)], [(2, 3)], {"fused_activation_function": "TANH"})
    ),
    "steps of a scale as if they were numbers": build(CASES["FLOOR_DIV"], steps=True),
    "its steps are negated as they are": build(CASES["NEG"], steps=True),
    "without a scale": build(
        Case("RELU", [np.zeros((2, 3), np.int8)], [(2, 3)], dtypes=["int8"], feeds={0: np.zeros((2, 3), np.int8)})
    ),
    "its ellipsis stands for no axis": build(
        Case("STRIDED_SLICE", [(4,), i32(0, 0), i32(0, 2), i32(1, 1)], [(2,)], {"ellipsis_mask": 1})
    ),
    "its sigma lets scores sink": build(
        Case("NON_MAX_SUPPRESSION_V5",
             [(9, 4), (9,), np.array(6, np.int32), f32(), f32(), np.array(0.5, np.float32)], [(6,), (6,), ()],
             dtypes=["int32", "float32", "int32"])
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_kernels_compute_otherwise_is_refused_by_name(why: str) -> None:
    model, _ = REFUSED[why]
    with pytest.raises(UnsupportedOperatorError, match=f"{model.main.operators[0].code}.*{why}"):
        to_onnx(model, where="net")


def wide(**more: object) -> TfliteModel:
    """A convolution of 16-bit steps with a bias of 32 bits."""
    scales = [Quantization(np.array([one], np.float32), np.zeros(1, np.int64)) for one in (0.001, 0.01, 0.00001, 0.002)]
    tensors = [
        Tensor("x", (1, 3, 3, 2), "int16", quantization=scales[0]),
        Tensor("w", (2, 2, 2, 2), "int8", quantization=scales[1], data=np.ones((2, 2, 2, 2), np.int8)),
        Tensor("b", (2,), "int32", quantization=scales[2], data=i32(1000, -2000)),
        Tensor("y", (1, 2, 2, 2), "int16", quantization=scales[3]),
    ]
    operator = Operator("CONV_2D", (0, 1, 2), (3,), {"padding": "VALID", **more}, 8)
    return TfliteModel([Subgraph("main", tensors, [operator], (0,), (3,))])


def test_a_bias_that_the_kernel_reads_as_another_type_is_named(tmp_path: Path) -> None:
    check_model(wide(quantized_bias_type="int32"), where="net")
    write_file(wide(), tmp_path / "net.tflite")
    with pytest.raises(ModelError, match="the bias 'b' is int32, and the kernel reads 64 bits"):
        import_model(tmp_path / "net.tflite")


def test_signatures_of_other_subgraphs_are_said_to_be_left(tmp_path: Path) -> None:
    from converters.tflite.model import Signature

    model, _ = build(CASES["ADD"])
    other = replace(model.main, name="other")
    both = [Signature(key, {"a": 0, "b": 1}, {"y": 2}, number) for number, key in enumerate(("run", "train"))]
    write_file(TfliteModel([model.main, other], signatures=both), tmp_path / "net.tflite")
    assert [note for note in import_model(tmp_path / "net.tflite").notes if "train" in note]


def test_steps_are_named_where_a_scale_is_missing_or_the_file_is_refused() -> None:
    model, _ = build(CASES["ADD"], steps=True)
    assert all(one.quantization is SCALE for one in model.main.tensors)
    bare = [replace(one, quantization=None) for one in model.main.tensors]
    with pytest.raises(LeptonError, match="ADD"):
        to_onnx(TfliteModel([replace(model.main, tensors=bare)]), where="net")


def test_inputs_without_axes_are_fed(tmp_path: Path) -> None:
    model, feeds = build(Case("ADD", [(), ()], [()]))
    write_file(model, tmp_path / "net.tflite")
    source = import_model(tmp_path / "net.tflite")
    assert [spec.shape for spec in source.signature.inputs] == [[], []]
    np.testing.assert_allclose(answers(source.model, feeds)[0], sum(feeds.values()))


def test_inputs_of_hostile_size_are_refused(tmp_path: Path) -> None:
    model, _ = build(Case("ABS", [(2, 3)], [(2, 3)]))
    first, last = model.main.tensors
    tensors = [replace(first, shape=(1 << 15, 1 << 15)), replace(last, shape=(1 << 15, 1 << 15))]
    write_file(TfliteModel([replace(model.main, tensors=tensors)]), tmp_path / "net.tflite")
    with pytest.raises(ModelError, match=r"net.tflite: its inputs have 1073741824 elements"):
        import_model(tmp_path / "net.tflite")


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
def test_a_mirror_of_more_than_there_is_is_refused(mode: str) -> None:
    model, _ = build(Case("MIRROR_PAD", [(4, 5), i32((0, 0), (0, 1 << 30))], [(4, 5)], {"mode": mode}))
    with pytest.raises(UnsupportedOperatorError, match="mirrors more of"):
        to_onnx(model, where="net")
