"""Random graphs of what the layout, view and folding passes move around: outputs stay, Transposes never grow."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.graph.canonical import canonicalise
from tests.converters.canonical_graphs import counts
from tests.converters.equality import largest_difference, random_inputs

PERMS = [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0)]


class Maker:
    """Adds one random operator after another; keeps the shape of each tensor.

    None negates: a sum that cancels to rounding noise would have no relative error to speak of.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {"x": (2, 3, 4, 5)}

    def weight(self, *sizes: int) -> str:
        return self.array(self.rng.standard_normal(sizes).astype(np.float32))

    def array(self, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def emit(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: object) -> None:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], f"n{len(self.nodes)}", **attributes))
        self.shapes[name] = shape

    def step(self) -> None:
        names = list(self.shapes)
        source = names[-1] if self.rng.random() < 0.7 else names[self.rng.integers(len(names))]
        kinds = [
            self.turn,
            self.turn,
            self.unary,
            self.scale,
            self.join,
            self.conv,
            self.mean,
            self.pad,
            self.cut,
            self.view,
        ]
        kinds[self.rng.integers(len(kinds))](source, self.shapes[source])

    def turn(self, x: str, shape: tuple[int, ...]) -> None:
        perm = PERMS[self.rng.integers(len(PERMS))]
        self.emit("Transpose", [x], tuple(shape[axis] for axis in perm), perm=perm)

    def unary(self, x: str, shape: tuple[int, ...]) -> None:
        self.emit(("Relu", "Sigmoid", "Tanh")[self.rng.integers(3)], [x], shape)

    def scale(self, x: str, shape: tuple[int, ...]) -> None:
        axis = self.rng.integers(4)
        sizes = [size if index == axis else 1 for index, size in enumerate(shape)][self.rng.integers(axis + 1) :]
        self.emit(("Mul", "Add", "Sub")[self.rng.integers(3)], [x, self.weight(*sizes)], shape)

    def join(self, x: str, shape: tuple[int, ...]) -> None:
        others = [name for name, sizes in self.shapes.items() if sizes == shape]
        other = others[self.rng.integers(len(others))]
        if self.rng.random() < 0.5:
            self.emit("Add", [x, other], shape)
        elif shape[3] < 12:
            self.emit("Concat", [x, other], (*shape[:3], 2 * shape[3]), axis=3)

    def conv(self, x: str, shape: tuple[int, ...]) -> None:
        self.emit("Conv", [x, self.weight(3, shape[1], 1, 1)], (shape[0], 3, *shape[2:]))

    def mean(self, x: str, shape: tuple[int, ...]) -> None:
        axes = [[2, 3], [1, 2], [1], [3]][self.rng.integers(4)]
        sizes = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        self.emit("ReduceMean", [x, self.array(np.array(axes))], sizes)

    def pad(self, x: str, shape: tuple[int, ...]) -> None:
        pads = self.rng.integers(0, 2, 8)
        self.emit("Pad", [x, self.array(pads)], tuple(int(n) for n in np.array(shape) + pads[:4] + pads[4:]))

    def cut(self, x: str, shape: tuple[int, ...]) -> None:
        axis = int(self.rng.integers(4))
        if shape[axis] > 2:
            sizes = tuple(size - 1 if index == axis else size for index, size in enumerate(shape))
            self.emit("Slice", [x, *(self.array(np.array([n])) for n in (1, shape[axis], axis))], sizes)

    def view(self, x: str, shape: tuple[int, ...]) -> None:
        order = self.rng.permutation(4)
        sizes = tuple(int(shape[axis]) for axis in order)
        self.emit("Reshape", [x, self.array(np.array(sizes))], sizes)

    def model(self) -> onnx.ModelProto:
        names = list(self.shapes)[1:]
        outputs = {names[-1], *(names[self.rng.integers(len(names))] for _ in range(2))}
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shapes["x"])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name]) for name in sorted(outputs)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def check(seed: int) -> None:
    maker = Maker(seed)
    while len(maker.nodes) < 4 + seed % 14:
        maker.step()
    source = maker.model()
    made = canonicalise(source, where=f"seed {seed}")
    assert largest_difference(source, made, random_inputs(source, seed)) <= 2e-5
    before = sum(node.op_type == "Transpose" for node in source.graph.node)
    assert counts(made).get("Transpose", 0) <= before
    assert [value.name for value in made.graph.outputs] == [value.name for value in source.graph.output]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_random_graph_keeps_its_outputs(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 2**32))
def test_many_random_graphs_keep_their_outputs(seed: int) -> None:
    check(seed)
