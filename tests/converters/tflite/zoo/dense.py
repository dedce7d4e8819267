"""Networks that answer for each pixel, or that draw: segmentation, detection, super-resolution, generators."""

import torch
from torch import nn
from torch.nn import functional

from tests.converters.tflite.zoo.case import Case, Feed
from tests.converters.tflite.zoo.images import RGB, Sum, conv


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Sequential(conv(w, o), conv(o, o)) for w, o in [(3, 16), (16, 32), (32, 64)])
        self.up1, self.up2 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.d, self.e, self.out = conv(64, 32), conv(32, 16), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(functional.max_pool2d(a, 2))
        y = self.up1(self.c(functional.max_pool2d(b, 2)))
        y = self.up2(self.d(torch.cat([b, y], 1)))
        return self.out(self.e(torch.cat([a, y], 1)))


class PaddedUNet(UNet):
    """As it is written for sizes that are not multiples: what was sampled up is padded to the skip's size."""

    def forward(self, x):
        a = self.a(x)
        b = self.b(functional.max_pool2d(a, 2))
        y = self.d(torch.cat([b, self._fit(self.up1(self.c(functional.max_pool2d(b, 2))), b)], 1))
        return self.out(self.e(torch.cat([a, self._fit(self.up2(y), a)], 1))).argmax(1)

    def _fit(self, y, skip):
        dy, dx = skip.size(2) - y.size(2), skip.size(3) - y.size(3)
        return functional.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])


class DeepLab(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 32, 3, 1, dilation=2))
        self.branches = nn.ModuleList([conv(32, 16, 1), conv(32, 16, 3, dilation=2), conv(32, 16, 3, dilation=4)])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(32, 16, 1))
        self.low, self.out = conv(16, 8, 1), nn.Sequential(conv(72, 16), nn.Conv2d(16, 5, 1))

    def forward(self, x):
        early = self.stem[0](x)
        y = self.stem[1:](early)
        pooled = functional.interpolate(self.pooled(y), y.shape[-2:], mode="bilinear", align_corners=False)
        y = torch.cat([*(one(y) for one in self.branches), pooled], 1)
        y = functional.interpolate(y, early.shape[-2:], mode="bilinear", align_corners=False)
        y = self.out(torch.cat([y, self.low(early)], 1))
        return functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=True)


class Yolo(nn.Module):
    """SiLU, CSP, SPPF, a top-down path, and boxes decoded on a grid."""

    def __init__(self, classes=3):
        super().__init__()
        act = nn.SiLU
        self.classes = classes
        self.stem = nn.Sequential(conv(3, 16, 6 - 1, 2, act=act), conv(16, 32, 3, 2, act=act))
        self.left, self.right = conv(32, 16, 1, act=act), conv(32, 16, 1, act=act)
        self.deep = Sum(nn.Sequential(conv(16, 16, 1, act=act), conv(16, 16, 3, act=act)))
        self.down, self.sppf = conv(32, 32, 3, 2, act=act), conv(128, 32, 1, act=act)
        self.heads = nn.ModuleList(nn.Conv2d(w, 3 * (5 + classes), 1) for w in (64, 32))
        self.register_buffer("anchors", torch.rand(2, 3, 2) * 20 + 5)

    def forward(self, x):
        y = self.stem(x)
        y = torch.cat([self.deep(self.left(y)), self.right(y)], 1)
        z = self.down(y)
        pools = [z]
        for _ in range(3):
            pools.append(functional.max_pool2d(pools[-1], 5, 1, 2))
        z = self.sppf(torch.cat(pools, 1))
        y = torch.cat([functional.interpolate(z, scale_factor=2.0, mode="nearest"), y], 1)
        found = [self._decode(head(f), anchors, stride) for head, f, anchors, stride in
                 zip(self.heads, (y, z), self.anchors, (4.0, 8.0))]  # fmt: skip
        return torch.cat(found, 1)

    def _decode(self, raw, anchors, stride):
        b, _, h, w = raw.shape
        raw = raw.view(b, 3, 5 + self.classes, h, w).permute(0, 1, 3, 4, 2).contiguous()
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((xs, ys), 2).view(1, 1, h, w, 2).float()
        xy, wh, rest = raw.sigmoid().split((2, 2, 1 + self.classes), 4)
        xy = (xy * 2 - 0.5 + grid) * stride
        wh = (wh * 2) ** 2 * anchors.view(1, 3, 1, 1, 2)
        return torch.cat((xy, wh, rest), 4).view(b, -1, 5 + self.classes)


