"""`convert` end to end: what is kept, what is written, and what is said."""

import dataclasses
import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper
from PIL import Image

from converters import judged, judging
from converters.convert import convert
from converters.outcome import Outcome, VariantOutcome
from converters.quantize.profiles import X86_AVX2, X86_VNNI
from converters.request import Request, check_budget
from lepton_edge.bundle import Bundle
from lepton_edge.cli import main
from lepton_edge.demo import digits
from lepton_edge.errors import ModelError, UsageError
from tests.converters import models

Converted = tuple[Outcome, Bundle, Path]


def judged_here(outcome: Outcome) -> list[VariantOutcome]:
    """The variants whose own runtime is here; others are second names of the same files."""
    return [one for one in outcome.variants if not one.judged_with]


def labelled(path: Path, count: int = 60) -> Path:
    """conv_net's own answers as labels."""
    from lepton_edge import load_model

    x = models.samples(count)["x"]
    np.savez(path, x=x, y=np.argmax(load_model(models.conv_net()).predict(x), axis=1))
    return path


def fragile(folder: Path) -> tuple[Path, Path]:
    onnx.save(models.fragile_net(), folder / "fragile.onnx")
    np.savez(folder / "fragile.npz", **models.fragile_data())
    return folder / "fragile.onnx", folder / "fragile.npz"


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *(str(argument) for argument in arguments)])


def test_demo_model_is_a_quarter_of_its_size_and_keeps_its_accuracy(converted: Converted) -> None:
    outcome, _, _ = converted
    assert {one.format for one in outcome.variants} == {"onnx", "tflite"}
    for one in judged_here(outcome)[2:]:
        assert one.kept
        assert one.bytes <= 0.30 * outcome.source.bytes
        assert one.drop is not None
        assert one.drop_low is not None
        assert one.drop_high is not None
        assert one.drop_low <= one.drop <= one.drop_high
        assert one.drop <= 0.5
        assert one.metric is not None
        assert one.metric.n >= 1000
        # Most of the work. The rest stays float where int8 would be slower or could not carry it, and says so.
        assert one.int8_macs is not None
        assert one.int8_macs > 0.5
        assert one.kept_float or one.int8_macs == 1.0
        assert all(kept.reason for kept in one.kept_float)
    assert (outcome.split.calibration, outcome.split.evaluation) == (100, 1400)


def test_document_has_every_field_that_the_interface_names(converted: Converted) -> None:
    document = json.loads(msgspec.json.encode(converted[0]))
    assert {"bundle", "name", "version", "source", "variants", "seconds", "peak_rss_mb"} <= set(document)
    assert set(document["source"]) == {"format", "bytes", "metric"}
    fields = "name format precision profile file bytes metric drop drop_low drop_high agreement int8_macs latency kept"
    assert {*fields.split(), "reason", "blame"} <= set(document["variants"][1])
    timing = "runtime version provider threads p50_ms p99_ms float_p50_ms"
    assert set(timing.split()) <= set(document["variants"][1]["latency"][0])
    assert set(document["source"]["metric"]) == {"name", "value", "low", "high", "n"}


def test_bundle_holds_what_a_device_needs_to_choose(converted: Converted) -> None:
    _, bundle, _ = converted
    manifest = bundle.manifest
    by_rank = [one.name for one in sorted(manifest.variants, key=lambda one: one.rank)]
    assert set(by_rank) >= {"float32-onnx", "int8-onnx-u8u8"}
    for variant in manifest.variants:
        assert variant.memory > 0
        assert 0 < variant.tolerance <= 0.3
    assert manifest.variant("int8-onnx-u8u8").isa == [["avx2"]]
    assert manifest.task == "classification"


def test_equal_inputs_give_equal_variant_files(
    converted: Converted, digits_onnx: Path, digits_npz: Path, tmp_path: Path
) -> None:
    _, first, _ = converted
    convert(Request(model=digits_onnx, out=tmp_path / "a.lep", data=digits_npz, benchmark=False))
    second = Bundle.open(tmp_path / "a.lep")
    for variant in second.manifest.variants:
        assert second.read(variant.file) == first.read(variant.file)


def test_budget_that_cannot_be_met_writes_the_report_alone(tmp_path: Path) -> None:
    net, data = fragile(tmp_path)
    before = set(tmp_path.iterdir())
    done = cli(net, "--data", data, "--budget", "1", "-o", tmp_path / "out.lep", "--json")
    assert done.exit_code == 3
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out.report.html"}
    document = json.loads(done.stdout)
    assert document["kept"] is False
    assert "the budget cannot be met" in document["reason"]
    refused = [one for one in document["variants"] if one["precision"] == "int8"]
    assert refused
    for one in refused:
        assert one["kept"] is False
        assert one["drop"] > 1
        assert "over the budget" in one["reason"]
        assert "thin" in one["blame"][0]["layer"]
    assert "budget cannot be met" in done.stderr


