"""The self-test: what passes, what does not, and that nothing a file does reaches the agent."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from device_agent.trial import golden_check, self_test
from device_agent.trial.measure import Effort, measure
from device_agent.trial.process import examine_apart
from device_agent.trial.protocol import Request, Verdict
from lepton_edge.bundle import Bundle, Golden, ModelSignature
from lepton_edge.bundle.binding import Array
from lepton_edge.errors import RuntimeUnavailableError, SelfTestError
from lepton_edge.runtimes import Session
from lepton_edge.typed import encode
from lepton_edge.wire.goal import Limits
from tests.device_agent.models import (
    PLUS_ONE,
    WEIGHTS,
    FakeExecutor,
    linear_bundle,
    linear_onnx,
    tensor,
    unpack,
    variant_of,
)

VARIANT = variant_of(PLUS_ONE, tolerance=0.01)
X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
GOLDEN = Golden({"x": X}, {}, {VARIANT.name: {"y": X + 1}})


def session(function: Callable[[Array], Array]) -> Session:
    return Session(FakeExecutor(lambda inputs: {"y": function(inputs["x"])}), PLUS_ONE, VARIANT)


def test_a_variant_that_computes_what_the_host_did_passes() -> None:
    assert golden_check(session(lambda x: x + 1), VARIANT, GOLDEN) == 0
    assert 0 < golden_check(session(lambda x: x + np.float32(1.001)), VARIANT, GOLDEN) <= VARIANT.tolerance


def test_samples_are_run_one_by_one() -> None:
    """A variant with dynamic quantisation gives other results in a batch."""
    assert golden_check(session(lambda x: x + np.float32(len(x))), VARIANT, GOLDEN) == 0


WRONG: dict[str, tuple[Callable[[Array], Array], str]] = {
    "other values": (lambda x: -x, "at most 0.01 is accepted"),
    "one NaN": (lambda x: np.where(x == X[7, 1], np.float32(np.nan), x + 1), "gave inf"),
    "infinity": (lambda x: x / np.float32(np.inf) + np.float32(np.inf), "gave inf"),
    "other shape": (lambda x: x[:, :1], "gave inf"),
}


@pytest.mark.parametrize(("function", "message"), WRONG.values(), ids=WRONG)
def test_a_variant_that_computes_something_else_fails(function: Callable[[Array], Array], message: str) -> None:
    with pytest.raises(SelfTestError, match=message):
        golden_check(session(function), VARIANT, GOLDEN)


UNUSABLE = {
    "no outputs of the variant": Golden({"x": X}, {}, {}),
    "inputs that do not fit": Golden({"x": X[:, :1]}, {}, {VARIANT.name: {"y": X}}),
    "no samples": Golden({"x": X[:0]}, {}, {VARIANT.name: {"y": X[:0]}}),
}


@pytest.mark.parametrize("golden", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_golden_data_fail_the_test(golden: Golden) -> None:
    with pytest.raises(SelfTestError, match="cannot be run"):
        golden_check(session(lambda x: x + 1), VARIANT, golden)


def test_a_nan_among_the_hosts_outputs_hides_behind_no_other_output() -> None:
    signature = ModelSignature(inputs=PLUS_ONE.inputs, outputs=[*PLUS_ONE.outputs, tensor("z", "float32", "n", 2)])
    variant = variant_of(signature)
    golden = Golden({"x": X}, {}, {variant.name: {"y": X, "z": np.full_like(X, np.nan)}})
    executor = FakeExecutor(lambda inputs: {"y": inputs["x"], "z": inputs["x"]})
    with pytest.raises(SelfTestError, match="gave inf"):
        golden_check(Session(executor, signature, variant), variant, golden)


def test_threads_take_turns_in_a_session() -> None:
    inside = threading.Lock()
    met: list[bool] = []

    def alone(x: Array) -> Array:
        entered = inside.acquire(blocking=False)
        met.append(not entered)
        x = x @ np.ones((2, 2), np.float32)
        if entered:
            inside.release()
        return x

    shared = session(alone)
    threads = [threading.Thread(target=lambda: shared.run_samples({"x": X})) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [False] * 64


class Clock:
    """Moves when the model runs."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now, self.runs, self.seconds = 0.0, 0, seconds

    def __call__(self) -> float:
        return self.now

    def model(self, x: Array) -> Array:
        assert x.shape == (1, 2)
        self.now += self.seconds(self.runs)
        self.runs += 1
        return x


def timed(seconds: Callable[[int], float]) -> tuple[Clock, tuple[float, float]]:
    clock = Clock(seconds)
    return clock, measure(session(clock.model), {"x": X}, effort=Effort(), clock=clock)


def test_warm_up_does_not_count() -> None:
    _, (p50, p99) = timed(lambda run: 0.2 if run < 5 else 0.01)
    assert (p50, p99) == (pytest.approx(10), pytest.approx(10))


