"""Networks of known architectures with seeded random weights, written as ONNX for the benchmarks.

    python benchmarks/nets.py [NAME ...]        # into build/bench/NAME.onnx, with calibration.npz and evaluation.npz

The weights are random, but the activations are those of a net that works: batch norm's statistics are gathered on
textures in train mode, and the last layer is fitted by ridge regression to their classes, so that an answer has a
margin and agreement with float means something.

Architectures: MobileNetV2 (Sandler et al. 2018, table 2), ResNet18 (He et al. 2015, table 1), MobileNetV3-small (Howard
et al. 2019, table 2), ViT (Dosovitskiy et al. 2020; tiny: 192 wide, base: 768 wide), ConvNeXt (Liu et al. 2022).
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from ours import BENCH
from textures import CLASSES, SIDE, textures
from torch import Tensor, nn
from torch.nn import functional

OPSET = 18
HEAD_CLASSES = 1000
CALIBRATION, EVALUATION = 100, 50
NORM_IMAGES, HEAD_IMAGES, BATCH = 96, 800, 16
RIDGE = 1.0


def conv_norm(wide: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the plane's size (over the stride), and its batch norm."""
    conv = nn.Conv2d(wide, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out, momentum=None)]


class Residual(nn.Module):
    """body(x) + shortcut(x), and an activation after the sum where one is given."""

    def __init__(self, body: nn.Module, *, shortcut: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.after = nn.Identity() if after is None else after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.shortcut(x) + self.body(x))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    def __init__(self, wide: int) -> None:
        super().__init__()
        inner = max(8, int(wide / 4 + 4) // 8 * 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, inner, 1), nn.ReLU(), nn.Conv2d(inner, wide, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)  # type: ignore[no-any-return]


def mobilenet_v2() -> nn.Module:
    """Width 1.0, 224 px, 3.5 M parameters."""
    layers: list[nn.Module] = [*conv_norm(3, 32, 3, stride=2), nn.ReLU6()]
    wide = 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, out, count, first_stride in table:
        for index in range(count):
            stride, inner = (first_stride if index == 0 else 1), wide * expand
            body: list[nn.Module] = [*conv_norm(wide, inner, 1), nn.ReLU6()] if expand > 1 else []
            body += [*conv_norm(inner, inner, 3, stride=stride, groups=inner), nn.ReLU6(), *conv_norm(inner, out, 1)]
            block = nn.Sequential(*body)
            layers.append(Residual(block) if stride == 1 and wide == out else block)
            wide = out
    layers += [*conv_norm(wide, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, HEAD_CLASSES))


def resnet18() -> nn.Module:
    """11.7 M parameters."""
    layers: list[nn.Module] = [*conv_norm(3, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    wide = 64
    for out in (64, 128, 256, 512):
        for stride in (1 if out == 64 else 2, 1):
            body = nn.Sequential(*conv_norm(wide, out, 3, stride=stride), nn.ReLU(), *conv_norm(out, out, 3))
            same = stride == 1 and wide == out
            shortcut = None if same else nn.Sequential(*conv_norm(wide, out, 1, stride=stride))
            layers.append(Residual(body, shortcut=shortcut, after=nn.ReLU()))
            wide = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, HEAD_CLASSES))


def mobilenet_v3_small() -> nn.Module:
    """Squeeze and excite, hard swish; 2.5 M parameters."""
    layers: list[nn.Module] = [*conv_norm(3, 16, 3, stride=2), nn.Hardswish()]
    wide = 16
    table: Sequence[tuple[int, int, int, bool, type[nn.Module], int]] = (
        (3, 16, 16, True, nn.ReLU, 2),
        (3, 72, 24, False, nn.ReLU, 2),
        (3, 88, 24, False, nn.ReLU, 1),
        (5, 96, 40, True, nn.Hardswish, 2),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1),
        (5, 144, 48, True, nn.Hardswish, 1),
        (5, 288, 96, True, nn.Hardswish, 2),
        (5, 576, 96, True, nn.Hardswish, 1),
        (5, 576, 96, True, nn.Hardswish, 1),
    )
    for kernel, inner, out, excite, act, stride in table:
        body: list[nn.Module] = [*conv_norm(wide, inner, 1), act()] if inner != wide else []
        body += [*conv_norm(inner, inner, kernel, stride=stride, groups=inner), act()]
        body += [SqueezeExcite(inner)] if excite else []
        block = nn.Sequential(*body, *conv_norm(inner, out, 1))
        layers.append(Residual(block) if stride == 1 and wide == out else block)
        wide = out
    layers += [*conv_norm(wide, 576, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, HEAD_CLASSES))


class Attention(nn.Module):
    """Self-attention spelled out: (n, t, dim) -> (n, t, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        count, length, dim = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query * self.scale @ key.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(count, length, dim))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Patches of 16 x 16, a class token, learned positions, norm before each part."""

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.5)
        self.positions = nn.Parameter(torch.randn(1, (SIDE // 16) ** 2 + 1, dim) * 0.3)
        parts: list[nn.Module] = []
        for _ in range(depth):
            parts.append(Residual(nn.Sequential(nn.LayerNorm(dim), Attention(dim, heads))))
            mlp = [nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)]
            parts.append(Residual(nn.Sequential(*mlp)))
        self.blocks, self.norm = nn.Sequential(*parts), nn.LayerNorm(dim)
        self.head = nn.Linear(dim, HEAD_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens))[:, 0])  # type: ignore[no-any-return]


