"""Transformers, recurrent nets, nets for sound and signals, and small ones for points and tables."""

import math

import torch
from torch import nn
from torch.nn import functional

from tests.converters.tflite.zoo.case import Case, Feed
from tests.converters.tflite.zoo.images import RGB, conv


class Vit(nn.Module):
    """Class token, position embedding, pre-norm encoder."""

    def __init__(self, patch=8, wide=48, side=64):
        super().__init__()
        self.patches = nn.Conv2d(3, wide, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, wide))
        self.places = nn.Parameter(torch.randn(1, 1 + (side // patch) ** 2, wide))
        layer = nn.TransformerEncoderLayer(wide, 4, 2 * wide, activation="gelu", batch_first=True, norm_first=True)
        self.body, self.norm = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.LayerNorm(wide)
        self.head = nn.Linear(wide, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.places
        return self.head(self.norm(self.body(x))[:, 0])


class Attention(nn.Module):
    """As timm writes it: one projection for all three, unbound."""

    def __init__(self, wide, heads, bias=None):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
        self.bias = bias

    def forward(self, x, mask=None):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        if self.bias is not None:
            scores = scores + self.bias(n)
        if mask is not None:
            windows = mask.shape[0]
            scores = scores.view(b // windows, windows, self.heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, self.heads, n, n)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class WindowBias(nn.Module):
    """Swin's relative positions in a window."""

    def __init__(self, side, heads):
        super().__init__()
        self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + side - 1
        self.register_buffer("index", apart[..., 0] * (2 * side - 1) + apart[..., 1])

    def forward(self, n):
        return self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)


class SwinBlock(nn.Module):
    def __init__(self, wide, side, window, shift):
        super().__init__()
        self.side, self.window, self.shift = side, window, shift
        self.norm, self.norm2 = nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.attention = Attention(wide, 2, WindowBias(window, 2))
        self.mlp = nn.Sequential(nn.Linear(wide, 2 * wide), nn.GELU(), nn.Linear(2 * wide, wide))
        self.register_buffer("mask", self._mask() if shift else None)

    def _split(self, x):
        b, h, w, c = x.shape
        m = self.window
        return x.view(b, h // m, m, w // m, m, c).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, m * m, c)

    def _mask(self):
        image = torch.zeros(1, self.side, self.side, 1)
        parts = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        for at, (rows, cols) in enumerate((r, c) for r in parts for c in parts):
            image[:, rows, cols, :] = at
        flat = self._split(image).squeeze(-1)
        apart = flat.unsqueeze(1) - flat.unsqueeze(2)
        return apart.masked_fill(apart != 0, -100.0)

    def forward(self, x):
        b, n, c = x.shape
        y = self.norm(x).view(b, self.side, self.side, c)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = self.attention(self._split(y), self.mask)
        m, parts = self.window, self.side // self.window
        y = y.view(-1, parts, parts, m, m, c).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, self.side, self.side, c)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y.view(b, n, c)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, wide, side):
        super().__init__()
        self.side, self.norm, self.down = side, nn.LayerNorm(4 * wide), nn.Linear(4 * wide, 2 * wide, bias=False)

    def forward(self, x):
        x = x.view(x.shape[0], self.side, self.side, -1)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.down(self.norm(x.view(x.shape[0], -1, x.shape[-1])))


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.body = nn.Sequential(
            SwinBlock(24, 16, 4, 0), SwinBlock(24, 16, 4, 2), PatchMerging(24, 16), SwinBlock(48, 8, 4, 2)
        )
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.body(self.patches(x).flatten(2).transpose(1, 2)).transpose(1, 2).mean(-1))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 10)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(4))
        self.tokens = nn.ModuleList(nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 64)) for _ in range(2))
        self.channels = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(2))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for at in range(2):
            x = x + self.tokens[at](self.norms[2 * at](x).transpose(1, 2)).transpose(1, 2)
            x = x + self.channels[at](self.norms[2 * at + 1](x))
        return self.head(x.mean(1))


