"""Neural operators in TFLite: each as a model of one node, LiteRT with both of its kernel sets against ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import helper, numpy_helper, shape_inference

from converters.graph.canonical import canonicalise
from converters.ort import session
from converters.write.tflite import write_tflite
from lepton_edge.errors import UnsupportedOperatorError

Arrays = Mapping[str, np.ndarray]
KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A node; arrays in `fed` are inputs of the model, those in `held` constants.

    Attributes:
        inputs: of the node; all of `fed` and `held` by default.
        codes: the only operators that the file may have, transposes and reshapes apart; None for any.
        open: axes of `x` whose size the model leaves open.
    """

    op: str
    fed: Arrays
    held: Arrays = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    outputs: int = 1
    codes: set[str] | None = None
    open: Sequence[int] = ()
    opset: int = 20


def model_of(case: Case) -> onnx.ModelProto:
    names = list(case.inputs) or [*case.fed, *case.held]
    outputs = [f"y{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="node", **case.attributes)
    kind = helper.np_dtype_to_tensor_dtype(next(iter(case.fed.values())).dtype)
    inputs = []
    for name, array in case.fed.items():
        sizes: list[int | str] = list(array.shape)
        for axis in case.open if name == "x" else ():
            sizes[axis] = f"open{axis}"
        inputs.append(helper.make_tensor_value_info(name, kind, sizes))
    graph = helper.make_graph(
        [node],
        "one",
        inputs,
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in case.held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=9)


def wanted(model: onnx.ModelProto, fed: Arrays) -> list[np.ndarray]:
    return session(model.SerializeToString(), optimise=False).run(None, dict(fed))


def run(path: Path, fed: Arrays, kernels: OpResolverType) -> tuple[list[np.ndarray], list[str]]:
    made = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kernels)
    for detail in made.get_input_details():
        made.resize_tensor_input(detail["index"], fed[detail["name"]].shape)
    made.allocate_tensors()
    for detail in made.get_input_details():
        made.set_tensor(detail["index"], fed[detail["name"]])
    made.invoke()
    codes = [one["op_name"] for one in made._get_ops_details()]
    return [made.get_tensor(detail["index"]) for detail in made.get_output_details()], codes


def assert_equal(case: Case, path: Path, tolerance: float = 2e-5) -> None:
    model = model_of(case)
    answers = wanted(model, case.fed)
    write_tflite(canonicalise(model, where="one node"), path)
    for kernels in KERNELS:
        got, codes = run(path, case.fed, kernels)
        for one, other in zip(got, answers, strict=True):
            scale = max(1.0, float(np.abs(other).max(initial=0)))
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale, err_msg=f"{kernels}, {codes}")
        if case.codes is not None:
            assert set(codes) - {"TRANSPOSE", "RESHAPE", "DELEGATE"} == case.codes


X = normal(2, 6, 9, 8)
BIAS = normal(4)


def conv(weights: np.ndarray, codes: set[str], x: np.ndarray = X, **attributes: Any) -> Case:
    op = attributes.pop("op", "Conv")
    return Case(op, {"x": x}, {"w": weights}, attributes, codes=codes, open=attributes.pop("open", ()))


