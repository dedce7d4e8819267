"""Small nets through calibration, plan and writer, for the tests of those."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from converters.calibrate import Statistics, calibrate
from converters.data.npz import from_arrays
from converters.graph.canonical import canonicalise
from converters.importers import import_model
from converters.ort import session
from converters.quantize.constraints import Constraints
from converters.quantize.encodings import Encodings, choose_encodings
from converters.quantize.plan import Plan, plan
from converters.quantize.profiles import Profile
from converters.quantize.qdq import write_qdq
from converters.quantize.units import Unit, find_units
from converters.write.onnx import write_onnx

CHANNELS, SIDE = 8, 10


def net(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray] | None = None, *, outputs: Sequence[str] = ("y",)
) -> onnx.ModelProto:
    """A graph of images: x (batch, 8, 10, 10) to outputs whose shapes are inferred."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def conv(x: str, y: str, w: str = "w", **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], f"conv_{y}", kernel_shape=[1, 1], **attributes)


def square(seed: int = 0, *, size: int = CHANNELS) -> np.ndarray:
    """Weights of a pointwise convolution."""
    return np.random.default_rng(seed).normal(0, 0.4, (size, size, 1, 1)).astype(np.float32)


class Case:
    """One net on its way to int8."""

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        samples: int = 24,
        seed: int = 0,
        scale: float | np.ndarray = 1.0,
        shift: float = 0.0,
    ) -> None:
        source = import_model(model)
        rng = np.random.default_rng(seed)
        shape = [samples, *(int(size) for size in source.signature.inputs[0].shape[1:])]
        self.x = (scale * rng.standard_normal(shape) + shift).astype(np.float32)
        self.data = from_arrays({source.signature.inputs[0].name: self.x}, source.signature, where="data")
        self.float: ir.Model = canonicalise(source.model, where="net")
        self.units: list[Unit] = find_units(self.float.graph)
        self.statistics: Statistics = calibrate(self.float, self.data)
        self.encodings: Encodings = choose_encodings(self.units, self.statistics, "minmax")

    def plan(self, profile: Profile, *, keep_float: dict[str, str] | None = None) -> Plan:
        return plan(self.units, self.encodings, Constraints("minmax", keep_float or {}), profile)

    def written(self, made: Plan, folder: Path) -> Path:
        path = folder / f"{made.profile.name}.onnx"
        write_onnx(write_qdq(self.float, made), path)
        return path

    def float_file(self, folder: Path) -> Path:
        path = folder / "float.onnx"
        write_onnx(self.float, path)
        return path

    def names(self, made: Plan) -> set[str]:
        """Operators of the int8 units."""
        return {self.units[index].operator for index in made.int8}


def run(path: Path, x: np.ndarray, *, optimise: bool = True) -> list[np.ndarray]:
    """All outputs, one sample a run."""
    one = session(path, optimise=optimise)
    name = one.get_inputs()[0].name
    rows = [one.run(None, {name: x[i : i + 1]}) for i in range(len(x))]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def optimised_operators(path: Path, folder: Path) -> list[str]:
    """What ONNX Runtime makes of a file."""
    session(path, optimised=folder / "optimised.onnx")
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def steps_in(path: Path) -> dict[str, tuple[float, int]]:
    """Scale and zero point, as U8, of every quantised activation and constant in a file, by the tensor's name."""
    model = onnx.load(path)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = held[node.input[2]]
            shift = 0 if zero.dtype == np.uint8 else 128
            found[node.output[0]] = (float(held[node.input[1]]), int(zero) + shift)
    return found


def weights_in(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Signed steps and scales of the weights in a file."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    found = {}
    for name, array in held.items():
        if name.endswith("_weight_quantized"):
            scale = held[name.removesuffix("_quantized") + "_scale"]
            signed = array.astype(np.int16) - (128 if array.dtype == np.uint8 else 0)
            found[name] = (signed, scale)
    return found


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - wanted) ** 2)) / np.std(wanted))