def vit_tiny() -> nn.Module:
    """192 wide, 12 deep, 3 heads: 5.7 M parameters."""
    return VisionTransformer(192, 12, 3)


def vit_base() -> nn.Module:
    """768 wide, 12 deep, 12 heads: 86 M parameters, a file of 346 MB."""
    return VisionTransformer(768, 12, 12)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (n, c, h, w)."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(wide, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class ConvNeXtBody(nn.Module):
    """7 x 7 depthwise, layer norm, two pointwise layers as channels-last linear ones, layer scale."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(wide, wide, 7, padding=3, groups=wide)
        self.norm = nn.LayerNorm(wide, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(wide, 4 * wide), nn.GELU(), nn.Linear(4 * wide, wide))
        self.scale = nn.Parameter(torch.rand(wide) * 0.4 + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return (self.mlp(x) * self.scale).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def convnext() -> nn.Module:
    """48, 96, 192 and 384 wide, 2, 2, 6 and 2 deep: 7 M parameters."""
    layers: list[nn.Module] = []
    before = 3
    for wide, depth in ((48, 2), (96, 2), (192, 6), (384, 2)):
        if before == 3:
            layers += [nn.Conv2d(3, wide, 4, 4), ChannelNorm(wide)]
        else:
            layers += [ChannelNorm(before), nn.Conv2d(before, wide, 2, 2)]
        layers += [Residual(ConvNeXtBody(wide)) for _ in range(depth)]
        before = wide
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(before, eps=1e-6)]
    return nn.Sequential(*layers, nn.Linear(before, HEAD_CLASSES))


NETS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "mobilenet_v3_small": mobilenet_v3_small,
    "vit_tiny": vit_tiny,
    "convnext": convnext,
    "vit_base": vit_base,
}
NOT_FITTED = {"vit_base"}
"""Too big to fit a head to in a benchmark; it is there for memory alone."""


def build(name: str) -> nn.Module:
    """A net in eval mode; the same weights on every call (torch's own generators promise that within a version)."""
    torch.manual_seed(sum(name.encode()))
    net = NETS[name]()
    initialise(net)
    gather_norm_statistics(net)
    net.eval()
    if name not in NOT_FITTED:
        fit_head(net)
    return net


@torch.no_grad()
def initialise(net: nn.Module) -> None:
    """Weights that keep the variance; norms with scales and shifts that differ by channel, as trained ones do."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            module.weight.normal_(0, (1.6 / fan) ** 0.5)
            if module.bias is not None:
                module.bias.normal_(0, 0.1)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    for module in net.modules():
        if not isinstance(module, Residual):
            continue
        norms = [part for part in module.body.modules() if isinstance(part, nn.BatchNorm2d)]
        if norms:
            norms[-1].weight.uniform_(0.2, 0.5)  # trained residual branches add little to what they bypass


@torch.no_grad()
def gather_norm_statistics(net: nn.Module) -> None:
    """Means and variances of batch norm, averaged over batches (momentum None)."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        return
    net.train()
    for batch in torch.from_numpy(textures(NORM_IMAGES, seed=1).x).split(BATCH):
        net(batch)


@torch.no_grad()
def fit_head(net: nn.Module) -> None:
    """Ridge regression of the last linear layer to the classes of textures; the targets are 10 and 0."""
    head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].double()))
    data = textures(HEAD_IMAGES, seed=2)
    for batch in torch.from_numpy(data.x).split(BATCH):
        net(batch)
    hook.remove()
    features = torch.cat(seen)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    scaled = (features - mean) / deviation
    target = functional.one_hot(torch.from_numpy(data.y), HEAD_CLASSES).double() * 10
    strength = RIDGE * len(scaled) * torch.eye(scaled.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(scaled.T @ scaled + strength, scaled.T @ (target - target.mean(0)))
    weight = (solution / deviation[:, None]).T
    head.weight.copy_(weight)
    head.bias.copy_(target.mean(0) - weight @ mean)
    never = torch.arange(HEAD_CLASSES) >= CLASSES  # classes that no texture has: noise far below the right answers
    head.weight[never] = torch.randn(HEAD_CLASSES - CLASSES, head.in_features) * float(weight[:CLASSES].std()) * 0.1
    head.bias[never] = -(head.weight[never].double() @ mean).float()


def export(net: nn.Module, path: Path) -> None:
    """Write the net as torch's exporter does, with the batch free."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, 3, SIDE, SIDE),),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


def net_file(name: str, out: Path = BENCH) -> Path:
    """The net's ONNX file, written first where it is absent."""
    path = out / f"{name}.onnx"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        export(build(name), partial)
        partial.rename(path)
    return path


def data_files(out: Path = BENCH) -> tuple[Path, Path]:
    """The calibration and the evaluation images: .npz of `x` and `y`."""
    paths = out / "calibration.npz", out / "evaluation.npz"
    for seed, (path, count) in enumerate(zip(paths, (CALIBRATION, EVALUATION), strict=True), start=3):
        if not path.exists():
            out.mkdir(parents=True, exist_ok=True)
            data = textures(count, seed=seed)
            np.savez(path, x=data.x, y=data.y)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETS), metavar="NAME", help=", ".join(NETS))
    args = parser.parse_args()
    for path in data_files():
        print(f"{path}: {path.stat().st_size} bytes")
    for name in args.names:
        start = time.perf_counter()
        path = net_file(name)
        print(f"{path}: {path.stat().st_size} bytes, {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
