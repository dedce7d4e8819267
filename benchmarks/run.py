"""`make bench`: print the tables of docs/benchmarks.md; `python benchmarks/run.py PART ...` prints some of them.

Ratios are of one run: the float model and its peer are measured interleaved with ours, because machines are noisy.
Each table comes from a script that runs alone too, in a process and within a time of its own: what lacks a package or
its data says so in a line, and what fails does not keep the others from running.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ours import DATA, EFFICIENTNET, ROOT, save_samples

from lepton_edge.cpu import this_cpu


class Table(NamedTuple):
    """A table that a script prints. words: its arguments."""

    title: str
    script: str
    limit_s: float
    words: tuple[str, ...] = ()

    def show(self) -> bool:
        """Run the script with its output as ours; False where it failed."""
        words = [sys.executable, str(ROOT / "benchmarks" / f"{self.script}.py"), *self.words]
        try:
            status = subprocess.run(words, check=False, timeout=self.limit_s).returncode
        except subprocess.TimeoutExpired:
            print(f"\nnot done after {self.limit_s:.0f} s")
            return False
        if status:
            print(f"\nended with status {status}")
        return status == 0


TABLES = {
    "demo": Table(
        "The demo's models: int8 against float, on samples used neither for training nor for calibration",
        "run",
        300,
        ("--here", "demo"),
    ),
    "speed": Table("Speed: int8 against float and against quantize_static, ONNX Runtime, one thread", "speed", 1800),
    "accuracy": Table("Accuracy: trained models with data, quantize_static beside", "accuracy", 2400),
    "tflite": Table("TFLite: what the files are made of, and int8 against float in LiteRT, one thread", "tflite", 1800),
    "teacher": Table("TFLite: each int8 operator alone, XNNPACK against ONNX Runtime", "teacher", 1800),
    "tflite-accuracy": Table("Accuracy of both formats, reference int8 files beside", "tflite_accuracy", 1800),
    "reader": Table("TFLite files that others made, read and written again", "reader", 900),
    "fuzz": Table("Random nets as TFLite, layouts against brute force", "fuzz_tflite", 1800),
    "old-runtime": Table("Files for tflite-runtime 2.14, each loaded and run there", "old_runtime", 1800),
    "hostile": Table("Hostile graphs, and how quantize_static fares on them", "hostile", 1200),
    "nodata": Table("Without data", "nodata", 600),
    "memory": Table("Memory and time of convert", "memory", 1800),
    "push": Table(
        "EfficientNet-Lite0 (real weights) on 250 ImageNet images, one a class", "run", 600, ("--here", "push")
    ),
    "convert-footprint": Table("What the extra convert installs", "footprint_convert", 900),
    "agent-footprint": Table("The agent in a clean environment (extras agent and ort)", "agent_footprint", 900),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="print the tables of docs/benchmarks.md")
    parser.add_argument("parts", nargs="*", default=list(TABLES), metavar="PART", help=", ".join(TABLES))
    parser.add_argument("--here", choices=sorted(HERE), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        HERE[args.here]()
        return
    versions = "; ".join(map(_version, ("onnxruntime", "ai-edge-litert", "numpy", "onnx")))
    print(f"{this_cpu().model}; Python {platform.python_version()}; {versions}")
    failed = []
    for part in args.parts:
        table = TABLES[part]
        print(f"\n## {table.title}\n", flush=True)
        if not table.show():
            failed.append(part)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def demo_model() -> None:
    """Convert the demo's two models as the demo does."""
    from lepton_edge.demo import digits

    images, labels = digits.held_out()
    with tempfile.TemporaryDirectory() as folder:
        for name, truth in (("digits", labels), ("parity", labels % 2)):
            save_samples(Path(folder) / "data.npz", {"x": images}, truth)
            options = ["--data", f"{folder}/data.npz", "--calibration", "100", "--budget", "0.5"]
            _convert(ROOT / "lepton_edge" / "demo" / f"{name}.onnx", Path(folder), options)


def efficientnet() -> None:
    """Convert EfficientNet-Lite0 as a user does, and push it to one agent."""
    preprocess = EFFICIENTNET.with_suffix(".toml")
    if not EFFICIENTNET.exists() or not DATA.exists():
        made = "python benchmarks/efficientnet_lite0.py makes it"
        print(f"skipped: needs {EFFICIENTNET.relative_to(ROOT)} ({made}) and the images")
        return
    options = ["--data", str(DATA / "imagenet-dev250"), "--preprocess", str(preprocess), "--calibration", "50"]
    with tempfile.TemporaryDirectory() as folder:
        _convert(EFFICIENTNET, Path(folder), options)
        _push(Path(folder) / "out.lep")


def _push(path: Path) -> None:
    """Push a bundle to one agent and print what travelled."""
    from lepton_edge.bundle import Bundle
    from lepton_edge.demo.stage import Stage

    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        stage.document("fleet", "init", stage.folder / "fleet")
        stage.service("manager", "fleet", "serve", "--http", "127.0.0.1:0")
        ticket = stage.folder / "device.zip"
        stage.document("enroll", "device", "-o", ticket)
        stage.service("device", "agent", "run", ticket, "--state", stage.folder / "state", "--http", "127.0.0.1:0")
        done = stage.document("push", path, "--to", "all", "--wait")
    manifest = Bundle.open(path).manifest
    sizes = {name: ref.size for name, ref in manifest.files.items()}
    device = done["devices"][0]  # type: ignore[index]
    print(
        f"push to one agent: {device['state']}, runs {device['variant']}, p50 {device['p50_ms']:.2f} ms, "
        f"{done['bytes_published']} B published of a bundle of {path.stat().st_size} B, {done['seconds']:.1f} s"
    )
    print(f"  files: {sizes}")


HERE: dict[str, Callable[[], None]] = {"demo": demo_model, "push": efficientnet}


def _convert(model: Path, folder: Path, options: list[str]) -> None:
    words = [
        sys.executable,
        "-m",
        "lepton_edge",
        "convert",
        str(model),
        *options,
        "-o",
        str(folder / "out.lep"),
        "--json",
    ]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    document = json.loads(done.stdout)
    source = document["source"]
    metric = source["metric"]
    print(
        f"{model.name}: {source['bytes']} B, {metric['name']} {metric['value']:.4f}, n {metric['n']}, "
        f"convert {document['seconds']:.1f} s, peak {document['peak_rss_mb']:.0f} MB"
    )
    for variant in document["variants"]:
        latency = variant["latency"][0] if variant["latency"] else None
        speed = (
            f"{latency['p50_ms']:.3f} ms, {latency['float_p50_ms'] / latency['p50_ms']:.2f}x float"
            if latency
            else "unmeasured"
        )
        drop = (
            "-"
            if variant["drop"] is None
            else (f"{variant['drop']:+.2f} points [{variant['drop_low']:+.2f}, {variant['drop_high']:+.2f}]")
        )
        print(
            f"  {variant['name']:<22} {variant['bytes'] / source['bytes']:.3f}x size  drop {drop}  {speed}"
            f"{'' if variant['kept'] else '  refused: ' + variant['reason']}"
        )


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


if __name__ == "__main__":
    main()
