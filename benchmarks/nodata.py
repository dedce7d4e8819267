"""Without data: `le.quantize_model(model, precision=8).save("x.onnx")`, as the README shows it.

    python benchmarks/nodata.py

Size, agreement with float and latency beside float, on MobileNetV2 and on a text encoder of free length.
"""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ours import BENCH, header, row
from timing import float_kernels, interleaved

import lepton_edge as le
from converters.ort import session

SIZE = 0.30


class Net(NamedTuple):
    """samples: one array per inference, batch axis first."""

    name: str
    model: Path
    samples: list[npt.NDArray[np.generic]]


def nets() -> Iterator[Net]:
    import textnet
    import torch  # noqa: F401 - both nets are built in it
    from nets import net_file
    from textures import textures

    images = textures(100, seed=4).x
    yield Net("mobilenet_v2", net_file("mobilenet_v2"), [image[None] for image in images])
    ids = textnet.sentences(400, seed=4).ids
    yield Net("text encoder", textnet.text_file(BENCH), [row[None, : np.count_nonzero(row)] for row in ids])


def measure(net: Net, folder: Path) -> None:
    path = folder / "x.onnx"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        small = le.quantize_model(le.load_model(net.model), precision=8)
        small.save(path)
    files = {"float": net.model, "ours": path}
    sessions = {name: session(file) for name, file in files.items()}
    name = sessions["float"].get_inputs()[0].name
    scores = {
        side: np.concatenate([one.run(None, {name: sample})[0] for sample in net.samples])
        for side, one in sessions.items()
    }
    agreement = 100 * np.mean(scores["ours"].argmax(1) == scores["float"].argmax(1))
    apart = np.sqrt(np.mean((scores["ours"] - scores["float"]) ** 2)) / scores["float"].std()
    times = interleaved(files, {name: net.samples[0]})
    size = path.stat().st_size / net.model.stat().st_size
    row(
        (
            net.name,
            small.precision,
            f"{size:.3f} (<= {SIZE}: {'met' if size <= SIZE else 'MISSED'})",
            f"{agreement:.1f} % of {len(net.samples)}",
            f"{apart:.3f}",
            f"{times.median('float'):.2f}",
            f"{times.median('ours'):.2f} ({times.ratio('ours'):.2f}x)",
            float_kernels(path),
        )
    )
    for warning in said:
        print(f"  warned: {warning.message}")


def main() -> None:
    header("net", "precision", "size", "agreement", "RMS error / deviation", "float ms", "ms", "float kernels left")
    try:
        for net in nets():
            with tempfile.TemporaryDirectory(prefix="nodata-") as folder:
                try:
                    measure(net, Path(folder))
                except le.LeptonError as refused:
                    row((net.name, f"refused: {refused}", *[""] * 6))
    except ImportError as missing:
        row((f"skipped: needs {missing.name}", *[""] * 7))


if __name__ == "__main__":
    main()
