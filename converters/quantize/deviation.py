"""How far a quantised graph's outputs lie from the float graph's on a few samples: what choices are compared by."""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converters.ort import WORKERS, open_plain
from converters.write.onnx import write_onnx
from lepton_edge.bundle.binding import Array, Arrays

SAMPLES = 4
"""Enough to rank choices; more would only cost time."""


class Deviation:
    """Remembers the float outputs, so that many graphs can be compared with them.

    An output's deviation is RMS(quantised - float) / standard deviation of float over all samples, the same figure as
    the golden test's; a graph's is the mean over its float outputs.
    """

    def __init__(self, model: ir.Model, samples: Sequence[Arrays], *, file: Path | None = None) -> None:
        """Run the float graph.

        Args:
            model: the canonical graph.
            samples: inputs of single runs.
            file: of that graph, where it is written already.
        """
        self._samples = samples
        self._wanted = _run(model, samples) if file is None else _run_file(file, samples)

    def of(self, model: ir.Model, *, optimise: bool = True) -> float:
        """The deviation of a graph with the same inputs and outputs; infinite where it gives NaN.

        optimise: False runs it operator by operator as written. ONNX Runtime's optimiser quantises more than the plan
        says where int8 and float operators alternate, which is right for its own files alone.
        """
        got = _run(model, self._samples, optimise=optimise)
        found = [_relative(self._wanted[name], got[name]) for name in self._wanted if _is_float(self._wanted[name])]
        return float(np.mean(found)) if found else 0.0


def _run(model: ir.Model, samples: Sequence[Arrays], *, optimise: bool = True) -> Mapping[str, Sequence[Array]]:
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        file = Path(folder) / "graph.onnx"
        write_onnx(model, file)
        return _run_file(file, samples, optimise=optimise)


def _run_file(file: Path, samples: Sequence[Arrays], *, optimise: bool = True) -> Mapping[str, Sequence[Array]]:
    executor = open_plain(file, threads=1, optimise=optimise)
    with ThreadPoolExecutor(WORKERS) as pool:
        outputs = list(pool.map(executor.execute, samples))
    return {name: [one[name] for one in outputs] for name in outputs[0]}


def _is_float(arrays: Sequence[Array]) -> bool:
    return np.issubdtype(arrays[0].dtype, np.floating)


def _relative(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    exact = np.concatenate([array.reshape(-1) for array in wanted]).astype(np.float64)
    rough = np.concatenate([array.reshape(-1) for array in got]).astype(np.float64)
    if not np.isfinite(rough).all():
        return float("inf")
    spread = float(exact.std())
    return float(np.sqrt(np.mean((rough - exact) ** 2))) / spread if spread > 0 else 0.0