class YoloV8(nn.Module):
    """C2f's chunks and the distribution focal loss's expected value."""

    def __init__(self, classes=4, bins=8):
        super().__init__()
        self.classes, self.bins = classes, bins
        act = nn.SiLU
        self.stem, self.first = (
            nn.Sequential(conv(3, 16, 3, 2, act=act), conv(16, 32, 3, 2, act=act)),
            conv(32, 32, 1, act=act),
        )
        self.deep = nn.ModuleList(Sum(nn.Sequential(conv(16, 16, act=act), conv(16, 16, act=act))) for _ in range(2))
        self.last, self.box, self.cls = conv(64, 32, 1, act=act), nn.Conv2d(32, 4 * bins, 1), nn.Conv2d(32, classes, 1)
        self.dfl = nn.Conv2d(bins, 1, 1, bias=False)
        self.dfl.weight.data = torch.arange(bins).float().view(1, bins, 1, 1)

    def forward(self, x):
        parts = list(self.first(self.stem(x)).chunk(2, 1))
        parts.extend(one(parts[-1]) for one in self.deep)
        y = self.last(torch.cat(parts, 1))
        raw = torch.cat([self.box(y), self.cls(y)], 1)
        b, _, h, w = raw.shape
        box, cls = raw.view(b, 4 * self.bins + self.classes, -1).split((4 * self.bins, self.classes), 1)
        dist = self.dfl(box.view(b, 4, self.bins, h * w).transpose(2, 1).softmax(1)).view(b, 4, h * w)
        lt, rb = dist.chunk(2, 1)
        ys, xs = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        points = torch.stack((xs, ys), -1).view(-1, 2).transpose(0, 1).unsqueeze(0)
        x1y1, x2y2 = points - lt, points + rb
        return torch.cat((torch.cat(((x1y1 + x2y2) / 2, x2y2 - x1y1), 1) * 4.0, cls.sigmoid()), 1)


class Ssd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (
            nn.Sequential(conv(3, 16, 3, 2, act=nn.ReLU6), conv(16, 32, 3, 2, act=nn.ReLU6)),
            conv(32, 48, 3, 2),
        )
        self.box = nn.ModuleList(nn.Conv2d(w, 16, 3, padding=1) for w in (32, 48))
        self.cls = nn.ModuleList(nn.Conv2d(w, 4 * 6, 3, padding=1) for w in (32, 48))

    def forward(self, x):
        maps = [self.a(x)]
        maps.append(self.b(maps[0]))
        boxes = [one(y).permute(0, 2, 3, 1).reshape(x.size(0), -1, 4) for one, y in zip(self.box, maps)]
        scores = [one(y).permute(0, 2, 3, 1).reshape(x.size(0), -1, 6) for one, y in zip(self.cls, maps)]
        return torch.cat(boxes, 1), torch.cat(scores, 1).softmax(-1)


class CenterNet(nn.Module):
    """Heat maps with a local maximum and the best k of them."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 16, 3, 2),
            conv(16, 32, 3, 2),
            nn.ConvTranspose2d(32, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.heat, self.size = nn.Conv2d(32, 3, 1), nn.Conv2d(32, 2, 1)

    def forward(self, x):
        y = self.body(x)
        heat = self.heat(y).sigmoid()
        heat = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, where = torch.topk(heat.flatten(1), 10)
        place = where % (heat.shape[2] * heat.shape[3])
        sizes = self.size(y).flatten(2).permute(0, 2, 1).gather(1, place.unsqueeze(-1).expand(-1, -1, 2))
        return scores, place, sizes


class Fpn(nn.Module):
    """A feature pyramid as torchvision writes it: laterals, nearest to the size of the finer map, sums."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 64, 3, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(w, 16, 1) for w in (16, 32, 64))
        self.smooth = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        y = self.lateral[2](maps[2])
        outs = [self.smooth[2](y)]
        for at in (1, 0):
            y = self.lateral[at](maps[at]) + functional.interpolate(y, size=maps[at].shape[-2:], mode="nearest")
            outs.append(self.smooth[at](y))
        return {"coarse": outs[0], "middle": outs[1], "fine": outs[2]}


