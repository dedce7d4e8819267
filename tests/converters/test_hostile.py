"""Hostile graphs: each converts within its budget or is refused with the layers named, and none is wrong in silence.

What `convert` says is checked from outside: the file is taken out of the bundle and run sample by sample, in ONNX
Runtime with nothing of ours in between, in LiteRT as a device runs it.
"""

import gc
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from converters.convert import convert
from converters.outcome import Outcome, VariantOutcome
from converters.request import Request
from converters.twins import SUFFIX
from lepton_edge.bundle import Bundle
from lepton_edge.errors import LeptonError
from lepton_edge.runtimes import open_session
from tests.converters.hostile import CASES, Arrays, Case, run

QEMU = shutil.which("qemu-x86_64")
UNSATURATED = "int8-onnx-u8u8"
EMULATED = 8
"""Samples of each case that run under emulation, where a case takes a tenth of a second."""
FAR = 0.3
"""RMS error over standard deviation, of any output: more is another answer, whatever the metric on one output says."""


@dataclass(frozen=True)
class Result:
    """What came of a case: an outcome, or the error that ended it (a LeptonError where it was refused)."""

    case: Case
    outcome: Outcome | None
    error: Exception | None
    bundle: Path

    def kept(self) -> dict[str, VariantOutcome]:
        """The variants in the bundle that are not the float model itself."""
        variants = self.outcome.variants if self.outcome else []
        own = [one for one in variants if one.kept and one.precision != "float32"]
        return {one.name: one for one in own if not one.name.endswith(SUFFIX)}

    def run(self, name: str, inputs: Arrays, folder: Path) -> list[np.ndarray]:
        """A variant's outputs."""
        bundle = Bundle.open(self.bundle)
        variant = bundle.manifest.variant(name)
        path = self.extract(name, folder / Path(variant.file).name)
        if variant.format == "onnx":
            return run(path, inputs)
        session = open_session(path, bundle.manifest.signature, variant)
        return list(session.run_samples(inputs).values())

    def extract(self, name: str, path: Path) -> Path:
        bundle = Bundle.open(self.bundle)
        path.write_bytes(bundle.read(bundle.manifest.variant(name).file))
        return path


Convert = Callable[[str], Result]


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Convert]:
    """Converts a case once in a session, without its files' folder being there afterwards."""
    results: dict[str, Result] = {}
    gc.freeze()  # a conversion collects garbage often: what pytest itself holds need not be searched each time

    def once(name: str) -> Result:
        if name not in results:
            results[name] = _convert(CASES[name](), tmp_path_factory.mktemp(name))
        return results[name]

    yield once
    gc.unfreeze()


def _convert(case: Case, folder: Path) -> Result:
    inside = folder / "source"
    inside.mkdir()
    model, calibration, evaluation = case.save(inside)
    request = Request(
        model=model,
        out=folder / "out.lep",
        data=evaluation,
        calibration_data=calibration,
        budget=case.budget,
        benchmark=False,
        keep_all=True,
    )
    try:
        return Result(case, convert(request), None, request.out)
    except Exception as error:  # noqa: BLE001 - a crash fails the tests of its case, not those of the others
        return Result(case, None, error, request.out)
    finally:
        shutil.rmtree(inside)