@pytest.mark.parametrize(
    ("seconds", "runs"),
    [(0.00001, 1005), (0.015625, 69), (0.05, 35), (0.25, 17), (60.0, 2)],
    ids=["tiny", "a second of runs", "thirty runs", "three seconds", "very slow"],
)
def test_effort_follows_the_models_speed(seconds: float, runs: int) -> None:
    clock, (p50, _) = timed(lambda _: seconds)
    assert clock.runs == runs
    assert p50 == pytest.approx(seconds * 1e3)


def test_a_right_file_passes_with_figures(tmp_path: Path) -> None:
    bundle = linear_bundle()
    trial = self_test(
        unpack(bundle, tmp_path), bundle.manifest, bundle.manifest.variants[0], bundle.golden(), limits=Limits()
    )
    assert (trial.choice.variant, trial.choice.runtime) == ("float-onnx", "onnxruntime")
    assert 0 < trial.choice.p50_ms <= trial.choice.p99_ms < 1000
    assert trial.choice.golden_ratio < 1e-3
    assert trial.choice.fetched == 0
    assert trial.memory_bytes > 0
    assert trial.session.run({"x": np.zeros((2, 4), np.float32)})["y"].shape == (2, 3)


def test_a_signature_with_a_fixed_batch_passes(tmp_path: Path) -> None:
    bundle = linear_bundle(batch=1)
    trial = self_test(
        unpack(bundle, tmp_path),
        bundle.manifest,
        bundle.manifest.variants[0],
        bundle.golden(),
        limits=Limits(threads=2),
        apart=False,
    )
    assert trial.choice.golden_ratio < 1e-3


BAD_FILES: dict[str, tuple[bytes, dict[str, object], Limits, str]] = {
    "inverted weights": (linear_onnx(-WEIGHTS), {}, Limits(), "golden test gave"),
    "no model": (b"this is no ONNX file", {}, Limits(), "cannot load it"),
    "too much memory": (linear_onnx(WEIGHTS), {}, Limits(memory_bytes=1), "1 are allowed"),
    "no runtime": (linear_onnx(WEIGHTS), {"runtime": "edgetpu"}, Limits(), "needs the runtime edgetpu"),
}


def failing(bundle: Bundle, folder: Path, limits: Limits) -> Exception:
    with pytest.raises((SelfTestError, RuntimeUnavailableError)) as caught:
        self_test(unpack(bundle, folder), bundle.manifest, bundle.manifest.variants[0], bundle.golden(), limits=limits)
    return caught.value


@pytest.mark.parametrize(("data", "fields", "limits", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_gets_one_clear_line(
    tmp_path: Path, data: bytes, fields: dict[str, object], limits: Limits, message: str
) -> None:
    error = failing(linear_bundle({"int8-onnx": data}, **fields), tmp_path, limits)
    assert message in str(error)
    assert "\n" not in str(error)
    assert isinstance(error, RuntimeUnavailableError) == ("runtime" in fields)


def apart(code: str, *, timeout_s: float = 20) -> Verdict:
    """What the agent makes of a child that runs `code`."""
    request = Request(file="f", signature=PLUS_ONE, variant=VARIANT, threads=1)
    return examine_apart(request, GOLDEN, timeout_s=timeout_s, command=(sys.executable, "-c", code))


CHILDREN = {
    "a crash": ("import os; os.abort()", "crashed with SIGABRT"),
    "a kill": ("import os; os.kill(os.getpid(), 9)", "was killed (out of memory?)"),
    "an exit": ("print('libfoo: bad magic'); raise SystemExit(7)", "ended with status 7 in the self-test: libfoo"),
    "a hang": ("import threading; threading.Event().wait()", "did not finish the self-test within 0.5 s"),
    "silence": ("", "not valid JSON"),
}


@pytest.mark.parametrize(("code", "message"), CHILDREN.values(), ids=CHILDREN)
def test_what_happens_to_the_child_is_a_failed_self_test(code: str, message: str) -> None:
    with pytest.raises(SelfTestError) as caught:
        apart(code, timeout_s=0.5 if "Event" in code else 20)
    assert message in str(caught.value)


def test_what_the_runtime_prints_does_not_spoil_the_verdict() -> None:
    verdict = encode(Verdict(golden_ratio=0.25)).decode()
    code = f"import os, sys; print('x' * 200_000); os.write(int(sys.argv[2]), {verdict!r}.encode())"
    assert apart(code) == Verdict(golden_ratio=0.25)


def test_the_child_dies_with_the_agent() -> None:
    """The pipe that the agent holds closes when it is killed; the child then ends whatever it is doing."""
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "device_agent.trial.child", str(reading), "1"],
        stdin=subprocess.PIPE,
        pass_fds=(reading,),
    )
    os.close(reading)
    assert child.stdin is not None
    assert child.poll() is None
    os.close(writing)
    assert child.wait(20) == 3
    child.stdin.close()
