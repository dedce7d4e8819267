"""What the benchmarks share of our side: one conversion by the command that users type, and the files in its bundle."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lepton_edge.bundle import Bundle

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
BENCH = ROOT / "build" / "bench"
"""Nets that take long to make are kept here."""
EFFICIENTNET = ROOT / "build" / "efficientnet-lite0.onnx"
TRAINED = "efficientnet-lite0"
NETS = ("mobilenet_v2", "resnet18", TRAINED, "mobilenet_v3_small", "vit_tiny", "convnext")
"""What speed is measured on."""

LIMIT_S = 900
SERVED_HERE = "int8-onnx-u8s8"
"""The variant for x86 with VNNI, which the figures of these benchmarks are about."""


class Converted(NamedTuple):
    """What `convert` said. status: its exit status; document: its JSON, {} where it printed none; message: stderr."""

    status: int
    document: dict[str, Any]
    message: str
    bundle: Path

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.document.get("variants", [])}

    @property
    def verdict(self) -> str:
        """Why there is no variant, in one line."""
        lines = self.message.strip().splitlines() or [""]
        reason = str(self.document.get("reason") or lines[-1])
        blamed = [part["layer"] for one in self.variants.values() for part in one.get("blame", [])][:3]
        return f"exit {self.status}: {reason}" + (f" (blames {', '.join(blamed)})" if blamed else "")

    def extract(self, variant: str, folder: Path) -> Path | None:
        """Write one variant's file into the folder; None where the bundle does not hold it."""
        if not self.bundle.exists() or self.status != 0:
            return None
        bundle = Bundle.open(self.bundle)
        for one in bundle.manifest.variants:
            if one.name == variant:
                path = folder / f"ours-{Path(one.file).name}"
                path.write_bytes(bundle.read(one.file))
                return path
        return None


def convert(model: Path, folder: Path, *options: str | Path, limit_s: float = LIMIT_S) -> Converted:
    """Run `lepton-edge convert MODEL -o FOLDER/out.lep --json OPTIONS`."""
    out = folder / "out.lep"
    words = [sys.executable, "-m", "lepton_edge", "convert", str(model), "-o", str(out), "--json", *map(str, options)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return Converted(124, {}, f"not done after {limit_s:.0f} s", out)
    document = json.loads(done.stdout) if done.stdout.strip() else {}
    return Converted(done.returncode, document, done.stderr, out)


def save_samples(path: Path, inputs: dict[str, np.ndarray], labels: np.ndarray | None = None) -> Path:
    """Write DATA: arrays by the model's input names, and `y`."""
    np.savez(path, **inputs, **({} if labels is None else {"y": labels}))
    return path


def net_file(name: str) -> Path | str:
    """A net's ONNX file, or why there is none."""
    if name == TRAINED:
        return EFFICIENTNET if EFFICIENTNET.exists() else "python benchmarks/efficientnet_lite0.py makes it"
    path = BENCH / f"{name}.onnx"
    if path.exists():
        return path
    try:
        import nets
    except ImportError as missing:
        return f"needs {missing.name}"
    return nets.net_file(name)


def each_net(names: Sequence[str], *, columns: int) -> Iterator[tuple[str, Path, Path]]:
    """Nets with their files, and an empty folder for each; one without a file is a row that says why."""
    for name in names:
        path = net_file(name)
        if isinstance(path, str):
            row((name, f"skipped: {path}", *["-"] * (columns - 2)))
            continue
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
            yield name, path, Path(folder)


def row(cells: Sequence[object]) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def header(*cells: str) -> None:
    row(cells)
    print("|" + "---|" * len(cells))
