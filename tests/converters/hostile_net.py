"""What the hostile graphs are built with: a graph writer with seeded weights, and samples on which float does well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.ort import session

Arrays = dict[str, np.ndarray]
Draw = Callable[[np.random.Generator, int], Arrays]
Shape = Sequence[int | str]

CALIBRATION, EVALUATION, POOL = 48, 150, 500
CLASSES = 6
EASY = 0.1
"""The floor of a head where the numbers shall be no excuse."""


@dataclass(frozen=True)
class Case:
    """A graph that quantisers get wrong, with samples of its own.

    Attributes:
        why: what is hostile about it.
        model: the float model; its first output is class scores.
        calibration: arrays by input name, the first axis the samples.
        evaluation: other samples; `labels` are the float model's answers, and every one of them has a margin.
        budget: points of top-1 that may be lost; 1.0 is one sample of 150.
        converts: whether a refusal would be a failure, because only its form is hostile and not its numbers.
        external: whether the weights lie in a file of their own.
    """

    name: str
    why: str
    model: onnx.ModelProto
    calibration: Arrays
    evaluation: Arrays
    labels: np.ndarray
    budget: float = 1.0
    converts: bool = False
    external: bool = False

    def save(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write the model, DATA for calibration and DATA for evaluation with labels `y`."""
        paths = folder / f"{self.name}.onnx", folder / "calibration.npz", folder / "evaluation.npz"
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
        onnx.save(copy, paths[0], **(external if self.external else {}))
        np.savez(paths[1], **self.calibration)
        np.savez(paths[2], **self.evaluation, y=self.labels)
        return paths


