"""Speed: int8 against float and against ONNX Runtime's quantize_static, one thread, in ONNX Runtime.

    python benchmarks/speed.py [NET ...]

Every net is converted by the command, without data for judging; the peer gets the same calibration samples. The three
files are then timed in five interleaved rounds; a ratio is the median over the rounds of that round's ratio.
"""

import argparse
from pathlib import Path

import numpy as np
from ours import NETS, SERVED_HERE, TRAINED, convert, each_net, header, row, save_samples
from peers import quantize_peer
from timing import float_kernels, input_name, interleaved

LIMITS = {"mobilenet_v2": 1.8, "resnet18": 3.1, TRAINED: 1.9}
OF_PEER = 0.97


def measure(name: str, path: Path, folder: Path) -> None:
    """Convert one net both ways, time the files and print the net's row."""
    from textures import textures

    images = textures(100, seed=3).x
    only = input_name(path)
    samples = save_samples(folder / "samples.npz", {only: images})
    options = ("--calibration", "99", "--no-evaluate", "--no-benchmark", "--keep-all")
    ours = convert(path, folder, "--data", samples, *options)
    file = ours.extract(SERVED_HERE, folder)
    peer = quantize_peer(path, {only: images[:99]}, folder / "peer.onnx")
    files = {"float": path, **({"ours": file} if file else {}), **({"peer": peer.path} if peer.path else {})}
    times = interleaved(files, {only: np.ascontiguousarray(images[:1])})
    of_peer = times.ratio("peer") if peer.path else 0.0
    theirs = peer.noted(f"{of_peer:.2f}x") if peer.path else peer.reason
    if file is None:
        row((name, f"{times.median('float'):.2f}", ours.verdict, "-", theirs, *["-"] * 4))
        return
    ratio, wanted = times.ratio("ours"), max(LIMITS.get(name, 1.0), OF_PEER * of_peer)
    share = ours.variants[SERVED_HERE]["int8_macs"]
    row(
        (
            name,
            f"{times.median('float'):.2f}",
            f"{times.median('ours'):.2f}",
            f"{ratio:.2f}x",
            theirs,
            f"{wanted:.2f}x {'met' if ratio >= wanted else 'MISSED'}",
            f"{file.stat().st_size / path.stat().st_size:.3f}",
            "-" if share is None else f"{share:.3f}",
            float_kernels(file),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", default=list(NETS), metavar="NET", help=", ".join(NETS))
    header(
        "net", "float ms", "int8 ms", "ratio", "quantize_static", "wanted", "size", "int8 MACs", "float kernels left"
    )
    for name, path, folder in each_net(parser.parse_args().nets, columns=9):
        measure(name, path, folder)


if __name__ == "__main__":
    main()
