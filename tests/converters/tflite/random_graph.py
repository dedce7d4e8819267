"""A graph that grows by one random operator after another; what operators there are is said elsewhere."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
LENGTH = 13
"""Of an open axis besides the batch; no other axis has it, so that nobody takes the open one for a fixed one."""
MOST = 4096
"""Elements of a tensor that something may still be done with."""


class Net:
    """Nodes, weights, and the shapes of all tensors at batch 1."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, Shape] = {}
        self.inputs: dict[str, list[int | str]] = {}
        self.kept: dict[tuple[int, ...], list[str]] = {}

    def pick(self, choices: Sequence[int]) -> int:
        return choices[self.rng.integers(len(choices))]

    def choose(self, choices: Sequence[str]) -> str:
        return choices[self.rng.integers(len(choices))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def axis(self, shape: Shape) -> int:
        """Any but the batch."""
        return int(self.rng.integers(1, len(shape)))

    def feed(self, name: str, shape: Shape, *, batch: str | int = "batch") -> None:
        """An input of the graph."""
        self.shapes[name] = shape
        self.inputs[name] = [batch, *("length" if size == LENGTH else size for size in shape[1:])]

    def array(self, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, *sizes: int, fan: int = 1) -> str:
        """Random numbers; sometimes those that another operator has already."""
        held = self.kept.setdefault(sizes, [])
        if held and self.chance(0.2):
            return self.choose(held)
        held.append(self.array((self.rng.standard_normal(sizes) / np.sqrt(fan)).astype(np.float32)))
        return held[-1]

    def factors(self, *sizes: int) -> str:
        """Positive ones."""
        return self.array(self.rng.uniform(0.5, 1.5, sizes).astype(np.float32))

    def numbers(self, *numbers: int) -> str:
        return self.array(np.array(numbers, np.int64))

    def floats(self, *numbers: float) -> str:
        return self.array(np.array(numbers, np.float32))

    def number(self, number: float) -> str:
        return self.array(np.array(number, np.float32))

    def emit(self, op: str, inputs: Sequence[str], shape: Shape, **attributes: object) -> str:
        return self.emit_all(op, inputs, [shape], **attributes)[0]

    def emit_all(self, op: str, inputs: Sequence[str], shapes: Sequence[Shape], **attributes: object) -> list[str]:
        """One with several outputs."""
        number = len(self.nodes)
        names = [f"t{number}" if not at else f"t{number}_{at}" for at in range(len(shapes))]
        self.nodes.append(helper.make_node(op, inputs, names, f"n{number}", **attributes))
        for name, shape in zip(names, shapes, strict=True):
            self.shapes[name] = tuple(int(size) for size in shape)
        return names

    def reshape(self, x: str, sizes: Shape) -> str:
        """The batch goes on as it is, and so does one open axis."""
        asked = [0, *(-1 if size == LENGTH else size for size in sizes[1:])]
        return self.emit("Reshape", [x, self.numbers(*asked)], sizes)

    def source(self) -> str:
        """A tensor to go on from: mostly the last one, so that nets get deep."""
        names = [name for name, shape in self.shapes.items() if 0 < np.prod(shape) <= MOST]
        return names[-1] if self.chance(0.7) else self.choose(names)

    def like(self, shape: Shape) -> str:
        """Any tensor of this shape."""
        return self.choose([name for name, sizes in self.shapes.items() if sizes == shape])

    def model(self) -> onnx.ModelProto:
        """Outputs are the tensors that nobody reads, and some that are read too."""
        read = {name for node in self.nodes for name in node.input}
        made = [name for node in self.nodes for name in node.output]
        ends = [name for name in made if name not in read or self.chance(0.05)]
        types = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in self.inputs.items()]
        outputs = [onnx.ValueInfoProto(name=name) for name in ends]
        graph = helper.make_graph(self.nodes, "random", types, outputs, self.weights)
        opset = helper.make_opsetid("", 20)
        made_model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=9)
        return onnx.shape_inference.infer_shapes(made_model)