def right(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers; scores that are no numbers are wrong ones."""
    return float(np.mean((scores.argmax(axis=1) == labels) & np.isfinite(scores).all(axis=1)))


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    """RMS error over the standard deviation of what is wanted."""
    wanted = wanted.astype(np.float64)
    error = np.sqrt(np.mean((got.astype(np.float64) - wanted) ** 2))
    return float(error / (wanted.std() + 1e-30))


@pytest.mark.parametrize("name", CASES)
def test_converts_within_budget_or_names_the_layers(name: str, converted: Convert) -> None:
    result = converted(name)
    nodes = {part for node in result.case.model.graph.node for part in (node.name, *node.output) if part}
    if result.error is not None:
        if not isinstance(result.error, LeptonError):
            raise result.error
        assert not result.case.converts, f"refused: {result.error}"
        assert any(node in str(result.error) for node in nodes), f"names no layer: {result.error}"
        assert not result.bundle.exists()
        return
    assert result.outcome is not None
    assert all(one.drop is not None and one.drop <= result.case.budget for one in result.kept().values())
    refused = [one for one in result.outcome.variants if not one.kept and one.precision == "int8"]
    assert all(one.reason for one in refused)
    if any(one.precision == "int8" for one in result.kept().values()):
        return
    assert not result.case.converts, [(one.name, one.reason) for one in refused]
    if result.outcome.kept:
        assert result.outcome.reason, "float alone is kept, and nothing says why"
    else:
        assert result.outcome.exit_status == 3
        assert all(one.blame for one in refused), "refused, and no layer is named"


@pytest.mark.parametrize("name", CASES)
def test_what_is_stated_of_a_file_is_what_it_does(name: str, converted: Convert, tmp_path: Path) -> None:
    result, case = converted(name), converted(name).case
    floats = right(run(case.model, case.evaluation)[0], case.labels)
    assert floats == 1.0
    for variant, stated in result.kept().items():
        scores = result.run(variant, case.evaluation, tmp_path)[0]
        assert stated.drop == pytest.approx(100 * (floats - right(scores, case.labels)), abs=1e-6), variant
        assert stated.metric is not None
        assert stated.metric.n == len(case.labels)


@pytest.mark.parametrize("name", CASES)
def test_every_output_of_a_kept_file_stays_near_float(name: str, converted: Convert, tmp_path: Path) -> None:
    result, case = converted(name), converted(name).case
    wanted = run(case.model, case.evaluation)
    names = [value.name for value in case.model.graph.output]
    for variant in result.kept():
        found = result.run(variant, case.evaluation, tmp_path)
        apart = {key: distance(got, want) for key, got, want in zip(names, found, wanted, strict=True)}
        assert max(apart.values()) <= FAR, (variant, apart)


def test_a_free_plane_stays_free(converted: Convert, tmp_path: Path) -> None:
    result = converted("dynamic-plane")
    rng = np.random.default_rng(0)
    for height, width in ((7, 13), (16, 5)):
        x = {"x": rng.standard_normal((8, 32, height, width)).astype(np.float32)}
        wanted = run(result.case.model, x)[0]
        for variant in result.kept():
            got = result.run(variant, x, tmp_path)[0]
            assert distance(got, wanted) <= FAR, (variant, height, width)


def test_a_state_that_is_fed_back_does_not_drift(converted: Convert, tmp_path: Path) -> None:
    result = converted("lstm-step")
    steps = np.random.default_rng(0).standard_normal((60, 1, 16)).astype(np.float32)
    wanted = fed_back(result.case.model.SerializeToString(), steps)
    for variant in result.kept():
        if not variant.startswith("int8-onnx"):
            continue
        got = fed_back(result.extract(variant, tmp_path / "file.onnx").read_bytes(), steps)
        assert distance(got[-20:], wanted[-20:]) <= FAR, variant


def fed_back(model: bytes, steps: np.ndarray) -> np.ndarray:
    """Scores of each step, the state of one being the next one's input."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    h = c = np.zeros((1, 32), np.float32)
    scores = []
    for x in steps:
        found, h, c = session.run(["scores", "h_next", "c_next"], {"x": x, "h": h, "c": c})
        scores.append(found)
    return np.concatenate(scores)


@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (Debian: qemu-user) is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates one x86 on another")
def test_u8u8_answers_alike_on_a_cpu_without_vnni(converted: Convert, tmp_path: Path) -> None:
    """Haswell has AVX2 and no VNNI; a saturated sum would be a hundred steps away, float rounding is within one."""
    folders = tmp_path / "native", tmp_path / "haswell"
    for folder in folders:
        folder.mkdir()
    for name in CASES:
        result = converted(name)
        if UNSATURATED in result.kept():
            for folder in folders:
                result.extract(UNSATURATED, folder / f"{name}.onnx")
                np.savez(folder / f"{name}.npz", **first(result.case.evaluation))
    for folder, wrapper in zip(folders, ([], [str(QEMU), "-cpu", "Haswell"]), strict=True):
        script = Path(__file__).with_name("run_files.py")
        subprocess.run([*wrapper, sys.executable, str(script), str(folder)], check=True, timeout=150)
    compared = {file.name: steps_apart(file, folders[1] / file.name) for file in folders[0].glob("*.out.npz")}
    assert compared
    assert {name: steps for name, steps in compared.items() if steps > 1} == {}


def first(arrays: Arrays) -> Arrays:
    return {name: array[:EMULATED] for name, array in arrays.items()}


def steps_apart(one: Path, other: Path) -> float:
    """The largest difference, in steps of which 255 are the range of the native output."""
    with np.load(one) as native, np.load(other) as emulated:
        ranges = {name: float(np.ptp(native[name])) / 255 + 1e-30 for name in native}
        return max(float(np.abs(emulated[name] - native[name]).max()) / ranges[name] for name in native)
