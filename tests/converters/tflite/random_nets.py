"""Random nets of what real ones are made of: kernels on images, attention, shuffles, joins, flattened heads."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


class Net:
    """Grows by one random operator after another."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        channels, side = self.pick([3, 4, 8]), self.pick([6, 8, 9])
        self.start: Shape = (1, channels, side, self.pick([side, side + 2]))
        self.shapes: dict[str, Shape] = {"x": self.start}

    def pick(self, choices: list[int]) -> int:
        return choices[self.rng.integers(len(choices))]

    def array(self, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def weight(self, *sizes: int, fan: int = 1) -> str:
        return self.array((self.rng.standard_normal(sizes) / np.sqrt(fan)).astype(np.float32))

    def numbers(self, *numbers: int) -> str:
        return self.array(np.array(numbers, np.int64))

    def emit(self, op: str, inputs: list[str], shape: Shape, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], f"n{len(self.nodes)}", **attributes))
        self.shapes[name] = tuple(int(size) for size in shape)
        return name

    def step(self) -> None:
        names = [name for name, shape in self.shapes.items() if 0 < np.prod(shape) <= 4096]
        source = names[-1] if self.rng.random() < 0.75 else names[self.rng.integers(len(names))]
        shape = self.shapes[source]
        kinds = [kind for fits, kind in KINDS if fits(shape)]
        kinds[self.rng.integers(len(kinds))](self, source, shape)

    # on images

    def conv(self, x: str, shape: Shape) -> None:
        kernel, stride, pad = self.pick([1, 3]), self.pick([1, 1, 2]), self.pick([0, 1])
        if min(shape[2:]) + 2 * pad < kernel:
            return
        out, channels = self.pick([4, 6, 8]), shape[1]
        sides = [(side + 2 * pad - kernel) // stride + 1 for side in shape[2:]]
        weight = self.weight(out, channels, kernel, kernel, fan=channels * kernel * kernel)
        options = {"strides": [stride] * 2, "pads": [pad] * 4, "kernel_shape": [kernel] * 2}
        self.emit("Conv", [x, weight, self.weight(out)], (shape[0], out, *sides), **options)

    def depthwise(self, x: str, shape: Shape) -> None:
        stride, channels = self.pick([1, 2]), shape[1]
        sides = [(side - 1) // stride + 1 for side in shape[2:]]
        weight = self.weight(channels, 1, 3, 3, fan=9)
        options = {"strides": [stride] * 2, "pads": [1] * 4, "group": channels, "kernel_shape": [3, 3]}
        self.emit("Conv", [x, weight], (shape[0], channels, *sides), **options)

    def pool(self, x: str, shape: Shape) -> None:
        if min(shape[2:]) >= 2:
            op = ("MaxPool", "AveragePool")[self.pick([0, 1])]
            self.emit(op, [x], (*shape[:2], shape[2] // 2, shape[3] // 2), kernel_shape=[2, 2], strides=[2, 2])

    def everywhere(self, x: str, shape: Shape) -> None:
        self.emit("GlobalAveragePool", [x], (*shape[:2], 1, 1))

    def grow(self, x: str, shape: Shape) -> None:
        if max(shape[2:]) <= 10:
            scales = self.array(np.array([1, 1, 2, 2], np.float32))
            mode = ("nearest", "linear")[self.pick([0, 1])]
            options = {
                "mode": mode,
                "coordinate_transformation_mode": "half_pixel",
                "nearest_mode": "round_prefer_floor",
            }
            self.emit("Resize", [x, "", scales], (*shape[:2], 2 * shape[2], 2 * shape[3]), **options)

    def shuffle(self, x: str, shape: Shape) -> None:
        if shape[1] % 2 == 0:
            wide = (shape[0], 2, shape[1] // 2, *shape[2:])
            parted = self.emit("Reshape", [x, self.numbers(*wide)], wide)
            turned = self.emit("Transpose", [parted], (wide[0], wide[2], 2, *wide[3:]), perm=[0, 2, 1, 3, 4])
            self.emit("Reshape", [turned, self.numbers(*shape)], shape)

    def squeeze_excite(self, x: str, shape: Shape) -> None:
        mean = self.emit("GlobalAveragePool", [x], (*shape[:2], 1, 1))
        weight = self.weight(shape[1], shape[1], 1, 1, fan=shape[1])
        gate = self.emit("Conv", [mean, weight], (*shape[:2], 1, 1), kernel_shape=[1, 1])
        gate = self.emit(("Sigmoid", "HardSigmoid")[self.pick([0, 1])], [gate], (*shape[:2], 1, 1))
        self.emit("Mul", [x, gate], shape)

    def flatten(self, x: str, shape: Shape) -> None:
        self.emit("Flatten", [x], (shape[0], int(np.prod(shape[1:]))), axis=1)

    def tokens(self, x: str, shape: Shape) -> None:
        flat = self.emit("Reshape", [x, self.numbers(*shape[:2], -1)], (*shape[:2], shape[2] * shape[3]))
        self.emit("Transpose", [flat], (shape[0], shape[2] * shape[3], shape[1]), perm=[0, 2, 1])

    # on rows

    def dense(self, x: str, shape: Shape) -> None:
        out = self.pick([4, 6])
        weight = self.weight(shape[-1], out, fan=shape[-1])
        if len(shape) == 2:
            self.emit("Gemm", [x, weight, self.weight(out)], (shape[0], out))
            return
        product = self.emit("MatMul", [x, weight], (*shape[:-1], out))
        self.emit("Add", [product, self.weight(out)], (*shape[:-1], out))

    def attend(self, x: str, shape: Shape) -> None:
        if shape[-2] > 40:
            return
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        turned = self.emit("Transpose", [x], tuple(shape[axis] for axis in order), perm=order)
        score = self.emit("MatMul", [x, turned], (*shape[:-2], shape[-2], shape[-2]))
        share = self.emit("Softmax", [score], (*shape[:-2], shape[-2], shape[-2]), axis=-1)
        self.emit("MatMul", [share, x], shape)

    def norm(self, x: str, shape: Shape) -> None:
        if shape[-1] > 1:
            scale = self.array(self.rng.uniform(0.5, 1.5, shape[-1]).astype(np.float32))
            self.emit("LayerNormalization", [x, scale, self.weight(shape[-1])], shape, axis=-1, epsilon=1e-2)

    # on anything

    def act(self, x: str, shape: Shape) -> None:
        op = ("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Gelu", "Clip")[self.rng.integers(7)]
        bounds = [self.array(np.array(bound, np.float32)) for bound in (0.0, 6.0)] if op == "Clip" else []
        self.emit(op, [x, *bounds], shape)

    def scale(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(len(shape)))
        sizes = [size if index == axis else 1 for index, size in enumerate(shape)]
        sizes = sizes[int(self.rng.integers(axis + 1)) :]
        self.emit(("Mul", "Add")[self.pick([0, 1])], [x, self.weight(*sizes)], shape)

    def join(self, x: str, shape: Shape) -> None:
        others = [name for name, sizes in self.shapes.items() if sizes == shape]
        other = others[self.rng.integers(len(others))]
        op = ("Add", "Mul", "Concat")[self.rng.integers(3)]
        if op == "Concat":
            axis = int(self.rng.integers(1, len(shape)))
            sizes = tuple(2 * size if index == axis else size for index, size in enumerate(shape))
            self.emit("Concat", [x, other], sizes, axis=axis)
        else:
            self.emit(op, [x, other], shape)

    def turn(self, x: str, shape: Shape) -> None:
        order = [0, *(1 + self.rng.permutation(len(shape) - 1))]
        order = [int(axis) for axis in order]
        self.emit("Transpose", [x], tuple(shape[axis] for axis in order), perm=order)

    def cut(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(1, len(shape)))
        if shape[axis] > 2:
            sizes = tuple(size - 1 if index == axis else size for index, size in enumerate(shape))
            self.emit("Slice", [x, self.numbers(1), self.numbers(shape[axis]), self.numbers(axis)], sizes)

    def pad(self, x: str, shape: Shape) -> None:
        pads = self.rng.integers(0, 2, 2 * len(shape))
        pads[[0, len(shape)]] = 0
        sizes = np.array(shape) + pads[: len(shape)] + pads[len(shape) :]
        self.emit("Pad", [x, self.array(pads)], tuple(int(size) for size in sizes))

    def mean(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(1, len(shape)))
        op = ("ReduceMean", "ReduceMax")[self.pick([0, 1])]
        sizes = tuple(1 if index == axis else size for index, size in enumerate(shape))
        self.emit(op, [x, self.numbers(axis)], sizes, keepdims=1)

    def view(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(1, len(shape)))
        if shape[axis] % 2 == 0 and len(shape) < 4:
            sizes = (*shape[:axis], 2, shape[axis] // 2, *shape[axis + 1 :])
        elif len(shape) > 2:
            at = int(self.rng.integers(1, len(shape) - 1))
            sizes = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])
        else:
            return
        self.emit("Reshape", [x, self.numbers(*sizes)], sizes)

    def model(self) -> onnx.ModelProto:
        read = {name for node in self.nodes for name in node.input}
        outputs = [name for name in self.shapes if name not in read and name != "x"]
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *self.start[1:]])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        for value in made.graph.output:
            value.type.tensor_type.ClearField("shape")
        return made


def _images(shape: Shape) -> bool:
    return len(shape) == 4


def _rows(shape: Shape) -> bool:
    return len(shape) in {2, 3, 4}


def _stacks(shape: Shape) -> bool:
    return len(shape) in {3, 4}


def _any(shape: Shape) -> bool:
    return len(shape) <= 5


KINDS: list[tuple[Callable[[Shape], bool], Callable[[Net, str, Shape], None]]] = [
    (_images, Net.conv),
    (_images, Net.conv),
    (_images, Net.depthwise),
    (_images, Net.pool),
    (_images, Net.everywhere),
    (_images, Net.grow),
    (_images, Net.shuffle),
    (_images, Net.squeeze_excite),
    (_images, Net.flatten),
    (_images, Net.tokens),
    (_rows, Net.dense),
    (_stacks, Net.attend),
    (_rows, Net.norm),
    (_any, Net.act),
    (_any, Net.act),
    (_any, Net.scale),
    (_any, Net.join),
    (_any, Net.join),
    (_any, Net.turn),
    (_any, Net.cut),
    (_any, Net.pad),
    (_any, Net.mean),
    (_any, Net.view),
]


def random_net(seed: int) -> onnx.ModelProto:
    """One net; the same seed gives the same one. Its input is x, (batch, channels, height, width)."""
    net = Net(seed)
    while len(net.nodes) < 3 + seed % 16:
        net.step()
    return onnx.shape_inference.infer_shapes(net.model())


def random_input(model: onnx.ModelProto, seed: int, *, count: int = 1) -> np.ndarray:
    """What it takes."""
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    return np.random.default_rng(seed).standard_normal((count, *sizes)).astype(np.float32)
