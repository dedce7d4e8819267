"""`benchmark`: quantiles and ratios that are what was timed, and clear words where nothing can be."""

import json
import platform
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lepton_edge as le
from converters import benchmark
from converters.outcome import Outcome, Timing
from lepton_edge.bundle import Bundle
from lepton_edge.cli import main
from lepton_edge.errors import UsageError
from tests.converters import models

Converted = tuple[Outcome, Bundle, Path]


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["benchmark", *(str(argument) for argument in arguments)])


def test_every_variant_of_a_bundle_is_timed_beside_float(converted: Converted) -> None:
    _, bundle, path = converted
    done = cli(path, "--rounds", "2", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"bundle", "name", "version", "source", "variants", "seconds", "peak_rss_mb"} <= set(document)
    assert {one["name"] for one in document["variants"]} == {one.name for one in bundle.manifest.variants}
    machine = platform.machine()
    for one in document["variants"]:
        kinds = bundle.manifest.variant(one["name"]).machines
        if kinds and machine not in kinds:
            assert f"made for {', '.join(kinds)}" in one["skipped"]
            continue
        (timing,) = one["latency"]
        assert 0 < timing["p50_ms"] <= timing["p90_ms"] <= timing["p99_ms"]
        assert 0 < timing["ratio_low"] <= timing["ratio"] <= timing["ratio_high"]
        runtime = {"onnx": "onnxruntime", "tflite": "litert"}[one["format"]]
        assert (timing["runtime"], timing["threads"], timing["rounds"]) == (runtime, 1, 2)
        assert timing["runs"] >= 2 * benchmark.MIN_RUNS
    floats = [one for one in document["variants"] if one["name"] in {"float32-onnx", "float32-tflite"}]
    assert [one["latency"][0]["ratio"] for one in floats] == [1.0, 1.0]


def test_a_file_and_text_for_people(conv_onnx: Path) -> None:
    done = cli(conv_onnx, "--rounds", "1", "--threads", "2")
    assert done.exit_code == 0, done.stderr
    assert "2 threads" in done.stdout
    assert "p90" in done.stdout
    assert "1.00x float" in done.stdout


def test_ratios_are_medians_over_rounds_with_their_spread(digits_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds in which int8 takes 1/2, 1/4 and 1/1 of float's time."""
    shares = iter([0.5, 0.25, 1.0])

    def timed(sessions: dict[str, object], *_: object, **__: object) -> dict[str, list[float]]:
        share = next(shares)
        return {name: [1e-3 * (1 if name.startswith("float32") else share)] * 5 for name in sessions}

    monkeypatch.setattr(benchmark, "measure_latency", timed)
    small = le.quantize_model(digits_onnx)
    found = {one.name: one.latency[0] for one in le.benchmark(small, rounds=3).variants}
    timing = found["int8-dynamic-onnx"]
    assert isinstance(timing, Timing)
    assert (timing.ratio, timing.ratio_low, timing.ratio_high) == (2.0, 1.0, 4.0)
    assert (timing.p50_ms, timing.float_p50_ms, timing.runs) == (0.5, 1.0, 15)


def test_inputs_may_come_from_data(conv_onnx: Path) -> None:
    outcome = le.benchmark(conv_onnx, data=models.samples(3), rounds=1)
    assert outcome.variants[0].latency[0].p50_ms > 0


WRONG = {
    "an unknown runtime": (("--runtime", "abacus"), 2, "unknown runtime 'abacus'; there are"),
    "no threads": (("--threads", "0"), 2, "--threads 0: give 1 to"),
    "no rounds": (("--rounds", "0"), 2, "--rounds 0: give 1 to"),
}


@pytest.mark.parametrize(("options", "status", "says"), WRONG.values(), ids=WRONG)
def test_wrong_use_gets_one_line(options: tuple[str, ...], status: int, says: str, conv_onnx: Path) -> None:
    done = cli(conv_onnx, *options)
    assert done.exit_code == status
    assert says in done.stderr


def test_python_names_its_options_alike(conv_onnx: Path) -> None:
    with pytest.raises(UsageError, match="unknown runtime"):
        le.benchmark(conv_onnx, runtimes=["abacus"])