class Espcn(nn.Module):
    """Super-resolution with pixel shuffle, and the input sampled up beside it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, padding=2),
            nn.Tanh(),
            Sum(conv(32, 32)),
            nn.Conv2d(32, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, x):
        return torch.clamp(
            self.body(x) + functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), 0, 1
        )


def fsrcnn():
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, padding=2), nn.PReLU(24), nn.Conv2d(24, 8, 1), nn.PReLU(8), nn.Conv2d(8, 8, 3, padding=1), nn.PReLU(8),
        nn.Conv2d(8, 24, 1), nn.PReLU(24), nn.ConvTranspose2d(24, 1, 9, 3, 4, output_padding=2),
    )  # fmt: skip


def style():
    def block(wide, out, kernel, stride):
        return nn.Sequential(
            nn.ReflectionPad2d(kernel // 2), nn.Conv2d(wide, out, kernel, stride), nn.InstanceNorm2d(out, affine=True)
        )

    body = [block(3, 16, 9, 1), nn.ReLU(), block(16, 32, 3, 2), nn.ReLU()]
    body.append(Sum(nn.Sequential(block(32, 32, 3, 1), nn.ReLU(), block(32, 32, 3, 1))))
    body += [
        nn.Upsample(scale_factor=2, mode="nearest"),
        block(32, 16, 3, 1),
        nn.ReLU(),
        nn.ReflectionPad2d(4),
        nn.Conv2d(16, 3, 9),
    ]
    return nn.Sequential(*body, nn.Sigmoid())


def generator():
    """DCGAN."""
    layers = [nn.Unflatten(1, (32, 1, 1))]
    for wide, out, stride, pad in ((32, 64, 1, 0), (64, 32, 2, 1), (32, 16, 2, 1)):
        layers += [nn.ConvTranspose2d(wide, out, 4, stride, pad, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, 3, 4, 2, 1, bias=False), nn.Tanh())


def discriminator():
    layers = [
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.InstanceNorm2d(32),
        nn.LeakyReLU(0.2),
    ]
    return nn.Sequential(*layers, nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(32, 1, 4, padding=1))


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mean, self.spread, self.back = nn.Linear(1568, 8), nn.Linear(1568, 8), nn.Linear(8, 1568)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 3, 2, 1, 1), nn.Sigmoid()
        )

    def forward(self, x, noise):
        h = self.body(x)
        mean, spread = self.mean(h), self.spread(h)
        z = mean + noise * torch.exp(0.5 * spread)
        return self.up(torch.relu(self.back(z)).view(-1, 32, 7, 7)), mean, spread


class HourGlass(nn.Module):
    """Key points by soft argmax over heat maps."""

    def __init__(self):
        super().__init__()
        self.down, self.up = (
            nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2)),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        )
        self.out = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        heat = self.out(self.up(self.down(x)))
        b, k, h, w = heat.shape
        heat = heat.reshape(b, k, -1).softmax(-1).reshape(b, k, h, w)
        xs = (heat.sum(2) * torch.linspace(0, 1, w)).sum(-1)
        ys = (heat.sum(3) * torch.linspace(0, 1, h)).sum(-1)
        return torch.stack([xs, ys], -1)


class SubPixelDown(nn.Module):
    """Pixel unshuffle (focus), split convolutions, a 3-D convolution is avoided: depth from two pictures."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Sequential(nn.PixelUnshuffle(2), conv(12, 16)), nn.Conv2d(24, 1, 3, padding=1)

    def forward(self, left, right):
        a, b = self.stem(left), self.stem(right)
        shifted = [functional.pad(b, (d, 0, 0, 0))[..., : b.shape[-1]] for d in range(8)]
        cost = torch.cat([(a * one).mean(1, keepdim=True) for one in shifted], 1)
        depth = (cost.softmax(1) * torch.arange(8.0).view(1, 8, 1, 1)).sum(1, keepdim=True)
        return functional.interpolate(self.out(torch.cat([cost, a], 1)) + depth, scale_factor=2.0, mode="bicubic")


DENSE = [
    Case("u-net", UNet, [RGB]),
    Case("u-net, odd sizes", PaddedUNet, [Feed((3, 50, 62))]),
    Case("deeplab", DeepLab, [RGB]),
    Case("yolo v5", Yolo, [RGB]),
    Case("yolo v8", YoloV8, [RGB]),
    Case("ssd", Ssd, [RGB]),
    Case("centernet", CenterNet, [RGB]),
    Case("fpn", Fpn, [RGB]),
    Case("espcn", Espcn, [Feed((3, 32, 32))]),
    Case("fsrcnn", fsrcnn, [Feed((1, 24, 24))]),
    Case("style transfer", style, [RGB]),
    Case("dcgan", generator, [Feed((32,))]),
    Case("patchgan", discriminator, [RGB]),
    Case("vae", Vae, [Feed((1, 28, 28)), Feed((8,))]),
    Case("hourglass", HourGlass, [RGB]),
    Case("stereo", SubPixelDown, [Feed((3, 32, 32)), Feed((3, 32, 32))]),
]