def test_old_bundle_survives_a_conversion_that_fails(tmp_path: Path) -> None:
    net, data = fragile(tmp_path)
    (tmp_path / "out.lep").write_bytes(b"the old one")
    assert cli(net, "--data", data, "-o", tmp_path / "out.lep").exit_code == 3
    assert (tmp_path / "out.lep").read_bytes() == b"the old one"


def test_nothing_to_quantise_keeps_float_and_says_so(tmp_path: Path) -> None:
    onnx.save(models.no_weights_net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32))
    done = cli(tmp_path / "net.onnx", "--data", tmp_path / "d.npz", "-o", tmp_path / "out.lep", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["kept"] is True
    assert "float alone is kept: nothing to quantise" in document["reason"]
    assert "float alone is kept" in done.stderr
    variants = Bundle.open(tmp_path / "out.lep").verify().manifest.variants
    assert {one.name for one in variants if not one.judged_with} == {"float32-onnx", "float32-tflite"}


def test_int8_that_is_not_faster_here_leaves_float_alone(
    digits_onnx: Path, held_out: digits.Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_int8(sessions: dict[str, object], *_: object, **__: object) -> dict[str, list[float]]:
        return {name: [1e-3 if "float32" in name else 2e-3] * 20 for name in sessions}

    monkeypatch.setattr(judging, "measure_latency", slow_int8)
    monkeypatch.setattr(judged, "host_flags", lambda: (frozenset({"avx2", "avx512_vnni"}), "x86_64"))
    samples = (held_out.images[:60], held_out.labels[:60])
    request = Request(model=digits_onnx, out=tmp_path / "o.lep", data=samples, budget=100)
    outcome = convert(request)
    assert outcome.exit_status == 0
    assert [one.name for one in judged_here(outcome) if one.kept] == ["float32-onnx", "float32-tflite"]
    assert outcome.reason.count("not faster than float here: 2.000 ms against 1.000 ms") == 2
    assert "int8-onnx-u8s8: " in outcome.reason
    assert "int8-tflite: " in outcome.reason
    kept = convert(dataclasses.replace(request, keep_all=True))
    assert all(one.kept for one in kept.variants)
    ranks = {one.name: one.rank for one in Bundle.open(tmp_path / "o.lep").manifest.variants}
    assert {ranks["float32-onnx"], ranks["float32-tflite"]} == {0, 1}


def test_without_data_weights_alone_are_int8_and_nothing_is_promised(digits_onnx: Path, tmp_path: Path) -> None:
    done = cli(digits_onnx, "-o", tmp_path / "o.lep", "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["source"]["metric"] is None
    made = [one for one in document["variants"][2:] if not one["judged_with"]]
    assert [one["name"] for one in made] == ["int8-dynamic-onnx", "int8-dynamic-tflite"]
    for one in made:
        assert one["precision"] == "int8-dynamic"
        assert one["bytes"] < 0.3 * document["source"]["bytes"]
        assert one["drop"] is None
    assert "no promise" in document["warnings"][0]
    assert "no promise" in done.stderr
    Bundle.open(tmp_path / "o.lep").verify()


UNPROVABLE = {
    "random": (helper.make_node("RandomNormalLike", ["x"], ["y"], "noise"), "random operator"),
    "NaN": (helper.make_node("Sqrt", ["x"], ["y"], "root"), "NaN or Inf on the golden inputs"),
}


@pytest.mark.parametrize(("node", "says"), UNPROVABLE.values(), ids=UNPROVABLE)
def test_a_source_that_nothing_can_be_proven_of_is_refused(node: onnx.NodeProto, says: str, tmp_path: Path) -> None:
    net = models.model([node], {}, inputs={"x": ["batch", 4]}, outputs={"y": ["batch", 4]})
    with pytest.raises(ModelError, match=says):
        convert(Request(model=net, out=tmp_path / "o.lep", benchmark=False))
    assert list(tmp_path.iterdir()) == []


def test_few_samples_are_said_to_prove_little(conv_onnx: Path, tmp_path: Path) -> None:
    data = labelled(tmp_path / "d.npz", 30)
    outcome = convert(Request(model=conv_onnx, out=tmp_path / "o.lep", data=data, budget=99, benchmark=False))
    assert not any("not proven" in text for text in outcome.warnings)
    outcome = convert(Request(model=conv_onnx, out=tmp_path / "o.lep", data=data, budget=8, benchmark=False))
    assert any("not proven with n=15" in text for text in outcome.warnings)


def test_calibration_data_of_its_own_leaves_all_of_data_to_evaluate(conv_onnx: Path, tmp_path: Path) -> None:
    data = labelled(tmp_path / "d.npz", 40)
    with np.load(data) as arrays:
        np.savez(tmp_path / "c.npz", x=np.concatenate([arrays["x"][:2], models.samples(10, seed=77)["x"]]))
    outcome = convert(
        Request(
            model=conv_onnx, out=tmp_path / "o.lep", data=data, calibration_data=tmp_path / "c.npz", budget=100,
            benchmark=False,
        )
    )  # fmt: skip
    assert (outcome.split.calibration, outcome.split.evaluation, outcome.split.left_out) == (12, 38, 2)
    assert any("2 samples equal a calibration sample" in text for text in outcome.warnings)


def test_no_evaluate_calibrates_and_promises_nothing(conv_onnx: Path, tmp_path: Path) -> None:
    data = labelled(tmp_path / "d.npz", 20)
    outcome = convert(Request(model=conv_onnx, out=tmp_path / "o.lep", data=data, evaluate=False, benchmark=False))
    assert outcome.split.calibration == 20
    assert outcome.variants[2].precision == "int8"
    assert outcome.variants[2].drop is None
    assert any("no promise" in text for text in outcome.warnings)


def test_image_folder_with_preprocessing_travels_in_the_bundle(conv_onnx: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(24):
        pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index % 4}_{index}.png")
    (tmp_path / "p.toml").write_text(
        '[[step]]\nop = "image.resize"\nsize = [8, 8]\n[[step]]\nop = "normalize"\nmean = [127.0]\nstd = [64.0]\n'
        '[[step]]\nop = "layout"\nto = "NCHW"\n'
    )
    (tmp_path / "l.txt").write_text("ant\nbee\ncat\ndog\n")
    done = cli(
        conv_onnx, "--data", tmp_path / "images", "--preprocess", tmp_path / "p.toml", "--labels", tmp_path / "l.txt",
        "--budget", "100", "-o", tmp_path / "o.lep", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    manifest = Bundle.open(tmp_path / "o.lep").manifest
    assert manifest.labels == ["ant", "bee", "cat", "dog"]
    assert len(manifest.preprocess) == 3
    assert json.loads(done.stdout)["split"] == {"calibration": 12, "evaluation": 12, "left_out": 0, "seed": 0}


def test_precision_16_halves_the_file_and_makes_no_int8(digits_onnx: Path, digits_npz: Path, tmp_path: Path) -> None:
    done = cli(
        digits_onnx, "--precision", "16", "--data", digits_npz, "-o", tmp_path / "o.lep", "--keep-all",
        "--no-benchmark", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    plain, lite, *halves = (one for one in json.loads(done.stdout)["variants"] if not one["judged_with"])
    assert [one["name"] for one in halves] == ["float16-onnx", "float16-tflite"]
    for one, whole in zip(halves, (plain, lite), strict=True):
        assert one["bytes"] < 0.55 * whole["bytes"]
        assert one["agreement"] > 0.99
        assert one["kept"]


def test_json_alone_stands_on_stdout(conv_onnx: Path, tmp_path: Path) -> None:
    done = cli(conv_onnx, "-o", tmp_path / "o.lep", "--no-benchmark", "--json")
    json.loads(done.stdout)
    assert "net.onnx" in done.stderr
    assert cli(conv_onnx, "-o", tmp_path / "o.lep", "--no-benchmark").stdout.startswith("net 1\n")


WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "format": (("--formats", "onnx,pb"), 2, "unknown format 'pb': give some of onnx, tflite"),
    "an unknown format": (("--formats", "coreml"), 2, "unknown format 'coreml'"),
    "4 bits": (("--precision", "4"), 1, "not yet: precision 4"),
    "auto": (("--precision", "auto"), 1, "not yet: precision auto"),
    "7 bits": (("--precision", "7"), 2, "unknown precision '7'"),
    "a method without data": (("--calibrate-method", "mse"), 2, "give --data to calibrate with"),
    "an unknown method": (("--calibrate-method", "best"), 2, "unknown calibration method 'best'"),
    "a name with a slash": (("--name", "a/b"), 2, "bundle name 'a/b' is not allowed"),
    "a version with a space": (("--version", "1 2"), 2, "version '1 2' is not allowed"),
    "a negative budget": (("--budget", "-1"), 2, "--budget -1"),
    "no number for a budget": (("--budget", "nan"), 2, "--budget nan"),
    "more points than there are": (("--budget", "101"), 2, "--budget 101: give points from 0 to 100"),
    "more points of a named metric": (("--budget", "101", "--metric", "cer"), 2, "--budget 101: give points"),
    "an endless budget": (
        ("--budget", "inf", "--metric", "mse"),
        2,
        "--budget inf: give 0 or more, in the unit of mse",
    ),
    "a negative error": (("--budget", "-1", "--metric", "mae"), 2, "--budget -1: give 0 or more"),
    "calibration of nothing": (("--calibration", "10"), 2, "need --data"),
    "a shape for no input": (("--shape", "z=1x2"), 2, "no such input"),
    "no shape": (("--shape", "x"), 2, "expected name="),
    "absent data": (("--data", "absent.npz"), 1, "absent.npz: No such file"),
    "data of no module": (("--data", "some.module:function"), 1, "some.module:function: cannot be imported"),
    "an absent preprocess.toml": (("--preprocess", "absent.toml"), 1, "absent.toml"),
    "absent labels": (("--labels", "absent.txt"), 1, "absent.txt"),
}


@pytest.mark.parametrize(("options", "status", "says"), WRONG.values(), ids=WRONG)
def test_wrong_options_get_one_line_and_write_nothing(
    options: tuple[str, ...], status: int, says: str, conv_onnx: Path, tmp_path: Path
) -> None:
    done = cli(conv_onnx, "-o", tmp_path / "o.lep", *options)
    assert done.exit_code == status
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 400
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [conv_onnx]


@pytest.mark.parametrize("metric", ["mse", "mae", "package.module:function"])
def test_a_budget_in_a_metrics_own_unit_has_no_upper_end(metric: str) -> None:
    check_budget(250.0, metric)
    with pytest.raises(UsageError, match="points from 0 to 100"):
        check_budget(250.0, "top1")


def test_labels_beyond_the_classes_get_one_line_and_write_nothing(conv_onnx: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=models.samples(20)["x"], y=np.full(20, 4))
    done = cli(conv_onnx, "--data", tmp_path / "d.npz", "-o", tmp_path / "o.lep")
    assert done.exit_code == 1
    assert "class 4, but the model has 4 classes" in done.stderr
    assert not (tmp_path / "o.lep").exists()


def test_out_that_cannot_be_written_is_one_line(conv_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli(conv_onnx, "-o", tmp_path / "file" / "o.lep", "--no-benchmark")
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    with pytest.raises(UsageError, match=r"ends in \.lep"):
        convert(Request(model=conv_onnx, out=tmp_path / "o.zip"))


def test_both_kinds_of_calibration_contradict(conv_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="either"):
        convert(Request(model=conv_onnx, out=tmp_path / "o.lep", data="d", calibration=3, calibration_data="c"))
    with pytest.raises(UsageError, match="never share a sample"):
        convert(Request(model=conv_onnx, out=tmp_path / "o.lep", data="d.npz", calibration_data="./d.npz"))


def test_bundle_name_comes_from_the_file_and_is_always_allowed() -> None:
    names = {"my net (2).onnx": "my-net--2-", "_.onnx": "model", "résumé.onnx": "r-sum-", "a.onnx": "a"}
    for file, name in names.items():
        assert Request(model=file, out=Path("o.lep")).bundle_name() == name


def test_a_host_without_vnni_leaves_the_saturating_form_out(
    conv_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters.quantize import artifacts

    monkeypatch.setattr(artifacts, "host_flags", lambda: (frozenset({"avx2"}), "x86_64"))
    request = Request(
        model=conv_onnx, out=tmp_path / "o.lep", data=labelled(tmp_path / "d.npz"), budget=100, benchmark=False
    )
    outcome = convert(request)
    assert [one.profile for one in outcome.variants if one.format == "onnx"] == ["ort-float", X86_AVX2.name]
    assert any(X86_VNNI.variant in text and "no VNNI" in text for text in outcome.warnings)


def test_where_int8_pays_on_other_kinds_of_cpu_alone_float_serves_here(
    digits_onnx: Path, held_out: digits.Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = msgspec.structs.replace(X86_VNNI, name="nobody", variant="int8-onnx-nobody")
    monkeypatch.setattr(judged, "native_static", lambda *_, **__: nobody)
    samples = (held_out.images[:60], held_out.labels[:60])
    request = Request(model=digits_onnx, out=tmp_path / "o.lep", data=samples, budget=100, benchmark=False)
    outcome = convert(request)
    assert any("int8 does not pay on this kind of CPU" in text for text in outcome.warnings)
    ranks = {one.name: one.rank for one in Bundle.open(tmp_path / "o.lep").manifest.variants}
    assert ranks["float32-onnx"] == 0
    assert len(ranks) > 1
