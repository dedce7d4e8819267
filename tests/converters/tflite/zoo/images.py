"""Classifiers of images, by the architecture that each block is known from."""

import torch
from torch import nn
from torch.nn import functional

from tests.converters.tflite.zoo.case import Case, Feed


def conv(wide, out, kernel=3, stride=1, groups=1, act=nn.ReLU, dilation=1):
    """Convolution, batch norm, activation."""
    made = [nn.Conv2d(wide, out, kernel, stride, dilation * (kernel // 2), dilation, groups, bias=False)]
    return nn.Sequential(*made, nn.BatchNorm2d(out), *([act()] if act else []))


def head(wide, classes=10):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(wide, classes))


class Sum(nn.Module):
    def __init__(self, body, shortcut=None, after=None):
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut or nn.Identity(), after or nn.Identity()

    def forward(self, x):
        return self.after(self.shortcut(x) + self.body(x))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, wide, inner, act=nn.ReLU, gate=nn.Hardsigmoid):
        super().__init__()
        self.down, self.up, self.act, self.gate = nn.Conv2d(wide, inner, 1), nn.Conv2d(inner, wide, 1), act(), gate()

    def forward(self, x):
        return x * self.gate(self.up(self.act(self.down(functional.adaptive_avg_pool2d(x, 1)))))


def inverted(wide, inner, out, kernel, stride, gate, act):
    """MobileNetV2's block, with a gate."""
    body = nn.Sequential(
        conv(wide, inner, 1, act=act),
        conv(inner, inner, kernel, stride, inner, act),
        gate,
        conv(inner, out, 1, act=None),
    )
    return Sum(body) if stride == 1 and wide == out else body


def mobilenet_v3():
    rows = [(16, 16, 3, 1, 0, nn.ReLU), (64, 24, 3, 2, 0, nn.ReLU), (72, 24, 3, 1, 0, nn.ReLU), (72, 40, 5, 2, 1, nn.ReLU),
            (120, 40, 5, 1, 1, nn.ReLU), (240, 80, 3, 2, 0, nn.Hardswish), (200, 80, 3, 1, 0, nn.Hardswish),
            (480, 112, 3, 1, 1, nn.Hardswish), (672, 160, 5, 2, 1, nn.Hardswish)]  # fmt: skip
    layers, wide = [conv(3, 16, 3, 2, act=nn.Hardswish)], 16
    for inner, out, kernel, stride, gated, act in rows:
        gate = Gate(inner, inner // 4) if gated else nn.Identity()
        layers.append(inverted(wide, inner, out, kernel, stride, gate, act))
        wide = out
    last = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(480, 640), nn.Hardswish(), nn.Linear(640, 10)
    )
    return nn.Sequential(*layers, conv(wide, 480, 1, act=nn.Hardswish), last)


def efficientnet():
    rows = [(1, 16, 3, 1), (6, 24, 3, 2), (6, 24, 3, 1), (6, 40, 5, 2), (6, 40, 5, 1), (6, 80, 3, 2)]
    layers, wide = [conv(3, 32, 3, 2, act=nn.SiLU)], 32
    for factor, out, kernel, stride in rows:
        gate = Gate(wide * factor, max(1, wide // 4), nn.SiLU, nn.Sigmoid)
        layers.append(inverted(wide, wide * factor, out, kernel, stride, gate, nn.SiLU))
        wide = out
    return nn.Sequential(*layers, conv(wide, 160, 1, act=nn.SiLU), head(160))


def bottleneck(wide, inner, out, stride, groups, gate=None):
    body = nn.Sequential(
        conv(wide, inner, 1),
        conv(inner, inner, 3, stride, groups),
        *([gate] if gate else []),
        conv(inner, out, 1, act=None),
    )
    short = conv(wide, out, 1, stride, act=None) if stride > 1 or wide != out else None
    return Sum(body, short, nn.ReLU())


def regnet():
    blocks = [bottleneck(w, o, o, s, o // 8, Gate(o, 8, gate=nn.Sigmoid)) for w, o, s in
              [(16, 24, 2), (24, 24, 1), (24, 56, 2), (56, 56, 1), (56, 152, 2)]]  # fmt: skip
    return nn.Sequential(conv(3, 16, 3, 2), *blocks, head(152))


def resnext():
    stem = nn.Sequential(conv(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, bottleneck(32, 64, 64, 1, 16), bottleneck(64, 128, 128, 2, 32), head(128))


class Shuffled(nn.Module):
    """ShuffleNetV2's units: half of the channels pass by."""

    def __init__(self, wide, out, stride):
        super().__init__()
        half, self.stride = out // 2, stride
        inside = wide if stride > 1 else half
        self.left = nn.Sequential(conv(wide, wide, 3, 2, wide, act=None), conv(wide, half, 1)) if stride > 1 else None
        self.right = nn.Sequential(
            conv(inside, half, 1), conv(half, half, 3, stride, half, act=None), conv(half, half, 1)
        )

    def forward(self, x):
        if self.left is None:
            kept, changed = x.chunk(2, dim=1)
            y = torch.cat((kept, self.right(changed)), 1)
        else:
            y = torch.cat((self.left(x), self.right(x)), 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def shufflenet():
    blocks = [Shuffled(w, o, s) for w, o, s in [(24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1), (96, 96, 1)]]
    return nn.Sequential(conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1), *blocks, conv(96, 128, 1), head(128))


class Fire(nn.Module):
    def __init__(self, wide, squeeze, out):
        super().__init__()
        self.squeeze = nn.Conv2d(wide, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, out, 1), nn.Conv2d(squeeze, out, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


def squeezenet():
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    body = [nn.Conv2d(3, 32, 3, 2), nn.ReLU(), pool, Fire(32, 16, 32), Fire(64, 16, 32), pool, Fire(64, 32, 64)]
    return nn.Sequential(*body, nn.Conv2d(128, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())


class Dense(nn.Module):
    def __init__(self, wide, growth):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


def densenet():
    def block(wide):
        return [Dense(wide + 12 * at, 12) for at in range(4)]

    between = nn.Sequential(nn.BatchNorm2d(72), nn.ReLU(), nn.Conv2d(72, 36, 1, bias=False), nn.AvgPool2d(2))
    stem = nn.Sequential(conv(3, 24, 7, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, *block(24), between, *block(36), nn.BatchNorm2d(84), nn.ReLU(), head(84))


class Inception(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.one = conv(wide, 16, 1)
        self.three = nn.Sequential(
            conv(wide, 16, 1), nn.Conv2d(16, 24, (1, 3), padding=(0, 1)), nn.Conv2d(24, 24, (3, 1), padding=(1, 0))
        )
        self.five = nn.Sequential(conv(wide, 8, 1), conv(8, 16, 5))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(wide, 8, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def inception():
    return nn.Sequential(conv(3, 16, 3, 2), Inception(16), nn.MaxPool2d(3, 2), Inception(64), head(64))


class GRN(nn.Module):
    """Global response normalisation, channels last."""

    def __init__(self, wide):
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.randn(1, 1, 1, wide) * 0.3) for _ in range(2))

    def forward(self, x):
        size = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (size / (size.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class ConvNext(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.deep, self.norm = nn.Conv2d(wide, wide, 7, padding=3, groups=wide), nn.LayerNorm(wide, eps=1e-6)
        self.up, self.grn, self.down = nn.Linear(wide, 4 * wide), GRN(4 * wide), nn.Linear(4 * wide, wide)

    def forward(self, x):
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        return x + self.down(self.grn(functional.gelu(self.up(y)))).permute(0, 3, 1, 2)


class Norm2d(nn.LayerNorm):
    """Over the channels of a tensor whose axis 1 they are."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 4, 4), Norm2d(24, 1e-6))
        self.body = nn.Sequential(ConvNext(24), Norm2d(24, 1e-6), nn.Conv2d(24, 48, 2, 2), ConvNext(48), ConvNext(48))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.norm(self.body(self.stem(x)).mean([-2, -1])))


class GhostModule(nn.Module):
    def __init__(self, wide, out):
        super().__init__()
        self.out, half = out, -(-out // 2)
        self.first, self.cheap = conv(wide, half, 1), conv(half, half, 3, groups=half)

    def forward(self, x):
        y = self.first(x)
        return torch.cat([y, self.cheap(y)], dim=1)[:, : self.out]


def ghostnet():
    return nn.Sequential(conv(3, 16, 3, 2), GhostModule(16, 25), nn.MaxPool2d(2), GhostModule(25, 40), head(40))


class SpatialAttention(nn.Module):
    """CBAM: a map from the mean and the largest channel."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(maps))


class ChannelAttention(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(wide, wide // 4), nn.ReLU(), nn.Linear(wide // 4, wide))

    def forward(self, x):
        b, c, _, _ = x.size()
        mean = self.mlp(functional.adaptive_avg_pool2d(x, 1).view(b, c))
        most = self.mlp(functional.adaptive_max_pool2d(x, 1).view(b, c))
        return x * torch.sigmoid(mean + most).view(b, c, 1, 1).expand_as(x)


class CoordAttention(nn.Module):
    """Pooled along each of the two axes, concatenated, split again."""

    def __init__(self, wide):
        super().__init__()
        self.mid, self.high, self.wide = (
            conv(wide, 8, 1, act=nn.Hardswish),
            nn.Conv2d(8, wide, 1),
            nn.Conv2d(8, wide, 1),
        )

    def forward(self, x):
        _, _, h, w = x.size()
        rows = functional.adaptive_avg_pool2d(x, (None, 1))
        cols = functional.adaptive_avg_pool2d(x, (1, None)).permute(0, 1, 3, 2)
        high, wide = torch.split(self.mid(torch.cat([rows, cols], 2)), [h, w], 2)
        return x * self.high(high).sigmoid() * self.wide(wide.permute(0, 1, 3, 2)).sigmoid()


def attention_cnn():
    body = [conv(3, 16, 3, 2), ChannelAttention(16), SpatialAttention(), conv(16, 32, 3, 2), CoordAttention(32)]
    return nn.Sequential(*body, head(32))


class Eca(nn.Module):
    """A 1-D convolution over the channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        y = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
        return x * self.conv(y).transpose(-1, -2).unsqueeze(-1).sigmoid()


def blurred():
    """VGG's blocks with gates, average pools with padding, Mish, and a pool of 3 x 3 before the classifier."""
    body = [conv(3, 16, act=nn.Mish), Eca(), nn.AvgPool2d(3, 2, 1), conv(16, 32, act=nn.ELU), nn.AdaptiveAvgPool2d(4)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(512, 32), nn.BatchNorm1d(32), nn.CELU(), nn.Linear(32, 10),
                         nn.LogSoftmax(1))  # fmt: skip


def repvgg_like():
    """Branches that meet, group norm with SiLU, PReLU, an LRN and a Softplus."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.PReLU(16), nn.LocalResponseNorm(3), nn.Conv2d(16, 32, 3, 2, 1), nn.GroupNorm(4, 32),
        nn.SiLU(), Sum(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.Softplus()), nn.Conv2d(32, 32, 1)), head(32),
    )  # fmt: skip


RGB = Feed((3, 64, 64))
IMAGES = [
    Case("mobilenet v3", mobilenet_v3, [RGB]),
    Case("efficientnet", efficientnet, [RGB]),
    Case("regnet", regnet, [RGB]),
    Case("resnext", resnext, [RGB]),
    Case("shufflenet v2", shufflenet, [RGB]),
    Case("squeezenet", squeezenet, [RGB]),
    Case("densenet", densenet, [RGB]),
    Case("inception", inception, [RGB]),
    Case("convnext v2", ConvNextV2, [RGB]),
    Case("ghostnet", ghostnet, [RGB]),
    Case("cbam, coord", attention_cnn, [RGB]),
    Case("vgg, eca", blurred, [RGB]),
    Case("group norm", repvgg_like, [RGB]),
]
