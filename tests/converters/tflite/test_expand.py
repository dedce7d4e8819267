"""Operators of ONNX Runtime, of quantised tensors, and those that are made of others: LiteRT against ONNX Runtime."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import lepton_edge as le
from lepton_edge.errors import NotYetSupportedError, UnsupportedOperatorError
from tests.converters.tflite.one_node import KERNELS, litert

Array = npt.NDArray[Any]
MICROSOFT = "com.microsoft"


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def real(*shape: int) -> Array:
    return rng().standard_normal(shape).astype(np.float32)


def u8(*shape: int) -> Array:
    return rng().integers(0, 256, shape).astype(np.uint8)


def s8(*shape: int, lowest: int = -127) -> Array:
    return rng().integers(lowest, 128, shape).astype(np.int8)


def scale(number: float) -> Array:
    return np.array(number, np.float32)


def whole(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


@dataclass(frozen=True)
class Case:
    """One node: what is fed, what is constant; the inputs in the order of `order`, "" for absent ones."""

    operator: str
    fed: Mapping[str, Array]
    constants: Mapping[str, Array] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = MICROSOFT
    order: tuple[str, ...] = ()
    opset: int = 20
    outputs: int = 1

    def model(self) -> tuple[onnx.ModelProto, list[Array]]:
        """The model, and what ONNX Runtime makes of it."""
        names = list(self.order or (*self.fed, *self.constants))
        made = [f"y{index}" for index in range(self.outputs)]
        node = helper.make_node(self.operator, names, made, "node", domain=self.domain, **self.attributes)
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in self.fed.items()
        ]
        weights = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(
            [node], "g", inputs, [helper.make_empty_tensor_value_info(name) for name in made], weights
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answers = [np.asarray(value) for value in session.run(None, dict(self.fed))]
        for entry, value in zip(model.graph.output, answers, strict=True):
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, value.shape))
        return model, answers


def scaled(**numbers: tuple[float, int]) -> dict[str, Array]:
    """Scale and zero point (uint8) by the names that end in _s and _z."""
    return {
        f"{name}_{end}": made
        for name, (one, zero) in numbers.items()
        for end, made in (("s", scale(one)), ("z", np.array(zero, np.uint8)))
    }


W = {"w": s8(4, 3, 3, 3), "w_s": scale(0.01), "w_z": np.array(0, np.int8)}
B = {"b": rng().integers(-500, 500, 4).astype(np.int32)}
CONV = scaled(x=(0.02, 120)) | W | scaled(y=(0.05, 128)) | B
TWO = ("a", "a_s", "a_z", "b", "b_s", "b_z", "y_s", "y_z")
PAIR = {"a": u8(2, 5, 16), "b": u8(2, 5, 16)}
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
NORM = {"scale": real(8), "shift": real(8)}

CASES = {
    "quantised convolution": Case("QLinearConv", {"x": u8(1, 3, 8, 8)}, CONV, {"pads": [1, 1, 1, 1]}, domain=""),
    "its weights with a zero point": Case(
        "QLinearConv",
        {"x": u8(1, 3, 8, 8)},
        CONV | {"w": u8(4, 3, 3, 3), "w_z": np.array(131, np.uint8)},
        domain="",
    ),
    "a scale per channel": Case(
        "QLinearConv",
        {"x": u8(1, 3, 8, 8)},
        CONV | {"w_s": np.array([0.01, 0.02, 0.005, 0.01], np.float32), "w_z": np.zeros(4, np.int8)},
        domain="",
    ),
    "scales that are fed": Case("QLinearConv", {"x": u8(1, 3, 8, 8)} | CONV, domain=""),
    "channels last": Case("QLinearConv", {"x": u8(1, 8, 8, 3)}, CONV, {"channels_last": 1}),
    "quantised sum": Case("QLinearAdd", PAIR, scaled(a=(0.02, 120), b=(0.01, 130), y=(0.02, 128)), order=TWO),
    "quantised product": Case("QLinearMul", PAIR, scaled(a=(0.02, 120), b=(0.01, 130), y=(0.02, 128)), order=TWO),
    "quantised matrices": Case(
        "QLinearMatMul",
        {"a": u8(2, 5, 16)},
        scaled(a=(0.02, 120))
        | {"b": s8(16, 7), "b_s": scale(0.01), "b_z": np.array(0, np.int8)}
        | scaled(y=(0.02, 128)),
        domain="",
    ),
    "a float product, weights of -128": Case(
        "QGemm",
        {"a": u8(5, 16)},
        scaled(a=(0.02, 120))
        | {"b": np.full((16, 7), -128, np.int8), "b_s": scale(0.01), "b_z": np.array(0, np.int8)}
        | {"c": np.arange(7, dtype=np.int32)},
    ),
    "quantised mean": Case(
        "QLinearGlobalAveragePool", {"a": u8(1, 5, 6, 6)}, scaled(a=(0.02, 120), y=(0.02, 120)), {"channels_last": 0}
    ),
    "quantised logistic": Case("QLinearSigmoid", {"a": u8(2, 5, 16)}, scaled(a=(0.02, 120), y=(1 / 256, 0))),
    "whole convolution": Case(
        "ConvInteger",
        {"x": u8(1, 3, 8, 8)},
        {"w": u8(4, 3, 3, 3), "x_z": np.array(120, np.uint8), "w_z": np.array(131, np.uint8)},
        {"pads": [1, 1, 1, 1]},
        domain="",
    ),
    "long whole sums": Case(
        "MatMulInteger",
        {"a": np.full((5, 700), 255, np.uint8)},
        {"b": np.full((700, 7), 127, np.int8), "a_z": np.array(0, np.uint8), "b_z": np.array(-128, np.int8)},
        domain="",
    ),
    "steps by range": Case("DynamicQuantizeLinear", {"x": real(3, 40)}, outputs=3, domain=""),
    "steps of zeros": Case("DynamicQuantizeLinear", {"x": np.zeros((3, 4), np.float32)}, outputs=3, domain=""),
    "product by range": Case(
        "DynamicQuantizeMatMul",
        {"a": real(2, 5, 16)},
        {"b": s8(16, 7, lowest=-128), "b_s": scale(0.01), "b_z": np.array(3, np.int8), "bias": real(7)},
    ),
    "convolution with a sum": Case(
        "FusedConv",
        {"x": real(1, 3, 8, 8), "z": real(1, 4, 6, 6)},
        {"w": real(4, 3, 3, 3), "b": real(4)},
        {"activation": "LeakyRelu", "activation_params": [0.2]},
        order=("x", "w", "b", "z"),
    ),
    "product of transposed": Case(
        "FusedMatMul", {"x": real(2, 6, 5), "y": real(2, 7, 6)}, {}, {"transA": 1, "transB": 1, "alpha": 0.25}
    ),
    "gelu with a bias": Case("BiasGelu", {"x": real(2, 3, 8)}, {"b": real(8)}),
    "norm before its opset": Case("LayerNormalization", {"x": real(2, 3, 8)}, NORM, {"axis": -1}, domain="", opset=12),
    "root mean square norm": Case(
        "SimplifiedLayerNormalization", {"x": real(2, 3, 8)}, {"scale": real(8)}, {"axis": -1}, domain="", opset=14
    ),
    "norm of a sum": Case(
        "SkipLayerNormalization", {"x": real(2, 3, 8), "skip": real(1, 3, 8)}, NORM | {"bias": real(8)}
    ),
    "attention": Case(
        "Attention",
        {"x": real(2, 5, 8), "mask": MASK},
        {"w": real(8, 24), "b": real(24)},
        {"num_heads": 2, "unidirectional": 1},
        order=("x", "w", "b", "mask"),
    ),
    "heads apart": Case(
        "MultiHeadAttention",
        {"q": real(2, 5, 8), "k": real(2, 7, 8), "v": real(2, 7, 4)},
        {"b": real(20)},
        {"num_heads": 2},
    ),
    "a transform": Case(
        "DFT", {"x": real(3, 10, 9, 1)}, {"n": whole(7).reshape(()), "axis": whole(2).reshape(())}, {"onesided": 1},
        domain="",
    ),
    "transforms of frames": Case(
        "STFT", {"x": real(2, 128, 1)}, {"step": whole(7).reshape(()), "window": real(16)}, domain=""
    ),
    **{
        f"samples {mode} {padding} {aligned}": Case(
            "GridSample",
            {"x": real(2, 3, 4, 5), "grid": real(2, 6, 7, 2)},
            {},
            {"mode": mode, "padding_mode": padding, "align_corners": aligned},
            domain="",
        )
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for aligned in (0, 1)
    },
    "samples of regions": Case(
        "RoiAlign",
        {
            "x": real(2, 3, 8, 9),
            "rois": np.array([[-1, 0, 4, 5], [2, 2, 9, 9], [3, 1, 3.5, 8]], np.float32),
            "of": whole(0, 1, 1),
        },
        {},
        {"sampling_ratio": 2, "output_height": 3, "output_width": 4, "spatial_scale": 0.5},
        domain="",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_kernel_sets_compute_what_onnx_runtime_does(case: Case, tmp_path: Path) -> None:
    """Steps of 8 bits may be one apart, where a sum lies between two."""
    model, want = case.model()
    le.load_model(model).save(tmp_path / "m.tflite")
    for kernels in KERNELS:
        got = litert(tmp_path / "m.tflite", dict(case.fed), kernels)
        for index, value in enumerate(want):
            found = got[f"y{index}"]
            assert found.dtype == value.dtype, kernels
            if value.dtype.kind == "f":
                np.testing.assert_allclose(found, value, rtol=1e-4, atol=3e-5, err_msg=kernels)
            else:
                apart = np.abs(found.astype(np.int64) - value.astype(np.int64))
                assert apart.max() <= (1 if value.dtype.itemsize == 1 else 0), kernels


TEXTS: Mapping[str, tuple[str, Callable[[], dict[str, Array]]]] = {
    "loss": (
        'g (float[4,5] x, int64[4] t) => (float y) { y = SoftmaxCrossEntropyLoss<reduction="mean">(x, t) }',
        lambda: {"x": real(4, 5), "t": whole(0, 3, 4, 1)},
    ),
    "scan": (
        """g (float[2] s, float[3,2] x) => (float[2] e, float[3,2] y) {
        e, y = Scan<num_scan_inputs=1, scan_input_directions=[1],
        body = b (float[2] a, float[2] n) => (float[2] o, float[2] r) { o = Add(a, n)  r = Identity(o) }>(s, x) }""",
        lambda: {"s": real(2), "x": real(3, 2)},
    ),
    "whole products made float": (
        """g (uint8[2,300] a) => (float[2,4] y) <uint8 z = {3}, int8[300,4] w> {
        p = MatMulInteger(a, w, z)  y = Cast<to=1>(p) }""",
        lambda: {"a": u8(2, 300)},
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_made_of_others_is_written_out(name: str, tmp_path: Path) -> None:
    text, feeds = TEXTS[name]
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 20]> ' + text)
    missing = {entry.name for entry in model.graph.value_info} - {entry.name for entry in model.graph.initializer}
    model.graph.initializer.extend(numpy_helper.from_array(s8(300, 4), entry) for entry in missing & {"w"})
    fed = feeds()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, fed)
    le.load_model(model).save(tmp_path / "m.tflite")
    for kernels in KERNELS:
        got = litert(tmp_path / "m.tflite", fed, kernels)
        for entry, value in zip(model.graph.output, want, strict=True):
            np.testing.assert_allclose(got[entry.name], value, rtol=1e-5, atol=1e-5, err_msg=kernels)


def test_attention_with_a_past_is_refused_by_its_name(tmp_path: Path) -> None:
    case = Case(
        "Attention",
        {"x": real(1, 2, 8), "past": real(2, 1, 2, 3, 4)},
        {"w": real(8, 24), "b": real(24)},
        {"num_heads": 2},
        order=("x", "w", "b", "", "past"),
        outputs=2,
    )
    model, _ = case.model()
    with pytest.raises(UnsupportedOperatorError, match=r"Attention \(node 'node'\)"):
        le.load_model(model).save(tmp_path / "m.tflite")


def test_an_opset_that_is_too_old_names_a_node(tmp_path: Path) -> None:
    case = Case("Relu", {"x": real(2)}, domain="")
    model, _ = case.model()
    model.opset_import[0].version = 5
    with pytest.raises(NotYetSupportedError, match="first node is 'node', a Relu"):
        le.load_model(model).save(tmp_path / "m.tflite")
