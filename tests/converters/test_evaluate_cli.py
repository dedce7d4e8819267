"""`evaluate`: every variant paired with float, and none that would be wrong in silence."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper

import lepton_edge as le
from converters import subject
from converters.outcome import Outcome
from lepton_edge.bundle import Bundle
from lepton_edge.cli import main
from lepton_edge.demo import digits
from lepton_edge.errors import DataError, RuntimeUnavailableError
from tests.converters import models

Converted = tuple[Outcome, Bundle, Path]
NO_VNNI = (frozenset({"avx2"}), "x86_64")


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *(str(argument) for argument in arguments)])


def by_name(document: dict) -> dict[str, dict]:
    return {one["name"]: one for one in document["variants"]}


def test_bundle_is_judged_by_its_own_figures_again(converted: Converted, digits_npz: Path) -> None:
    _, bundle, path = converted
    done = cli(path, "--data", digits_npz, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"bundle", "name", "version", "source", "variants", "seconds", "peak_rss_mb"} <= set(document)
    assert document["split"]["evaluation"] == document["source"]["metric"]["n"] == 1500
    found = by_name(document)
    assert set(found) == {one.name for one in bundle.manifest.variants}
    for one in found.values():
        assert one["drop_low"] <= one["drop"] <= one["drop_high"]
        assert one["metric"]["low"] < one["metric"]["value"] < one["metric"]["high"]
        assert one["skipped"] == ""
    assert next(iter(found)) == "float32-onnx"
    assert found["float32-onnx"]["drop"] == 0


def test_a_file_is_one_variant(conv_onnx: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **models.samples(20))
    done = cli(conv_onnx, "--data", tmp_path / "d.npz")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[0] == "net"
    assert "agreement 100.00 %" in done.stdout


def test_bundle_brings_its_preprocessing_and_labels(converted: Converted, tmp_path: Path) -> None:
    """Class names of folders mean what the bundle's labels say, and images go through the bundle's steps."""
    from PIL import Image

    from converters.convert import convert
    from converters.request import Request

    onnx.save(models.conv_net(), tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    for index in range(12):
        folder = tmp_path / "images" / ("ant", "bee", "cat", "dog")[index % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    (tmp_path / "p.toml").write_text(
        '[[step]]\nop = "image.resize"\nsize = [8, 8]\n[[step]]\nop = "normalize"\nmean = [127.0]\nstd = [64.0]\n'
        '[[step]]\nop = "layout"\nto = "NCHW"\n'
    )
    (tmp_path / "l.txt").write_text("ant\nbee\ncat\ndog\n")
    out = tmp_path / "o.lep"
    convert(
        Request(
            model=tmp_path / "net.onnx", out=out, preprocess=tmp_path / "p.toml", labels=tmp_path / "l.txt",
            benchmark=False,
        )
    )  # fmt: skip
    done = cli(out, "--data", tmp_path / "images", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["source"]["metric"]["name"] == "top1"


def test_what_this_cpu_would_compute_wrongly_is_skipped_with_the_reason(
    converted: Converted, digits_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bundle, path = converted
    if not any(one.name == "int8-onnx-u8s8" for one in bundle.manifest.variants):
        pytest.skip("the host has no VNNI, so no U8S8 variant is made here")
    monkeypatch.setattr(subject, "host_flags", lambda: NO_VNNI)
    found = by_name(json.loads(cli(path, "--data", digits_npz, "--json").stdout))
    refused = found["int8-onnx-u8s8"]
    assert refused["metric"] is None
    assert refused["drop"] is None
    assert "avx512_vnni or avx_vnni" in refused["skipped"]
    assert found["int8-onnx-u8u8"]["metric"] is not None
    assert "skipped: it needs avx512_vnni" in cli(path, "--data", digits_npz).stdout


def test_a_quantised_file_on_a_cpu_that_saturates_is_refused_by_name(
    converted: Converted, digits_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bundle, _ = converted
    signed = next((one for one in bundle.manifest.variants if one.name == "int8-onnx-u8s8"), None)
    if signed is None:
        pytest.skip("the host has no VNNI, so no U8S8 variant is made here")
    monkeypatch.setattr(subject, "host_flags", lambda: NO_VNNI)
    file = bundle.extract(signed.file, tmp_path / "signed.onnx")
    with pytest.raises(RuntimeUnavailableError, match="no VNNI: it would compute wrongly"):
        le.evaluate(file, digits_npz)


def test_a_variant_for_another_machine_is_evaluated_only_where_it_computes_right(
    converted: Converted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, bundle, _ = converted
    variant = bundle.manifest.variant("int8-onnx-u8u8")
    entry = subject.Entry(variant, tmp_path / "absent.onnx", 1)
    monkeypatch.setattr(subject, "host_flags", lambda: (frozenset({"asimddp"}), "aarch64"))
    assert "made for x86_64" in subject.why_skipped(entry, timing=True)
    assert subject.why_skipped(entry, timing=False) == ""


def test_python_takes_models_in_memory(conv_onnx: Path, digits_onnx: Path, held_out: digits.Digits) -> None:
    model = le.load_model(conv_onnx)
    outcome = le.evaluate(model, models.samples(15))
    assert outcome.source.metric is not None
    assert (outcome.source.metric.name, outcome.source.metric.value) == ("agreement", 1.0)
    small = le.quantize_model(digits_onnx)
    found = le.evaluate(small, held_out.images[:50]).variants
    assert {one.name for one in found} == set(small.variants)
    assert found[0].name == "float32-onnx"
    for one in found[1:]:
        assert one.agreement is not None
        assert one.agreement > 0.9
    with pytest.raises(DataError, match="needs class labels"):
        le.evaluate(model, models.samples(15), metric="top1")


WRONG = {
    "an absent file": (("absent.lep", "--data", "d.npz"), 1, "absent.lep"),
    "no data": (("{net}",), 2, "--data"),
    "absent data": (("{net}", "--data", "absent.npz"), 1, "absent.npz"),
    "an unknown metric": (("{net}", "--data", "{data}", "--metric", "best"), 2, "unknown metric"),
}


@pytest.mark.parametrize(("arguments", "status", "says"), WRONG.values(), ids=WRONG)
def test_wrong_use_gets_one_line(
    arguments: tuple[str, ...], status: int, says: str, conv_onnx: Path, tmp_path: Path
) -> None:
    data = tmp_path / "d.npz"
    np.savez(data, **models.samples(5))
    done = cli(*(text.format(net=conv_onnx, data=data) for text in arguments))
    assert done.exit_code == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_bundle_is_refused(converted: Converted, digits_npz: Path, tmp_path: Path) -> None:
    whole = converted[2].read_bytes()
    at = whole.index(b"ai.onnx") if b"ai.onnx" in whole else len(whole) // 2
    (tmp_path / "bad.lep").write_bytes(whole[: at - 1] + bytes([whole[at - 1] ^ 0xFF]) + whole[at:])
    done = cli(tmp_path / "bad.lep", "--data", digits_npz)
    assert done.exit_code == 1
    assert "bad.lep" in done.stderr


def test_a_model_that_is_fed_its_own_state_is_judged_over_sequences(tmp_path: Path) -> None:
    """y = 0.5 h + x w decides by all that came before, so labels from whole sequences are right only with the state."""
    rng = np.random.default_rng(0)
    weights = {"half": np.float32([[0.9]] * 1), "w": rng.standard_normal((3, 4)).astype(np.float32)}
    nodes = [
        helper.make_node("Mul", ["h", "half"], ["kept"], "keep"),
        helper.make_node("MatMul", ["x", "w"], ["new"], "new"),
        helper.make_node("Add", ["kept", "new"], ["h_out"], "state"),
        helper.make_node("Mul", ["h_out", "half"], ["y"], "scores"),
    ]
    net = models.model(
        nodes, weights, inputs={"x": ["batch", 3], "h": ["batch", 4]},
        outputs={"y": ["batch", 4], "h_out": ["batch", 4]},
    )  # fmt: skip
    onnx.save(net, tmp_path / "net.onnx")
    x = rng.standard_normal((40, 7, 3)).astype(np.float32)
    state = np.zeros((40, 4), np.float32)
    for step in range(7):
        state = 0.9 * state + x[:, step] @ weights["w"]
    np.savez(tmp_path / "d.npz", x=x, y=state.argmax(axis=1))
    done = cli(tmp_path / "net.onnx", "--data", tmp_path / "d.npz", "--state", "h_out=h", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["source"]["metric"]["value"] == 1.0
