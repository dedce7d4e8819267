"""A small text encoder of free length, trained in seconds on sentences that a rule labels.

The rule is about order: a sentence of 5 to 40 words holds one A and one B; the class says which comes first, and
whether the last word is of the first or the second half of the vocabulary. Padding (0) is masked with -1e9 inside.
"""

import logging
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

WORDS, LONGEST, SHORTEST = 64, 40, 5
FIRST, SECOND, PAD = 1, 2, 0
DIM, HEADS, LAYERS, CLASSES = 64, 4, 2, 4
STEPS, BATCH, RATE, SEED = 500, 64, 3e-3, 5
OPSET = 18

I64 = npt.NDArray[np.int64]


class Sentences(NamedTuple):
    """`ids` int64 (n, 40), padded with 0; `y` int64 (n,)."""

    ids: I64
    y: I64


def sentences(count: int, *, seed: int) -> Sentences:
    rng = np.random.default_rng([SEED, seed])
    lengths = rng.integers(SHORTEST, LONGEST + 1, count)
    ids = rng.integers(3, WORDS, (count, LONGEST))
    ids[np.arange(LONGEST) >= lengths[:, None]] = PAD
    for row, length in zip(ids, lengths, strict=True):
        row[rng.choice(length - 1, 2, replace=False)] = FIRST, SECOND
    before = (ids == FIRST).argmax(1) < (ids == SECOND).argmax(1)
    ending = ids[np.arange(count), lengths - 1] >= (WORDS + 3) // 2
    return Sentences(ids, before.astype(np.int64) + 2 * ending)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(DIM), nn.LayerNorm(DIM)])
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        count, length, _ = x.shape
        qkv = self.qkv(self.norms[0](x)).reshape(count, length, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        scores = query @ key.transpose(-2, -1) * (DIM // HEADS) ** -0.5 + mask
        read = (scores.softmax(-1) @ value).transpose(1, 2).reshape(count, length, DIM)
        x = x + self.out(read)
        return x + self.mlp(self.norms[1](x))  # type: ignore[no-any-return]


class TextNet(nn.Module):
    """(n, length) int64 -> (n, 4): the answer is read at the last word, whose place only the padding tells."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, DIM), nn.Embedding(2 * LONGEST, DIM)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        padded = (ids == PAD).float()
        mask = (padded * -1e9)[:, None, None, :]
        left = (1 - padded).flip(1).cumsum(1).flip(1)  # words from here to the end: 1 at the last
        x = self.words(ids) + self.places(left.long())
        for layer in self.layers:
            x = layer(x, mask)
        kept = (1 - padded)[:, :, None]
        return self.head((self.norm(x) * kept).sum(1) / kept.sum(1))  # type: ignore[no-any-return]


def trained() -> TextNet:
    """Train with Adam and a falling rate; the same net on every call on one machine."""
    torch.manual_seed(SEED)
    net = TextNet()
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=STEPS)
    data = sentences(STEPS * BATCH, seed=0)
    for ids, labels in zip(torch.from_numpy(data.ids).split(BATCH), torch.from_numpy(data.y).split(BATCH), strict=True):
        longest = int((ids != PAD).sum(1).max())
        loss = functional.cross_entropy(net(ids[:, :longest]), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return net.eval()


def export(net: TextNet, path: Path) -> None:
    """Write with batch and length free."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=LONGEST)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.from_numpy(sentences(3, seed=1).ids[:, :17]),),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=["ids"],
            output_names=["scores"],
            dynamic_shapes=(free,),
            external_data=False,
            verbose=False,
        )


def text_file(out: Path) -> Path:
    """The trained net's ONNX file, made first where it is absent."""
    path = out / "text_encoder.onnx"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        export(trained(), partial)
        partial.rename(path)
    return path