@dataclass
class Net:
    """Collects nodes and weights; each method adds one node and gives the name of its output."""

    seed: int
    inputs: dict[str, Shape]
    draw: Draw
    opset: int = 17
    ir_version: int = 8
    types: dict[str, int] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: Arrays = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    functions: list[onnx.FunctionProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def name(self, kind: str) -> str:
        return f"{kind.lower()}{len(self.nodes) + len(self.weights)}"

    def const(self, value: object, dtype: type = np.float32, name: str = "") -> str:
        name = name or self.name("const")
        self.weights[name] = np.asarray(value, dtype)
        return name

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or self.name(kind)
        self.nodes.append(helper.make_node(kind, inputs, [out], f"{out}_node", **attributes))
        return out

    def several(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> None:
        self.nodes.append(helper.make_node(kind, inputs, outputs, self.name(f"{kind}_node"), **attributes))

    def normal(self, *shape: int, fan: int = 1, gain: float = 1.4) -> np.ndarray:
        return (self.rng.standard_normal(shape) * gain / np.sqrt(fan)).astype(np.float32)

    def conv(self, x: str, wide: int, out: int, kernel: int = 3, *, group: int = 1, **attributes: object) -> str:
        weight = self.normal(out, wide // group, kernel, kernel, fan=wide // group * kernel**2)
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.conv_of(x, weight, self.normal(out, gain=0.1), group=group, **attributes)

    def conv_of(self, x: str, weight: np.ndarray, bias: np.ndarray, **attributes: object) -> str:
        return self.add("Conv", x, self.const(weight), self.const(bias), **attributes)

    def dense(self, x: str, wide: int, out: int, *, gain: float = 1.4) -> str:
        """A linear layer over the last axis, as MatMul and Add."""
        product = self.add("MatMul", x, self.const(self.normal(wide, out, fan=wide, gain=gain)))
        return self.add("Add", product, self.const(self.normal(out, gain=0.1)))

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def pooled(self, x: str) -> str:
        """(n, c, h, w) -> (n, c)."""
        return self.add("Flatten", self.add("GlobalAveragePool", x))

    def graph(self, outputs: dict[str, Shape]) -> onnx.ModelProto:
        def describe(tensors: dict[str, Shape]) -> list[onnx.ValueInfoProto]:
            kinds = {name: self.types.get(name, TensorProto.FLOAT) for name in tensors}
            return [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in tensors.items()]

        weights = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        entries = describe(self.inputs)
        if self.ir_version < 4:  # before IR 4 every initialiser is an input too
            entries += [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in weights]
        made = helper.make_graph(self.nodes, "hostile", entries, describe(outputs), weights)
        opsets = [helper.make_opsetid("", self.opset)]
        if self.functions:
            opsets.append(helper.make_opsetid("local", 1))
        model = helper.make_model(made, opset_imports=opsets, functions=self.functions)
        model.ir_version = self.ir_version
        return model

    def head(self, features: str, width: int, *, classes: int = CLASSES, out: str = "scores", floor: float = 0) -> str:
        """A Gemm that reads every feature alike: random directions of features brought to mean 0, deviation 1.

        Args:
            features: a tensor of shape (n, width).
            width: its size.
            classes: the size of the output.
            out: the output's name.
            floor: a share of the loudest feature; what varies less is not amplified, as it would be lost in eight bits.
        """
        seen = run(self.graph({features: ["batch", width]}), self.draw(self.rng, 150))[0].astype(np.float64)
        # Float32 carries nothing below 1e-5 of a feature's size; a direction that loud would be noise.
        noise = 1e-5 * np.abs(seen).max(axis=0)
        spread = np.maximum(seen.std(axis=0), np.maximum(noise, floor * np.abs(seen).max())) + 1e-30
        weight = self.rng.standard_normal((width, classes)) / spread[:, None]
        weight[seen.std(axis=0) <= noise] = 0
        scale = (seen @ weight).std(axis=0).mean()
        weight, bias = weight / scale, -(seen.mean(axis=0) @ weight) / scale
        self.add("Gemm", features, self.const(weight), self.const(bias), out=out)
        self.outputs[out] = ["batch", classes]
        return out

    def case(self, name: str, why: str, *, classes: int = CLASSES, **options: object) -> Case:
        """Check the model, and keep the samples on which it is surest."""
        model = self.graph(self.outputs)
        onnx.checker.check_model(model, full_check=True)
        drawn = self.draw(np.random.default_rng(self.seed + 1), POOL)
        scores = run(model, drawn)[0]
        assert np.isfinite(scores).all(), name
        calibration, evaluation = sure_samples(scores, self.seed)
        return Case(
            name=name,
            why=why,
            model=model,
            calibration={key: array[calibration] for key, array in drawn.items()},
            evaluation={key: array[evaluation] for key, array in drawn.items()},
            labels=scores[evaluation].argmax(axis=1),
            **options,  # type: ignore[arg-type]
        )


def sure_samples(scores: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices for calibration and for evaluation, out of those with the largest margins."""
    best = np.sort(scores, axis=1)
    margin = best[:, -1] - best[:, -2]
    sure = np.argsort(-margin, kind="stable")[: CALIBRATION + EVALUATION]
    assert np.unique(scores[sure].argmax(axis=1)).size >= 2, "one answer for everything: nothing can be wrong"
    order = np.random.default_rng(seed).permutation(sure)
    return order[:CALIBRATION], order[CALIBRATION:]


def run(model: onnx.ModelProto | str | Path, inputs: Arrays) -> list[np.ndarray]:
    """All outputs, sample by sample, in ONNX Runtime; results stacked along the first axis."""
    one = session(model.SerializeToString() if isinstance(model, onnx.ModelProto) else Path(model))
    count = len(next(iter(inputs.values())))
    rows = [one.run(None, {name: array[index : index + 1] for name, array in inputs.items()}) for index in range(count)]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def normal_draw(*shape: int, name: str = "x", scale: float = 1.0) -> Draw:
    """Independent normal values with a level and a contrast of its own for each sample and channel."""

    def draw(rng: np.random.Generator, count: int) -> Arrays:
        levels = rng.standard_normal((count, shape[0], *[1] * (len(shape) - 1)))
        x = rng.standard_normal((count, *shape)) * 0.6 + levels
        return {name: (x * scale).astype(np.float32)}

    return draw