WINDOWS = {
    "conv same": conv(normal(4, 6, 3, 3), {"CONV_2D"}, pads=[1, 1, 1, 1]),
    "conv stride 2 even size is not same": conv(
        normal(4, 6, 3, 3), {"PAD", "CONV_2D"}, X[:, :, :8], pads=[1, 1, 1, 1], strides=[2, 2]
    ),
    "conv stride 2 odd size is same": conv(
        normal(4, 6, 3, 3), {"CONV_2D"}, normal(1, 6, 9, 7), pads=[1, 1, 1, 1], strides=[2, 2]
    ),
    "conv end pad never read": conv(normal(4, 6, 2, 2), {"CONV_2D"}, pads=[0, 0, 0, 1], strides=[3, 2]),
    "conv dilated": conv(normal(4, 6, 3, 3), {"CONV_2D"}, dilations=[2, 2], pads=[2, 2, 2, 2]),
    "conv open sizes": conv(normal(4, 6, 3, 3), {"CONV_2D"}, pads=[1, 1, 1, 1], open=(0, 2, 3)),
    "conv groups": conv(normal(4, 3, 3, 3), {"CONV_2D"}, group=2),
    "depthwise": conv(normal(6, 1, 3, 3), {"DEPTHWISE_CONV_2D"}, group=6),
    "depthwise multiplier": conv(normal(12, 1, 3, 2), {"DEPTHWISE_CONV_2D"}, group=6, strides=[2, 1]),
    "conv of three axes": conv(normal(4, 3, 2, 3, 2), {"CONV_3D"}, normal(1, 3, 4, 5, 6), strides=[1, 2, 1]),
    "conv of three axes in groups": conv(
        normal(4, 1, 2, 3, 2), {"SPLIT", "CONV_3D", "CONCATENATION"}, normal(1, 2, 4, 5, 6), group=2
    ),
    "conv of one axis": conv(normal(4, 6, 3), {"CONV_2D"}, normal(2, 6, 11), pads=[1, 1]),
    "conv computed weights": Case("Conv", {"x": X, "w": normal(4, 6, 3, 3)}, codes={"CONV_2D"}),
    "transposed same": conv(
        normal(6, 4, 4, 4), {"TRANSPOSE_CONV"}, op="ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "transposed and cut": conv(
        normal(6, 4, 3, 3),
        {"TRANSPOSE_CONV", "STRIDED_SLICE"},
        op="ConvTranspose",
        strides=[3, 2],
        pads=[1, 0, 0, 1],
        output_padding=[1, 1],
    ),
    "transposed groups": conv(
        normal(6, 2, 3, 3), {"SPLIT", "TRANSPOSE_CONV", "CONCATENATION"}, op="ConvTranspose", group=2
    ),
    "transposed depthwise": conv(normal(6, 1, 3, 3), {"TRANSPOSE_CONV"}, op="ConvTranspose", group=6, strides=[2, 2]),
    "transposed dilated": conv(normal(6, 4, 3, 2), {"TRANSPOSE_CONV"}, op="ConvTranspose", dilations=[2, 3]),
    "max pool padded": Case(
        "MaxPool", {"x": X}, {}, {"kernel_shape": [3, 3], "pads": [1, 1, 0, 0]}, codes={"PADV2", "MAX_POOL_2D"}
    ),
    "max pool dilated": Case("MaxPool", {"x": X}, {}, {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    "average pool of what is inside": Case(
        "AveragePool",
        {"x": X},
        {},
        {"kernel_shape": [3, 3], "pads": [2, 1, 0, 1]},
        codes={"PAD", "AVERAGE_POOL_2D", "MUL"},
    ),
    "average pool rounded up": Case(
        "AveragePool", {"x": X}, {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}
    ),
    "average pool of three axes": Case(
        "AveragePool", {"x": normal(2, 3, 5, 6, 7)}, {}, {"kernel_shape": [2, 3, 2], "pads": [1, 1, 1, 1, 1, 1]}
    ),
    "norm pool": Case("LpPool", {"x": X}, {}, {"kernel_shape": [3, 3], "p": 3, "pads": [1, 0, 1, 0]}),
    "global pools": Case("GlobalLpPool", {"x": X}, {}, {"p": 2}, open=(0, 2)),
}
_V = normal(2, 3, 4, 5) * 3
ACTIVATIONS = {
    f"{op} {attributes}": Case(op, {"x": _V}, {}, attributes, open=(0,))
    for op, attributes in (
        ("Relu", {}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {}),
        ("Elu", {"alpha": 2.0}),
        ("Selu", {}),
        ("Celu", {"alpha": 0.7}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("HardSigmoid", {"alpha": -0.3, "beta": 0.4}),
        ("HardSwish", {}),
        ("Mish", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("ThresholdedRelu", {"alpha": 0.5}),
        ("Shrink", {"lambd": 0.5, "bias": 0.2}),
        ("Erf", {}),
        ("Softmax", {"axis": 1}),
        ("Softmax", {"axis": -1}),
        ("LogSoftmax", {"axis": 2}),
        ("Hardmax", {"axis": 1}),
        ("LpNormalization", {"axis": 1, "p": 1}),
        ("LRN", {"size": 3, "alpha": 0.3}),
    )
}
_ROW = {"s": normal(3), "b": normal(3)}
LAYERS = {
    "relu of integers": Case("Relu", {"x": np.array([-3, 0, 4], np.int32)}),
    "clip of integers": Case("Clip", {"x": np.array([-3, 0, 4], np.int64)}, {"l": np.array(-1), "h": np.array(2)}),
    "clip to 6": Case(
        "Clip", {"x": _V}, {"l": np.float32(0).reshape(()), "h": np.float32(6).reshape(())}, codes={"RELU6"}
    ),
    "clip computed": Case("Clip", {"x": _V, "l": np.array(-1, np.float32)}),
    "prelu": Case("PRelu", {"x": _V}, {"s": normal(3, 1, 1)}, codes={"PRELU"}),
    "prelu of five axes": Case("PRelu", {"x": normal(2, 3, 2, 2, 2)}, {"s": normal(3, 1, 1, 1)}),
    "softmax of five axes": Case("Softmax", {"x": normal(2, 3, 2, 2, 4)}, {}, {"axis": 2}),
    "layer norm": Case("LayerNormalization", {"x": _V}, {"s": normal(4, 5), "b": normal(4, 5)}, {"axis": 2}),
    "group norm": Case(
        "GroupNormalization", {"x": X}, {"s": normal(6), "b": normal(6)}, {"num_groups": 3}, opset=21, open=(0,)
    ),
    "instance norm": Case("InstanceNormalization", {"x": _V}, _ROW),
    "batch norm": Case("BatchNormalization", {"x": _V}, {**_ROW, "m": normal(3), "v": np.abs(normal(3)) + 0.1}),
    "batch norm computed": Case(
        "BatchNormalization",
        {"x": _V, **_ROW, "m": normal(3), "v": np.abs(normal(3)) + 0.1},
    ),
    "gemm": Case(
        "Gemm", {"x": normal(3, 4)}, {"w": normal(5, 4), "b": normal(5)}, {"transB": 1}, codes={"FULLY_CONNECTED"}
    ),
    "gemm all attributes": Case(
        "Gemm", {"x": normal(4, 3), "w": normal(5, 4)}, {"b": normal(3, 1)}, {"transA": 1, "transB": 1, "alpha": 0.5}
    ),
    "matmul constant": Case(
        "MatMul", {"x": normal(2, 3, 4)}, {"w": normal(4, 5)}, codes={"FULLY_CONNECTED"}, open=(0, 1)
    ),
    "matmul broadcast": Case("MatMul", {"x": normal(2, 1, 3, 4), "w": normal(5, 4, 6)}, codes={"BATCH_MATMUL"}),
    "matmul of vectors": Case("MatMul", {"x": normal(4), "w": normal(2, 4, 5)}),
    "matmul of integers": Case("MatMul", {"x": np.arange(12).reshape(3, 4)}, {"w": np.arange(20).reshape(4, 5)}),
    "depth to space": Case("DepthToSpace", {"x": normal(2, 8, 3, 4)}, {}, {"blocksize": 2}, codes={"DEPTH_TO_SPACE"}),
    "depth to space crd": Case("DepthToSpace", {"x": normal(2, 18, 3, 4)}, {}, {"blocksize": 3, "mode": "CRD"}),
    "space to depth": Case("SpaceToDepth", {"x": normal(2, 3, 4, 6)}, {}, {"blocksize": 2}, codes={"SPACE_TO_DEPTH"}),
    "einsum of three": Case(
        "Einsum", {"x": normal(2, 3, 4), "z": normal(4, 5)}, {"w": normal(5, 2)}, {"equation": "abc,cd,de->abe"}
    ),
    "einsum diagonal": Case("Einsum", {"x": normal(2, 3, 3)}, {}, {"equation": "...ii->...i"}),
}


@pytest.mark.parametrize("case", [*WINDOWS.values(), *ACTIVATIONS.values(), *LAYERS.values()],
                         ids=[*WINDOWS, *ACTIVATIONS, *LAYERS])  # fmt: skip
def test_computes_what_onnx_runtime_does(case: Case, tmp_path: Path) -> None:
    assert_equal(case, tmp_path / "m.tflite")


def test_erf_has_no_hole_at_zero(tmp_path: Path) -> None:
    x = np.array([0, -0.0, 1e-30, -1e-30, 1e-8, 1e-3, 0.5, 5, 30, -30, 1e-20], np.float32)
    assert_equal(Case("Erf", {"x": x}), tmp_path / "m.tflite", tolerance=3e-7)


def resize(mode: str, sizes: Sequence[int], x: np.ndarray = X, **attributes: Any) -> Case:
    codes = attributes.pop("codes", None)
    held = {"sizes": np.array(sizes, np.int64)}
    return Case("Resize", {"x": x}, held, {"mode": mode, **attributes}, ("x", "", "", "sizes"), codes=codes)


COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolates_like_onnx_runtime(mode: str, coordinates: str, tmp_path: Path) -> None:
    for sizes in ((18, 16), (13, 5), (3, 4), (1, 9)):
        case = resize(mode, (2, 6, *sizes), coordinate_transformation_mode=coordinates)
        assert_equal(case, tmp_path / "m.tflite")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_picks_the_entries_that_onnx_runtime_does(rounding: str, coordinates: str, tmp_path: Path) -> None:
    for sizes in ((18, 16), (13, 5), (3, 4)):
        attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
        assert_equal(resize("nearest", (2, 6, *sizes), **attributes), tmp_path / "m.tflite", tolerance=0)


def test_resize_takes_the_kernel_that_tflite_has(tmp_path: Path) -> None:
    assert_equal(resize("linear", (2, 6, 18, 16), codes={"RESIZE_BILINEAR"}), tmp_path / "linear.tflite")
    asymmetric = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nearest = resize("nearest", (2, 6, 18, 16), codes={"RESIZE_NEAREST_NEIGHBOR"}, **asymmetric)
    assert_equal(nearest, tmp_path / "nearest.tflite")


def recurrent(kind: str, direction: str, length: int, **attributes: Any) -> Case:
    gates, hidden, size = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 5, 4
    ways = 2 if direction == "bidirectional" else 1
    held = {
        "w": normal(ways, gates * hidden, size) / 2,
        "r": normal(ways, gates * hidden, hidden) / 2,
        "b": normal(ways, 2 * gates * hidden) / 2,
    }
    fed, inputs = {"x": normal(length, 2, size)}, ["x", "w", "r", "b"]
    if attributes.pop("initial", False):
        fed["h"] = normal(ways, 2, hidden)
        inputs += ["", "h"]
    if attributes.pop("peepholes", False):
        held["p"] = normal(ways, 3 * hidden)
        inputs += ["", "", "", "p"]
    opened = attributes.pop("open", ())
    attributes |= {"hidden_size": hidden, "direction": direction}
    return Case(kind, fed, held, attributes, inputs, 3 if kind == "LSTM" else 2, open=opened)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("length", [1, 3, 12])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layer(kind: str, length: int, direction: str, tmp_path: Path) -> None:
    assert_equal(recurrent(kind, direction, length, clip=0.8), tmp_path / "m.tflite")


@pytest.mark.parametrize("case", [
    recurrent("LSTM", "bidirectional", 12, peepholes=True),
    recurrent("GRU", "bidirectional", 12, linear_before_reset=1, initial=True),
    recurrent("LSTM", "forward", 12, open=(1,)),
    recurrent("RNN", "reverse", 4, open=(1,), initial=True),
], ids=["peepholes", "reset after", "open batch, looped", "initial state"])  # fmt: skip
def test_recurrent_layer_with_more(case: Case, tmp_path: Path) -> None:
    assert_equal(case, tmp_path / "m.tflite")


REFUSED = {
    "training": (
        Case(
            "BatchNormalization",
            {"x": _V},
            {**_ROW, "m": normal(3), "v": np.abs(normal(3))},
            {"training_mode": 1},
            outputs=3,
        ),
        "training",
    ),
    "places of maxima": (Case("MaxPool", {"x": X}, {}, {"kernel_shape": [2, 2]}, outputs=2), "places"),
    "lengths": (
        Case(
            "RNN",
            {"x": normal(3, 2, 4)},
            {"w": normal(1, 5, 4), "r": normal(1, 5, 5), "b": normal(1, 10), "n": np.array([3, 2], np.int32)},
            {"hidden_size": 5},
            outputs=2,
        ),
        "sequence_lens",
    ),
    "corners of a fraction": (
        Case(
            "Resize",
            {"x": X},
            {"s": np.array([1, 1, 0.6, 0.6], np.float32)},
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            ("x", "", "s"),
        ),
        "corners",
    ),
    "transposed over open sizes": (conv(normal(6, 4, 3, 3), set(), op="ConvTranspose", open=(2,)), "sizes"),
}


@pytest.mark.parametrize(("case", "reason"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_it_cannot_say(case: Case, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    with pytest.raises(UnsupportedOperatorError, match=rf"{case.op} \(node .*{reason}"):
        write_tflite(canonicalise(model_of(case), where="one node"), path)
    assert not path.exists()


def random_window(random: Random, number: int) -> Case:
    """A convolution or pool with random sizes and attributes."""
    axes, group = random.choice([1, 2, 2, 2, 3]), random.choice([1, 1, 2, 3])
    op = random.choice(["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"])
    kernel = [random.randint(1, 4) for _ in range(axes)]
    x = np.random.default_rng(number).standard_normal((2, 2 * group, *(random.randint(6, 11) for _ in kernel)))
    attributes: dict[str, Any] = {"strides": [random.randint(1, 3) for _ in kernel]}
    attributes["pads"] = [random.randint(0, size - 1) for size in kernel * 2]
    attributes["dilations"] = [random.choice([1, 1, 2]) for _ in kernel]
    held: dict[str, np.ndarray] = {}
    if op in {"Conv", "ConvTranspose"}:
        shape = (3 * group, 2) if op == "Conv" else (2 * group, 3)
        held = {"w": normal(*shape, *kernel), "b": normal(3 * group)}
        attributes["group"] = group
    else:
        attributes |= {"kernel_shape": kernel, "dilations": [1] * axes}
    if op == "AveragePool":
        attributes["count_include_pad"] = random.randint(0, 1)
    return Case(op, {"x": x.astype(np.float32)}, held, attributes, open=random.choice([(), (0,)]))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_random_windows(seed: int, tmp_path: Path) -> None:
    random, done = Random(seed), 0
    for number in range(60):
        case = random_window(random, number)
        try:
            wanted(model_of(case), case.fed)
        except ort.capi.onnxruntime_pybind11_state.Fail:
            continue
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument:
            continue
        assert_equal(case, tmp_path / "m.tflite")
        done += 1
    assert done >= 40


# int8


def quantised(
    case: Case, weights_axis: int | None, output: tuple[float, int] | None = None
) -> tuple[ir.Model, onnx.ModelProto, float]:
    """The node as an int8 unit, its scales from the data: canonical graph, the same as ONNX, the output's scale."""
    x = case.fed["x"]
    scale = np.float32(np.abs(x).max() / 127)
    held: dict[str, np.ndarray] = {"sx": scale, "zx": np.array(3, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
    ]
    names = {"x": "xd"}
    if "w" in case.held and weights_axis is not None:
        weights = case.held["w"]
        others = tuple(axis for axis in range(weights.ndim) if axis != weights_axis)
        scales = (np.abs(weights).max(axis=others, keepdims=True) / 127).astype(np.float32)
        held |= {"wq": np.rint(weights / scales).astype(np.int8), "sw": scales.reshape(-1)}
        held |= {"zw": np.zeros(scales.size, np.int8), "sb": held["sw"] * scale}
        held["bq"] = np.rint(case.held["b"] / held["sb"]).astype(np.int32)
        nodes.append(helper.make_node("DequantizeLinear", ["wq", "sw", "zw"], ["wd"], axis=weights_axis))
        nodes.append(helper.make_node("DequantizeLinear", ["bq", "sb"], ["bd"], axis=0))
        names |= {"w": "wd", "b": "bd"}
    held |= {name: array for name, array in case.held.items() if name not in names}
    inputs = [names.get(name, name) for name in case.inputs or [*case.fed, *case.held]]
    nodes.append(helper.make_node(case.op, inputs, ["r"], name="unit", **case.attributes))
    answer = wanted(model_of(case), case.fed)[0]
    low, high = float(answer.min()), float(answer.max())
    step = (high - min(low, 0)) / 255
    step, zero = output or (step, round(-128 - min(low, 0) / step))
    held |= {"so": np.float32(step), "zo": np.array(zero, np.int8)}
    nodes += [
        helper.make_node("QuantizeLinear", ["r", "so", "zo"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "so", "zo"], ["y0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "unit",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y0", 1, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return ir.serde.deserialize_model(shape_inference.infer_shapes(model)), model, float(held["so"])


_WINDOW = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
_OWN = (float(np.float32(np.abs(X).max() / 127)), 3)
_SCALES = {"s": np.array([1, 1, 2, 2], np.float32)}
UNITS: dict[str, tuple[Case, int | None, tuple[float, int] | None]] = {
    "conv": (Case("Conv", {"x": X}, {"w": normal(4, 6, 3, 3), "b": BIAS}, _WINDOW, codes={"CONV_2D"}), 0, None),
    "conv padded": (
        Case(
            "Conv",
            {"x": X[:, :, :8]},
            {"w": normal(4, 6, 3, 3), "b": BIAS},
            {**_WINDOW, "strides": [2, 2]},
            codes={"PAD", "CONV_2D"},
        ),
        0,
        None,
    ),
    "depthwise": (
        Case(
            "Conv",
            {"x": X},
            {"w": normal(6, 1, 3, 3), "b": normal(6)},
            {**_WINDOW, "group": 6},
            codes={"DEPTHWISE_CONV_2D"},
        ),
        0,
        None,
    ),
    "transposed": (
        Case(
            "ConvTranspose",
            {"x": X},
            {"w": normal(6, 4, 2, 2), "b": BIAS},
            {"strides": [2, 2]},
            codes={"TRANSPOSE_CONV"},
        ),
        1,
        None,
    ),
    "gemm": (Case("Gemm", {"x": normal(5, 8)}, {"w": normal(8, 4), "b": BIAS}, codes={"FULLY_CONNECTED"}), 1, None),
    "max pool": (Case("MaxPool", {"x": X}, {}, {"kernel_shape": [2, 2]}, codes={"MAX_POOL_2D"}), None, _OWN),
    "max pool, another scale": (
        Case("MaxPool", {"x": X}, {}, {"kernel_shape": [2, 2]}, codes={"MAX_POOL_2D", "QUANTIZE"}),
        None,
        None,
    ),
    "average pool": (
        Case("AveragePool", {"x": X}, {}, {"kernel_shape": [2, 2]}, codes={"AVERAGE_POOL_2D"}),
        None,
        _OWN,
    ),
    "global average pool": (Case("GlobalAveragePool", {"x": X}, codes={"MEAN"}), None, None),
    "sigmoid": (Case("Sigmoid", {"x": X}, codes={"LOGISTIC"}), None, (1 / 256, -128)),
    "sigmoid at another scale": (
        Case("Sigmoid", {"x": X}, codes={"DEQUANTIZE", "LOGISTIC", "QUANTIZE"}),
        None,
        (1 / 200, -128),
    ),
    "softmax": (Case("Softmax", {"x": X}, codes={"SOFTMAX"}), None, (1 / 256, -128)),
    "leaky relu": (Case("LeakyRelu", {"x": X}, {}, {"alpha": 0.1}, codes={"LEAKY_RELU"}), None, None),
    "hard swish": (Case("HardSwish", {"x": X}, codes={"HARD_SWISH"}), None, None),
    "resize": (
        Case("Resize", {"x": X}, _SCALES, {"mode": "linear"}, ("x", "", "s"), codes={"RESIZE_BILINEAR"}),
        None,
        _OWN,
    ),
}


@pytest.mark.parametrize(("case", "axis", "output"), UNITS.values(), ids=UNITS)
def test_int8_unit_is_within_a_step_of_onnx_runtime(
    case: Case, axis: int | None, output: tuple[float, int] | None, tmp_path: Path
) -> None:
    graph, model, step = quantised(case, axis, output)
    path = tmp_path / "m.tflite"
    write_tflite(graph, path)
    answer = wanted(model, case.fed)[0]
    for kernels in KERNELS:
        got, codes = run(path, case.fed, kernels)
        assert np.abs(got[0] - answer).max() <= 1.01 * step
        assert case.codes is not None
        inner = [code for code in codes if code not in {"TRANSPOSE", "RESHAPE", "DELEGATE"}]
        assert (inner[0], inner[-1]) == ("QUANTIZE", "DEQUANTIZE")
        assert set(inner[1:-1]) == case.codes
