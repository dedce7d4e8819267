"""Memory and time of `lepton-edge convert`: the peak of the process tree, sampled from outside.

    python benchmarks/memory.py [mobilenet_v2] [samples] [vit_base]

`less imports` is that peak less the resident size of a process that has imported what the command imports and done
nothing. Judging and benchmarking are off: what is measured is import, calibration, planning, writing and the proof.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from ours import header, net_file, row
from wheels import AbsentError

PERIOD_S = 0.02
LIMIT_S = 900
SIDE = 224
FEW, MANY = 50, 5000
IMPORTS = "import time; import converters.convert, lepton_edge.cli; print('ready', flush=True); time.sleep(60)"


class Peak(NamedTuple):
    """status: of the process; seconds: its wall time; rss: the largest sum of resident bytes over the tree."""

    status: int
    seconds: float
    rss: int
    message: str


def tree_rss(process: psutil.Process) -> int:
    """Resident bytes of a process and all below it; those that end meanwhile count as nothing."""
    total = 0
    try:
        members = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def watch(words: list[str], *, limit_s: float = LIMIT_S) -> Peak:
    """Run a command and sample its tree until it ends or the limit is over."""
    start = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        message: list[str] = []
        reader = threading.Thread(target=lambda: message.append(child.stderr.read() if child.stderr else ""))
        reader.start()
        process, peak = psutil.Process(child.pid), 0
        while child.poll() is None:
            peak = max(peak, tree_rss(process))
            if time.perf_counter() - start > limit_s:
                child.kill()
            time.sleep(PERIOD_S)
        seconds = time.perf_counter() - start
        reader.join()
    lines = "".join(message).strip().splitlines() or [""]
    return Peak(child.returncode, seconds, peak, lines[-1])


def bare_imports() -> int:
    """Resident bytes of the command's imports alone."""
    with subprocess.Popen([sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE, text=True) as child:
        if child.stdout is None or child.stdout.readline().strip() != "ready":
            raise SystemExit("the converters cannot be imported")
        rss = tree_rss(psutil.Process(child.pid))
        child.kill()
    return rss


def convert(model: Path, data: Path, calibration: int, folder: Path, *more: str) -> Peak:
    words = [sys.executable, "-m", "lepton_edge", "convert", str(model), "-o", str(folder / "out.lep")]
    options = ["--data", str(data), "--calibration", str(calibration), "--no-evaluate", "--no-benchmark", "--keep-all"]
    return watch([*words, *options, *more])


def samples(path: Path, count: int, side: int = SIDE) -> Path:
    """An .npz of `x` float32 (count, 3, side, side), written in parts: never as one array in memory."""
    import zipfile

    rng = np.random.default_rng(0)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        layout = {"descr": "<f4", "fortran_order": False, "shape": (count, 3, side, side)}
        np.lib.format.write_array_header_1_0(file, layout)
        for _ in range(count):
            file.write(rng.standard_normal((3, side, side), np.float32).tobytes())
    return path


def net(name: str) -> Path:
    path = net_file(name)
    if isinstance(path, str):
        raise AbsentError(path)
    return path


def mobilenet_v2(folder: Path, bare: int) -> None:
    data = samples(folder / "x.npz", 101)
    for name, more, most_s in (("both formats", (), 10), ("ONNX alone", ("--formats", "onnx"), 8)):
        peak = convert(net("mobilenet_v2"), data, 100, folder, *more)
        ok = peak.status == 0 and peak.seconds <= most_s and peak.rss <= 700e6
        wanted = f"<= {most_s} s, <= 700 MB: {_verdict(ok)}"
        _print(f"MobileNetV2, 100 calibration images, {name}", peak, bare, wanted)


def many_samples(folder: Path, bare: int) -> None:
    """A net of few operations on small images, so that samples and not time are what there is much of."""
    model = _small_net(folder / "small.onnx")
    few = convert(model, samples(folder / "few.npz", FEW + 1, 64), FEW, folder)
    _print(f"small net, {FEW} samples", few, bare, "")
    many = convert(model, samples(folder / "many.npz", MANY + 1, 64), MANY, folder)
    ratio = many.rss / max(1, few.rss)
    ok = few.status == many.status == 0 and ratio <= 1.2
    _print(f"small net, {MANY} samples", many, bare, f"<= 1.2x of {FEW}: {ratio:.2f}x {_verdict(ok)}")


def vit_base(folder: Path, bare: int) -> None:
    model = net("vit_base")
    size = model.stat().st_size
    peak = convert(model, samples(folder / "x.npz", 9), 8, folder)
    ratio = (peak.rss - bare) / size
    ok = peak.status == 0 and ratio <= 2.5
    _print(f"ViT of {size / 1e6:.0f} MB, 8 samples", peak, bare, f"less imports <= 2.5x: {ratio:.2f}x {_verdict(ok)}")


def _small_net(path: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (32, 16, 3, 3), "b2": (32,), "w3": (32, 10), "b3": (10,)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) * 0.2).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    step = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", **step),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", **step),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 64, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    model = helper.make_model(
        helper.make_graph(nodes, "small", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def _print(what: str, peak: Peak, bare: int, verdict: str) -> None:
    failed = "" if peak.status == 0 else f" (exit {peak.status}: {peak.message})"
    row(
        (
            what + failed,
            f"{peak.seconds:.1f}",
            f"{peak.rss / 1e6:.0f}",
            f"{(peak.rss - bare) / 1e6:.0f}",
            verdict,
        )
    )


def _verdict(ok: bool) -> str:
    return "met" if ok else "MISSED"


PARTS: dict[str, Callable[[Path, int], None]] = {
    "mobilenet_v2": mobilenet_v2,
    "samples": many_samples,
    "vit_base": vit_base,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    names = parser.parse_args().parts
    bare = bare_imports()
    print(f"The command's imports alone: {bare / 1e6:.0f} MB.\n")
    header("conversion", "seconds", "peak MB of the process tree", "less imports, MB", "wanted")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="memory-") as folder:
            try:
                PARTS[name](Path(folder), bare)
            except AbsentError as absent:
                row((name, f"skipped: {absent}", "", "", ""))


if __name__ == "__main__":
    main()
