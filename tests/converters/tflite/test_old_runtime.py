"""What is written for tflite-runtime 2.14 loads and runs there, and gives what LiteRT's own kernels give."""

from pathlib import Path

import numpy as np
import pytest

from converters.quantize.profiles import load_profile
from converters.quantize.qdq import write_qdq
from converters.write.tflite import write_tflite
from lepton_edge.errors import UnsupportedOperatorError
from tests.converters.quantised import Case
from tests.converters.tflite.one_operator import needs_tflite_runtime, run, run_other
from tests.converters.tflite.random_nets import random_net

SEEDS = range(40)
STEPS = 2.5
"""Kernels of different ages may round an output differently, and a step early on grows."""


def written(folder: Path, *, int8: bool) -> list[tuple[Path, np.ndarray]]:
    """Files of random nets, each with an input; nets with an operator that the old runtime lacks are left out."""
    profile, found = load_profile("litert-builtin"), []
    for seed in SEEDS:
        model = random_net(seed)
        sizes = model.graph.input[0].type.tensor_type.shape.dim[1:]
        if len(model.graph.input) != 1 or any(size.dim_param for size in sizes):
            continue
        path = folder / f"{seed}-{int8}.tflite"
        case = Case(model, samples=4)
        graph = write_qdq(case.float, case.plan(profile)) if int8 else case.float
        try:
            write_tflite(graph, path, runtime="tflite-runtime")
        except UnsupportedOperatorError:
            continue
        found.append((path, case.x[:1]))
    assert len(found) > len(SEEDS) // 2
    return found


@needs_tflite_runtime
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_files_for_the_old_runtime_run_there_as_they_do_in_litert(int8: bool, tmp_path: Path) -> None:
    files = written(tmp_path, int8=int8)
    answers = run_other([(path, {"x": x}) for path, x in files])
    for (path, x), answer in zip(files, answers, strict=True):
        assert not isinstance(answer, str), f"{path.name}: {answer}"
        for wanted, got in zip(run(path, x, builtin=True), answer, strict=True):
            largest = float(np.abs(wanted).max()) or 1.0
            allowed = STEPS * largest / 255 if int8 else 2e-5 * largest
            assert np.abs(wanted - np.array(got)).max() <= allowed, path.name
