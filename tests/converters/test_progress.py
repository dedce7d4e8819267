"""Progress: a bar where a person watches, silence elsewhere, and every stage told to its end."""

import io
from pathlib import Path

import numpy as np
import pytest

import lepton_edge as le
from converters import artifact
from converters.bar import shown_progress
from converters.convert import convert
from converters.request import Request
from lepton_edge.progress import quiet
from tests.converters import models


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with shown_progress() as progress:
        progress("calibrating", 1, 2)
        progress("calibrating", 2, 2)
        progress("proving", 1, 4)
    assert "proving" in screen.getvalue()


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["not wanted", "a pipe"])
def test_nobody_else_gets_one(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with shown_progress(wanted=not stream.isatty()) as progress:
        assert progress is quiet
        progress("calibrating", 1, 2)
    assert stream.getvalue() == ""


class Heard:
    """The last that was told of each stage; fails on steps back and on more than all."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int, int]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        assert self.stages.get(stage, (0, 0))[0] <= done <= total
        self.stages[stage] = (done, total)


def test_every_stage_of_a_conversion_is_told_to_its_end(conv_onnx: Path, tmp_path: Path) -> None:
    heard = Heard()
    data = models.samples(30)
    convert(Request(model=conv_onnx, out=tmp_path / "o.lep", data=data, budget=100), progress=heard)
    assert {"evaluating", "proving", "timing"} <= set(heard.stages)
    assert all(done == total for done, total in heard.stages.values()), heard.stages


def test_evaluate_and_benchmark_tell_too(conv_onnx: Path) -> None:
    heard = Heard()
    le.evaluate(conv_onnx, models.samples(9), progress=heard)
    le.benchmark(conv_onnx, rounds=3, progress=heard)
    assert heard.stages == {"evaluating": (9, 9), "timing": (3, 3)}


def test_files_that_are_large_together_are_loaded_in_pairs_with_float(
    digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "TOGETHER_BYTES", 1)
    heard, images = Heard(), np.random.default_rng(0).standard_normal((30, 1, 28, 28)).astype(np.float32)
    request = Request(model=digits_onnx, out=tmp_path / "o.lep", data=images, budget=100, keep_all=True)
    outcome = convert(request, progress=heard)
    files = [one for one in outcome.variants if not one.judged_with]
    pairs = len(files) - 1
    timed = sum(one.precision != "float32" for one in files)  # each with the float file of its format
    assert timed > 1
    assert heard.stages["timing"] == (100 * timed, 100 * timed)
    assert heard.stages["evaluating"] == (15 * pairs, 15 * pairs)
    for one in files:
        assert one.metric is not None
        assert one.metric.n == 15
        assert one.latency[0].float_p50_ms > 0
