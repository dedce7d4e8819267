"""What the benchmarks share of our side: one conversion by the command that users type, and the files in its bundle."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lepton_edge.bundle import Bundle

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


def row(cells: Sequence[object]) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def header(*cells: str) -> None:
    row(cells)
    print("|" + "---|" * len(cells))
