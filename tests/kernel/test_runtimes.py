"""The runtimes of TFLite files, and what all runtimes have in common."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_edge.bundle import Binding, ModelSignature, TensorSpec, Variant
from lepton_edge.errors import DataError, LeptonError, RuntimeUnavailableError, SelfTestError
from lepton_edge.runtimes import Runtime, Session, installed, runtimes
from lepton_edge.runtimes._foreign import without_lines
from lepton_edge.runtimes._tflite import BUILTIN, XNNPACK, TfliteRuntime
from tests.kernel.tflite_files import WEIGHTS, added, linear, quantised, remembers

RNG = np.random.default_rng(5)
X = RNG.normal(size=(3, 4)).astype(np.float32)


@pytest.fixture(params=["litert", "tflite-runtime"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each TFLite runtime that is installed."""
    if request.param not in installed():
        pytest.skip(f"{request.param} is not installed (or wants another NumPy)")
    return installed()[request.param]


def test_the_runtimes_are_found_by_name_with_their_formats() -> None:
    formats = {name: runtime.format for name, runtime in runtimes().items()}
    assert formats == {"onnxruntime": "onnx", "litert": "tflite", "tflite-runtime": "tflite"}


@pytest.mark.parametrize("provider", [None, XNNPACK, BUILTIN])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_provider_computes_the_file(runtime: Runtime, provider: str | None, threads: int, tmp_path: Path) -> None:
    executor = runtime.load(linear(tmp_path / "m.tflite"), threads=threads, provider=provider)
    np.testing.assert_allclose(executor.execute({"x": X})["y"], X @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_inputs_and_outputs_go_by_name_not_by_order(runtime: Runtime, tmp_path: Path) -> None:
    executor = runtime.load(added(tmp_path / "m.tflite"), threads=1)
    a, b = RNG.normal(size=(2, 5, 2)).astype(np.float32)
    for inputs in ({"a": a, "b": b}, {"b": b, "a": a}):
        outputs = executor.execute(inputs)
        np.testing.assert_array_equal(outputs["s"], a + b)
        np.testing.assert_array_equal(outputs["b"], b)


def test_a_signatures_names_and_the_tensors_own_both_serve(runtime: Runtime, tmp_path: Path) -> None:
    executor = runtime.load(linear(tmp_path / "m.tflite", named=True), threads=1)
    wanted = executor.execute({"x": X})
    assert set(wanted) == {"y", "t1"}
    np.testing.assert_array_equal(executor.execute({"t0": X})["y"], wanted["t1"])


def test_a_batch_may_change_and_change_back(runtime: Runtime, tmp_path: Path) -> None:
    executor = runtime.load(linear(tmp_path / "m.tflite"), threads=1)
    for size in (1, 7, 7, 2, 1, 64):
        x = RNG.normal(size=(size, 4)).astype(np.float32)
        np.testing.assert_allclose(executor.execute({"x": x})["y"], x @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_arrays_need_not_lie_in_c_order(runtime: Runtime, tmp_path: Path) -> None:
    executor = runtime.load(linear(tmp_path / "m.tflite"), threads=1)
    wanted = executor.execute({"x": X})["y"]
    for x in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X[::-1][::-1]):
        np.testing.assert_array_equal(executor.execute({"x": x})["y"], wanted)


def test_outputs_are_the_callers_own(runtime: Runtime, tmp_path: Path) -> None:
    executor = runtime.load(linear(tmp_path / "m.tflite"), threads=1)
    first = executor.execute({"x": X})["y"]
    kept = first.copy()
    executor.execute({"x": -X})
    executor.execute({"x": np.zeros((50, 4), np.float32)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(executor.execute({"x": X})["y"], kept)


def test_each_run_starts_from_zero_state(runtime: Runtime, tmp_path: Path) -> None:
    executor = runtime.load(remembers(tmp_path / "m.tflite"), threads=1)
    x = np.ones((1, 3, 2), np.float32)
    first = executor.execute({"x": x})["h"]
    np.testing.assert_array_equal(first, np.cumsum(x, axis=1))
    np.testing.assert_array_equal(executor.execute({"x": x})["h"], first)


WRONG: dict[str, tuple[dict[str, np.ndarray], type[LeptonError], str]] = {
    "nothing": ({}, SelfTestError, "the file takes ['x']"),
    "another name": ({"z": X}, SelfTestError, "the file takes ['x']"),
    "one too many": ({"x": X, "z": X}, SelfTestError, "the file takes ['x']"),
    "another type": ({"x": X.astype(np.float64)}, SelfTestError, "FLOAT64"),
    "a fixed axis": ({"x": np.ones((1, 5), np.float32)}, SelfTestError, "dimension 1"),
    "another rank": ({"x": np.ones(4, np.float32)}, SelfTestError, "m.tflite"),
    "empty": ({"x": X[:0]}, DataError, "no empty one"),
}


@pytest.mark.parametrize(("inputs", "error", "message"), WRONG.values(), ids=WRONG)
def test_inputs_that_do_not_fit_are_refused_and_leave_no_trace(
    runtime: Runtime, tmp_path: Path, inputs: dict[str, np.ndarray], error: type[LeptonError], message: str
) -> None:
    executor = runtime.load(linear(tmp_path / "m.tflite"), threads=1)
    wanted = executor.execute({"x": X})["y"]
    with pytest.raises(error) as caught:
        executor.execute(inputs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(executor.execute({"x": X})["y"], wanted)


def test_a_fixed_batch_stays(runtime: Runtime, tmp_path: Path) -> None:
    executor = runtime.load(linear(tmp_path / "m.tflite", batch=3), threads=1)
    assert executor.execute({"x": X})["y"].shape == (3, 3)
    with pytest.raises(SelfTestError, match="dimension 0"):
        executor.execute({"x": X[:1]})


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "of another format": lambda data: b"\x08\x09\x12\x07pytorch" * 20,
    "cut in the header": lambda data: data[:6],
    "cut in half": lambda data: data[: len(data) // 2],
    "a root beyond the end": lambda data: b"\xff\xff\xff\x7f" + data[4:],
    "a wild version of the schema": lambda data: data[:8] + bytes(64) + data[72:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(
    runtime: Runtime, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    file = linear(tmp_path / "m.tflite")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(SelfTestError, match=r"^m.tflite: .* cannot load it: [^\n]+$"):
        runtime.load(file, threads=1)


def test_a_missing_file_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(SelfTestError, match="cannot load it"):
        runtime.load(tmp_path / "none.tflite", threads=1)


FLIPS = """
import os, sys
import numpy as np
from pathlib import Path
from lepton_edge.errors import LeptonError
from lepton_edge.runtimes import installed
runtime = installed()[sys.argv[1]]
file = Path(sys.argv[2])
data, rng = file.read_bytes(), np.random.default_rng(0)
for _ in range(int(sys.argv[3])):
    harmed = bytearray(data)
    for at in rng.integers(8, len(data), size=3):
        harmed[at] ^= 1 << int(rng.integers(8))
    file.write_bytes(harmed)
    try:
        runtime.load(file, threads=1).execute({"x": np.ones((2, 4), np.float32)})
    except LeptonError:
        pass
"""


def test_flipped_bits_raise_our_errors_alone(runtime: Runtime, tmp_path: Path) -> None:
    """In a process of its own, as the agent runs a self-test: the library may still crash, but raises nothing else."""
    file = linear(tmp_path / "m.tflite")
    words = [sys.executable, "-c", FLIPS, runtime.name, str(file), "200"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode <= 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", sorted(installed()))
def test_a_provider_that_is_not_there_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="Abacus"):
        installed()[name].load(tmp_path / "m", threads=1, provider="Abacus")


@pytest.mark.parametrize("name", sorted(installed()))
def test_no_provider_sends_inputs_away(name: str) -> None:
    providers = installed()[name].providers()
    assert providers
    assert "Azure" not in providers


def test_a_library_that_wants_an_older_numpy_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def described(below: int | None) -> TfliteRuntime:
        return TfliteRuntime("t", title="T", module="t", distributions=("none-such", "numpy"), numpy_below=below)

    monkeypatch.setattr(np, "__version__", "2.3.1")
    assert described(2).version() is None
    assert described(3).version() is not None
    assert described(None).version() is not None


def test_a_broken_library_is_unavailable_not_a_bad_file(tmp_path: Path) -> None:
    broken = TfliteRuntime("t", title="Tee", module="none_such.interpreter", distributions=("numpy",))
    with pytest.raises(RuntimeUnavailableError, match="Tee does not load here"):
        broken.load(linear(tmp_path / "m.tflite"), threads=1)
    with pytest.raises(ImportError):
        broken.providers()


QUIET = """
import sys
import numpy as np
from pathlib import Path
from lepton_edge.runtimes import installed
executor = installed()[sys.argv[1]].load(Path(sys.argv[2]), threads=1)
executor.execute({"x": np.ones((1, 4), np.float32)})
"""


def test_nothing_is_printed(runtime: Runtime, tmp_path: Path) -> None:
    words = [sys.executable, "-c", QUIET, runtime.name, str(linear(tmp_path / "m.tflite"))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_only_lines_with_the_beginning_are_kept_back(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines(b"INFO: "):
        os.write(2, b"INFO: noise\nhello\n")
        thread = threading.Thread(target=lambda: os.write(2, b"from a thread\n"))
        thread.start()
        thread.join()
    os.write(2, b"INFO: after\n")
    assert capfd.readouterr().err == "hello\nfrom a thread\nINFO: after\n"


def test_stderr_is_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"), without_lines(b"INFO: "):
        os.write(os.write(2, b"why\n") + 10_000, b"")
    os.write(2, b"and then\n")
    assert capfd.readouterr().err == "why\nand then\n"


def int8_session(runtime: Runtime, file: Path) -> Session:
    """The model signature is float32 in NCHW; the file has int8 in NHWC."""
    spec = {"dtype": "float32", "shape": [1, 3, 2, 2]}
    signature = ModelSignature(inputs=[TensorSpec(name="in", **spec)], outputs=[TensorSpec(name="out", **spec)])
    bound = {"dtype": "int8", "permutation": [0, 2, 3, 1], "scale": 0.5, "zero_point": -10}
    variant = Variant(
        name="int8-tflite",
        file=file.name,
        format="tflite",
        precision="int8",
        runtime=runtime.name,
        profile="any",
        inputs=[Binding(name="in", tensor="x", **bound)],
        outputs=[Binding(name="out", tensor="y", **bound)],
        rank=0,
        tolerance=0.05,
    )
    return Session(runtime.load(file, threads=1), signature, variant)


def test_a_session_speaks_the_models_floats_and_axes(runtime: Runtime, tmp_path: Path) -> None:
    session = int8_session(runtime, quantised(tmp_path / "m.tflite", scale=0.5, zero_point=-10))
    x = RNG.normal(scale=20, size=(1, 3, 2, 2)).astype(np.float32)
    exact = np.clip(np.rint(x / 0.5), -118, 137) * 0.5
    np.testing.assert_array_equal(session.run({"in": x})["out"], np.maximum(exact, 0))


def test_threads_may_share_a_session(runtime: Runtime, tmp_path: Path) -> None:
    session = int8_session(runtime, quantised(tmp_path / "m.tflite", scale=0.5, zero_point=-10))
    wrong: list[int] = []

    def ask(number: int) -> None:
        x = np.full((1, 3, 2, 2), number, np.float32)
        wrong.extend(number for _ in range(50) if not np.array_equal(session.run({"in": x})["out"], x))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