class Encoder(nn.Module):
    """nn.TransformerEncoder on features, with a mask of what is padding."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.into, self.body, self.out = nn.Linear(12, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 5)

    def forward(self, x, length):
        late = torch.arange(x.shape[1])[None, :] > length
        return self.out(self.body(self.into(x), src_key_padding_mask=late).mean(1))


class Translator(nn.Module):
    """An encoder and a decoder with a causal mask."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(50, 32), nn.Embedding(40, 32)
        self.body = nn.Transformer(32, 4, 1, 1, 64, dropout=0.0, batch_first=True)
        self.out = nn.Linear(32, 40)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(12))

    def forward(self, source, target):
        return self.out(self.body(self.source(source), self.target(target), tgt_mask=self.mask))


class Bert(nn.Module):
    """Token, place and segment embeddings, a mask made of ids, scores to logits at the first token."""

    def __init__(self, wide=48, words=100, longest=64):
        super().__init__()
        self.words, self.places, self.kinds = (
            nn.Embedding(words, wide, padding_idx=0),
            nn.Embedding(longest, wide),
            nn.Embedding(2, wide),
        )
        self.register_buffer("at", torch.arange(longest).expand((1, -1)))
        self.norm, self.heads, self.wide = nn.LayerNorm(wide, eps=1e-12), 4, wide
        self.q, self.k, self.v, self.o = (nn.Linear(wide, wide) for _ in range(4))
        self.after, self.up, self.down, self.last = (
            nn.LayerNorm(wide),
            nn.Linear(wide, 96),
            nn.Linear(96, wide),
            nn.LayerNorm(wide),
        )
        self.pool, self.out = nn.Linear(wide, wide), nn.Linear(wide, 3)

    def _split(self, x):
        return x.view(*x.size()[:-1], self.heads, self.wide // self.heads).permute(0, 2, 1, 3)

    def forward(self, ids, mask):
        x = self.words(ids) + self.places(self.at[:, : ids.size(1)]) + self.kinds(torch.zeros_like(ids))
        x = self.norm(x)
        hidden = (1.0 - mask[:, None, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
        scores = self._split(self.q(x)) @ self._split(self.k(x)).transpose(-1, -2) / math.sqrt(self.wide // self.heads)
        y = (scores + hidden).softmax(-1) @ self._split(self.v(x))
        y = y.permute(0, 2, 1, 3).contiguous()
        x = self.after(x + self.o(y.view(*y.size()[:-2], self.wide)))
        x = self.last(x + self.down(functional.gelu(self.up(x))))
        return self.out(torch.tanh(self.pool(x[:, 0])))


class Gpt(nn.Module):
    """nanoGPT: causal attention by torch's own kernel, weights of the head shared with the embedding."""

    def __init__(self, wide=48, words=64, longest=32):
        super().__init__()
        self.words, self.places, self.head = (
            nn.Embedding(words, wide),
            nn.Embedding(longest, wide),
            nn.Linear(wide, words, bias=False),
        )
        self.head.weight = self.words.weight
        self.norms = nn.ModuleList(nn.LayerNorm(wide) for _ in range(3))
        self.qkv, self.o, self.up, self.down = (
            nn.Linear(wide, 3 * wide),
            nn.Linear(wide, wide),
            nn.Linear(wide, 4 * wide),
            nn.Linear(4 * wide, wide),
        )

    def forward(self, ids):
        b, t = ids.size()
        x = self.words(ids) + self.places(torch.arange(0, t, dtype=torch.long))
        q, k, v = self.qkv(self.norms[0](x)).split(x.size(2), 2)
        q, k, v = (one.view(b, t, 4, -1).transpose(1, 2) for one in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).contiguous().view(b, t, -1))
        x = x + self.down(functional.gelu(self.up(self.norms[1](x)), approximate="tanh"))
        return self.head(self.norms[2](x)[:, [-1], :])


class RmsNorm(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(wide) + 0.5)

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class T5(nn.Module):
    """RMS norm, buckets of relative positions computed from the length, a gated feed-forward layer."""

    def __init__(self, wide=48):
        super().__init__()
        self.words, self.table = nn.Embedding(80, wide), nn.Embedding(16, 4)
        self.norm, self.norm2 = RmsNorm(wide), RmsNorm(wide)
        self.q, self.k, self.v, self.o = (nn.Linear(wide, wide, bias=False) for _ in range(4))
        self.gate, self.up, self.down = (
            nn.Linear(wide, 96, bias=False),
            nn.Linear(wide, 96, bias=False),
            nn.Linear(96, wide, bias=False),
        )

    def _bias(self, n):
        apart = torch.arange(n)[None, :] - torch.arange(n)[:, None]
        side = (apart > 0).long() * 8
        far = apart.abs()
        large = 4 + (torch.log(far.float().clamp(min=1) / 4) / math.log(32 / 4) * 4).long()
        bucket = side + torch.where(far < 4, far, torch.min(large, torch.full_like(large, 7)))
        return self.table(bucket).permute(2, 0, 1).unsqueeze(0)

    def forward(self, ids):
        x = self.words(ids)
        b, n, c = x.shape
        y = self.norm(x)
        q, k, v = (one(y).view(b, n, 4, c // 4).transpose(1, 2) for one in (self.q, self.k, self.v))
        y = ((q @ k.transpose(2, 3) + self._bias(n)).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)
        x = x + self.o(y)
        y = self.norm2(x)
        return x + self.down(functional.gelu(self.gate(y), approximate="tanh") * self.up(y))


class Llama(nn.Module):
    """Rotary embedding, grouped queries, SwiGLU."""

    def __init__(self, wide=32, longest=16):
        super().__init__()
        self.words, self.norm, self.norm2 = nn.Embedding(64, wide), RmsNorm(wide), RmsNorm(wide)
        self.q, self.k, self.v, self.o = (
            nn.Linear(wide, wide, bias=False),
            nn.Linear(wide, 16, bias=False),
            nn.Linear(wide, 16, bias=False),
            nn.Linear(wide, wide, bias=False),
        )
        self.gate, self.up, self.down = (
            nn.Linear(wide, 64, bias=False),
            nn.Linear(wide, 64, bias=False),
            nn.Linear(64, wide, bias=False),
        )
        turn = torch.outer(torch.arange(longest).float(), 10000 ** (-torch.arange(0, 8, 2).float() / 8))
        self.register_buffer("cos", torch.cat((turn, turn), -1).cos())
        self.register_buffer("sin", torch.cat((turn, turn), -1).sin())

    def _turn(self, x):
        one, two = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        n = x.shape[-2]
        return x * self.cos[:n] + torch.cat((-two, one), -1) * self.sin[:n]

    def forward(self, ids):
        x = self.words(ids)
        b, n, c = x.shape
        y = self.norm(x)
        q = self._turn(self.q(y).view(b, n, 4, 8).transpose(1, 2))
        k, v = self._turn(self.k(y).view(b, n, 2, 8).transpose(1, 2)), self.v(y).view(b, n, 2, 8).transpose(1, 2)
        k, v = (one[:, :, None].expand(b, 2, 2, n, 8).reshape(b, 4, n, 8) for one in (k, v))
        mask = torch.full((n, n), float("-inf")).triu(1)
        y = (functional.softmax(q @ k.transpose(2, 3) / math.sqrt(8) + mask, -1) @ v).transpose(1, 2).reshape(b, n, c)
        x = x + self.o(y)
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class LstmText(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.lstm, self.out = (
            nn.Embedding(60, 16),
            nn.LSTM(16, 24, 2, batch_first=True, bidirectional=True),
            nn.Linear(48, 4),
        )

    def forward(self, ids):
        _, (h, _) = self.lstm(self.words(ids))
        return self.out(torch.cat([h[-2], h[-1]], 1))


class GruTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(10, 20, batch_first=True), nn.Linear(20, 6)

    def forward(self, x):
        return self.out(self.gru(x)[0])


class AttentiveGru(nn.Module):
    """Bidirectional, weights over time, a weighted sum."""

    def __init__(self):
        super().__init__()
        self.gru, self.score, self.out = (
            nn.GRU(8, 12, batch_first=True, bidirectional=True),
            nn.Linear(24, 1),
            nn.Linear(24, 3),
        )

    def forward(self, x):
        y, _ = self.gru(x)
        weights = torch.softmax(self.score(torch.tanh(y)).squeeze(-1), 1)
        return self.out(torch.bmm(weights.unsqueeze(1), y).squeeze(1)), weights


class Crnn(nn.Module):
    """Reads lines of text: convolutions, the height squeezed away, LSTM over the width."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            conv(1, 16),
            nn.MaxPool2d(2),
            conv(16, 32),
            nn.MaxPool2d((2, 1)),
            conv(32, 48),
            nn.AdaptiveAvgPool2d((1, None)),
        )
        self.lstm, self.out = nn.LSTM(48, 32, bidirectional=True), nn.Linear(64, 20)

    def forward(self, x):
        y, _ = self.lstm(self.body(x).squeeze(2).permute(2, 0, 1))
        return self.out(y).log_softmax(2)


class Conformer(nn.Module):
    def __init__(self, wide=32):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
        self.into = nn.Linear(8 * 9, wide)
        self.ff = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, 64), nn.SiLU(), nn.Linear(64, wide))
        self.norm, self.attention = nn.LayerNorm(wide), nn.MultiheadAttention(wide, 4, batch_first=True)
        self.conv = nn.Sequential(
            nn.Conv1d(wide, 2 * wide, 1), nn.GLU(1), nn.Conv1d(wide, wide, 15, padding=7, groups=wide), nn.BatchNorm1d(wide), nn.SiLU(),
            nn.Conv1d(wide, wide, 1))  # fmt: skip
        self.norm2, self.last, self.out = nn.LayerNorm(wide), nn.LayerNorm(wide), nn.Linear(wide, 12)

    def forward(self, x):
        y = self.stem(x.unsqueeze(1))
        b, c, t, f = y.size()
        y = self.into(y.transpose(1, 2).contiguous().view(b, t, c * f))
        y = y + 0.5 * self.ff(y)
        z = self.norm(y)
        y = y + self.attention(z, z, z, need_weights=False)[0]
        y = y + self.conv(self.norm2(y).transpose(1, 2)).transpose(1, 2)
        return self.out(self.last(y)).log_softmax(-1)


class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 16, 1)
        self.deep = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.skip, self.keep = (nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4)) for _ in range(2))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 16, 1), nn.ReLU(), nn.Conv1d(16, 32, 1))

    def forward(self, x):
        x, total = self.first(x), 0
        for at, layer in enumerate(self.deep):
            a, b = layer(functional.pad(x, (2**at, 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + self.skip[at](y)
            x = x + self.keep[at](y)
        return self.out(total)


class Chomp(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x[:, :, : -self.size].contiguous()


class Tcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.shorts, wide = nn.ModuleList(), nn.ModuleList(), 6
        for at, out in enumerate((16, 16, 24)):
            layers = []
            for w in (wide, out):
                norm = nn.utils.parametrizations.weight_norm(nn.Conv1d(w, out, 3, padding=2 * 2**at, dilation=2**at))
                layers += [norm, Chomp(2 * 2**at), nn.ReLU(), nn.Dropout(0.1)]
            self.blocks.append(nn.Sequential(*layers))
            self.shorts.append(nn.Conv1d(wide, out, 1) if wide != out else nn.Identity())
            wide = out
        self.out = nn.Linear(wide, 4)

    def forward(self, x):
        for block, short in zip(self.blocks, self.shorts):
            x = torch.relu(block(x) + short(x))
        return self.out(x[:, :, -1])


class Ecg(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(2, 16, 15, 2, 7), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(3, 2, 1))
        self.a = nn.Sequential(
            nn.Conv1d(16, 32, 7, 2, 3), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 32, 7, 1, 3), nn.BatchNorm1d(32)
        )
        self.short, self.out = nn.Sequential(nn.AvgPool1d(2, 2), nn.Conv1d(16, 32, 1)), nn.Linear(64, 5)

    def forward(self, x):
        y = self.stem(x)
        y = torch.relu(self.a(y) + self.short(y))
        return self.out(torch.cat([y.mean(-1), y.max(-1).values], 1))


def keywords():
    """DS-CNN on 49 x 10 MFCC."""
    layers = [nn.Conv2d(1, 32, (10, 4), (2, 2), (4, 1)), nn.BatchNorm2d(32), nn.ReLU()]
    for _ in range(3):
        layers += [conv(32, 32, 3, groups=32), conv(32, 32, 1)]
    return nn.Sequential(*layers, nn.Dropout(), nn.AvgPool2d((24, 5)), nn.Flatten(), nn.Linear(32, 12))


class RawAudio(nn.Module):
    """A spectrogram by a convolution with windows of sines, its logarithm, and a CNN on it."""

    def __init__(self, size=64, hop=32):
        super().__init__()
        turn = 2 * math.pi * torch.outer(torch.arange(size // 2).float(), torch.arange(size).float()) / size
        self.register_buffer("basis", (torch.cat([turn.cos(), turn.sin()]) * torch.hann_window(size)).unsqueeze(1))
        self.register_buffer("mel", torch.rand(20, size // 2))
        self.hop, self.body = (
            hop,
            nn.Sequential(conv(1, 8, 3, 2), conv(8, 16, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 6)),
        )

    def forward(self, x):
        y = functional.conv1d(x.unsqueeze(1), self.basis, stride=self.hop)
        real, imaginary = y.chunk(2, 1)
        mel = torch.log10(torch.clamp(self.mel @ (real**2 + imaginary**2), min=1e-6))
        mel = (mel - mel.mean((1, 2), keepdim=True)) / (mel.std((1, 2), keepdim=True) + 1e-5)
        return self.body(mel.unsqueeze(1))


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.turn = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.turned = nn.Linear(16, 9)
        self.body = nn.Sequential(
            nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1), nn.BatchNorm1d(64)
        )
        self.out = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, x):
        matrix = self.turned(torch.max(self.turn(x), 2)[0]).view(-1, 3, 3) + torch.eye(3).view(1, 3, 3).repeat(
            x.size(0), 1, 1
        )
        x = torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1)
        return functional.log_softmax(self.out(torch.max(self.body(x), 2, keepdim=True)[0].view(-1, 64)), -1)


class Edges(nn.Module):
    """Neighbours by distance (DGCNN): top k, gathered features, the largest over them."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = conv(6, 16, 1, act=nn.LeakyReLU), nn.Linear(16, 4)

    def forward(self, x):
        b, c, n = x.shape
        inner = -2 * torch.matmul(x.transpose(2, 1), x)
        squares = (x**2).sum(1, keepdim=True)
        near = (-squares - inner - squares.transpose(2, 1)).topk(4, -1).indices
        rows = x.transpose(2, 1)
        found = torch.gather(rows.unsqueeze(1).expand(b, n, n, c), 2, near.unsqueeze(-1).expand(b, n, 4, c))
        centre = rows.unsqueeze(2).expand(b, n, 4, c)
        edges = torch.cat((found - centre, centre), 3).permute(0, 3, 1, 2)
        return self.out(self.conv(edges).max(-1)[0].mean(-1))


class Anomaly(nn.Module):
    """The autoencoder of MLPerf Tiny, with its error as the score."""

    def __init__(self):
        super().__init__()
        layers, wide = [], 64
        for out in (32, 32, 8, 32, 32):
            layers += [nn.Linear(wide, out), nn.BatchNorm1d(out), nn.ReLU()]
            wide = out
        self.body = nn.Sequential(*layers, nn.Linear(wide, 64))

    def forward(self, x):
        y = self.body(x)
        return y, ((x - y) ** 2).mean(1)


class Tabular(nn.Module):
    def __init__(self):
        super().__init__()
        self.kinds = nn.ModuleList(nn.Embedding(n, d) for n, d in ((7, 4), (12, 6), (30, 8)))
        self.norm = nn.BatchNorm1d(5)
        self.body = nn.Sequential(
            nn.Linear(23, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 1), nn.Sigmoid()
        )

    def forward(self, kinds, numbers):
        found = torch.cat([one(kinds[:, at]) for at, one in enumerate(self.kinds)], 1)
        return self.body(torch.cat([found, self.norm(numbers)], 1)).squeeze(1)


class Nerf(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("bands", 2.0 ** torch.arange(4))
        self.first, self.second = (
            nn.Sequential(nn.Linear(27, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()),
            nn.Sequential(nn.Linear(59, 32), nn.ReLU()),
        )
        self.density, self.colour = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, x):
        turned = (x[..., None, :] * self.bands[:, None]).flatten(-2)
        y = torch.cat([x, turned.sin(), turned.cos()], -1)
        h = self.second(torch.cat([y, self.first(y)], -1))
        return torch.sigmoid(self.colour(h)), functional.softplus(self.density(h) - 1)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            conv(1, 16, 3, 2), conv(16, 32, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16)
        )

    def forward(self, left, right):
        a, b = (functional.normalize(self.body(x), dim=1) for x in (left, right))
        return functional.cosine_similarity(a, b), functional.pairwise_distance(a, b)


class MultiTask(nn.Module):
    """A picture and numbers in; classes, a box, and a mask out."""

    def __init__(self):
        super().__init__()
        self.body, self.numbers = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2)), nn.Linear(4, 32)
        self.cls, self.box, self.mask = nn.Linear(32, 6), nn.Linear(32, 4), nn.ConvTranspose2d(32, 1, 4, 4)

    def forward(self, image, numbers):
        y = self.body(image)
        y = y * torch.sigmoid(self.numbers(numbers))[:, :, None, None] + self.numbers(numbers).unsqueeze(-1).unsqueeze(
            -1
        )
        flat = y.amax((2, 3))
        return {"cls": self.cls(flat).softmax(-1), "box": self.box(flat).sigmoid(), "mask": torch.sigmoid(self.mask(y))}


class LinearAttention(nn.Module):
    """Feature maps of elu + 1, einsum."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 4).unbind(2)
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
        kv = torch.einsum("bnhd,bnhm->bhmd", k, v)
        z = 1 / (torch.einsum("bnhd,bhd->bnh", q, k.sum(1)) + 1e-6)
        return self.out(torch.einsum("bnhd,bhmd,bnh->bnhm", q, kv, z).reshape(x.shape))


IDS = Feed((16,), 60)
SEQUENCES = [
    Case("vit, patches of 8", Vit, [RGB]),
    Case("vit, patches of 16", lambda: Vit(16), [RGB]),
    Case("swin", Swin, [RGB]),
    Case("mixer", Mixer, [RGB]),
    Case("encoder, mask", Encoder, [Feed((20, 12)), Feed((1,), 20)]),
    Case("translator", Translator, [Feed((10,), 50), Feed((12,), 40)]),
    Case("bert", Bert, [IDS, Feed((16,), 2)]),
    Case("bert, open length", Bert, [IDS, Feed((16,), 2)], {"ids": ["?", "?"], "mask": ["?", "?"]}),
    Case("gpt", Gpt, [IDS]),
    Case("gpt, open length", Gpt, [IDS], {"ids": ["?", "?"]}),
    Case("t5", T5, [IDS]),
    Case("t5, open length", T5, [IDS], {"ids": ["?", "?"]}),
    Case("llama", Llama, [IDS]),
    Case("linear attention", LinearAttention, [Feed((12, 16))]),
    Case("lstm, text", LstmText, [IDS]),
    Case("gru, tags", GruTagger, [Feed((15, 10))]),
    Case("gru, attention", AttentiveGru, [Feed((15, 8))]),
    Case("crnn", Crnn, [Feed((1, 16, 64))]),
    Case("conformer", Conformer, [Feed((60, 40))]),
    Case("wavenet", WaveNet, [Feed((1, 128))]),
    Case("tcn", Tcn, [Feed((6, 50))]),
    Case("ecg", Ecg, [Feed((2, 256))]),
    Case("ds-cnn", keywords, [Feed((1, 49, 10))]),
    Case("raw audio", RawAudio, [Feed((2048,))]),
    Case("pointnet", PointNet, [Feed((3, 64))]),
    Case("dgcnn", Edges, [Feed((3, 32))]),
    Case("autoencoder", Anomaly, [Feed((64,))]),
    Case("tabular", Tabular, [Feed((3,), 7), Feed((5,))]),
    Case("nerf", Nerf, [Feed((3,))]),
    Case("siamese", Siamese, [Feed((1, 28, 28)), Feed((1, 28, 28))]),
    Case("multi-task", MultiTask, [Feed((3, 32, 32)), Feed((4,))]),
]
