"""ONNX and TFLite of one model: what is made, what is compared with what, and what is said where one is missing."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import lepton_edge as le
from converters import golden, host
from converters.api import benchmark
from converters.artifact import Artifact
from converters.convert import convert
from converters.decide import Verdict
from converters.golden import Proof
from converters.graph.operators import is_half, is_quantised
from converters.graph.stored import with_float_weights
from converters.importers import import_model
from converters.judged import Judged, follow_the_native, for_others_alone, ranked, without_wrong_formats
from converters.outcome import Outcome
from converters.quantize import artifacts
from converters.quantize.artifacts import How, make_artifacts
from converters.quantize.profiles import (
    FLOAT,
    FLOAT_TFLITE,
    STATIC,
    X86_VNNI,
    Profile,
    host_flags,
    native_static,
    spare,
)
from converters.request import Request
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.manifest import Latency, Precision
from lepton_edge.cli import main
from lepton_edge.errors import ModelError, UnsupportedOperatorError, UsageError
from lepton_edge.runtimes import installed, open_session
from tests.converters import models

Converted = tuple[Outcome, Bundle, Path]
LITE = next(one for one in STATIC if one.runtime == "litert")
OLD = next(one for one in STATIC if one.runtime == "tflite-runtime")


def unlowered_net() -> onnx.ModelProto:
    """Two operators that TFLite lacks around a layer."""
    nodes = [
        helper.make_node("Det", ["x"], ["d"], "first"),
        helper.make_node("Reshape", ["d", "shape"], ["r"], "flat"),
        helper.make_node("MatMul", ["r", "w"], ["m"], "layer"),
        helper.make_node("Exp", ["x"], ["e"], "other"),
        helper.make_node("Det", ["e"], ["d2"], "second"),
        helper.make_node("Add", ["m", "d2"], ["y"], "sum"),
    ]
    weights = {"w": np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32), "shape": np.array([-1, 1])}
    return models.model(nodes, weights, inputs={"x": [1, 4, 4]}, outputs={"y": [1, 64]})


def test_one_command_makes_both_formats(converted: Converted) -> None:
    outcome, bundle, _ = converted
    names = {one.name for one in bundle.manifest.variants}
    assert {"float32-onnx", "float32-tflite", "int8-tflite"} <= names
    assert outcome.not_made == {}
    for variant in bundle.manifest.variants:
        assert variant.file == f"{variant.name.removesuffix('-2.14')}.{variant.format}"
        assert (
            variant.format == {"onnxruntime": "onnx", "litert": "tflite", "tflite-runtime": "tflite"}[variant.runtime]
        )
    timed = {one.name: one.latency[0] for one in bundle.manifest.variants if one.latency}
    assert timed["int8-tflite"].float_p50_ms == timed["float32-tflite"].p50_ms
    assert timed["float32-tflite"].runtime == "litert"


def test_float_tflite_computes_what_float_onnx_does(converted: Converted) -> None:
    _, bundle, _ = converted
    told = bundle.golden()
    for name, want in told.float_outputs.items():
        got = told.expected("float32-tflite")[name]
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_a_variant_of_a_runtime_that_is_not_here_names_what_stood_in(converted: Converted) -> None:
    _, bundle, _ = converted
    for variant in bundle.manifest.variants:
        absent = variant.runtime not in installed()
        assert bool(variant.judged_with) is absent
        if absent:
            assert variant.speed == "unmeasured"
            assert not variant.latency


def test_without_lowering_onnx_is_made_and_every_node_is_named(tmp_path: Path) -> None:
    onnx.save(unlowered_net(), tmp_path / "net.onnx")
    words = ["convert", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "o.lep"), "--no-benchmark", "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert {one["format"] for one in document["variants"]} == {"onnx"}
    assert all(node in document["not_made"]["tflite"] for node in ("Det", "first", "second"))
    assert "no tflite files" in done.stderr
    assert "Det" in (tmp_path / "o.report.html").read_text()
    done = CliRunner().invoke(main, [*words, "--formats", "tflite"])
    assert done.exit_code == 1
    assert "Det" in done.stderr


def test_tflite_alone_is_judged_against_float_onnx_that_is_not_shipped(digits_onnx: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((30, 1, 28, 28)).astype(np.float32)
    request = Request(
        model=digits_onnx, out=tmp_path / "o.lep", data=images, budget=100, formats=("tflite",), keep_all=True
    )
    outcome = convert(request)
    manifest = Bundle.open(tmp_path / "o.lep").verify().manifest
    assert {one.format for one in outcome.variants} == {one.format for one in manifest.variants} == {"tflite"}
    found = {one.name: one for one in outcome.variants}
    assert found["float32-tflite"].agreement == 1.0
    assert found["int8-tflite"].agreement is not None
    with pytest.raises(UsageError, match="no onnx variant"):
        le.quantize_model(digits_onnx, formats=["tflite"]).save(tmp_path / "m.onnx")


def test_a_float_file_that_computes_something_else_takes_its_format_away(
    digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = golden.prove

    def lying(artifact: Artifact, *given: object) -> Proof:
        proof = plain(artifact, *given)  # type: ignore[arg-type]
        wrong = {name: 1.01 * array for name, array in proof.outputs.items()}
        return proof._replace(outputs=wrong) if artifact.profile == FLOAT_TFLITE else proof

    monkeypatch.setattr("converters.judging.prove", lying)
    outcome = convert(Request(model=digits_onnx, out=tmp_path / "o.lep", benchmark=False))
    assert {one.format for one in outcome.variants if one.kept} == {"onnx"}
    assert "float32-tflite does not compute what the model does" in outcome.not_made["tflite"]
    with pytest.raises(ModelError, match="float32-tflite does not compute"):
        convert(Request(model=digits_onnx, out=tmp_path / "p.lep", benchmark=False, formats=("tflite",)))
    assert not (tmp_path / "p.lep").exists()


def test_a_saved_file_keeps_the_sources_border_and_a_native_one_need_not(conv_onnx: Path, tmp_path: Path) -> None:
    x = models.samples(60)["x"]
    model = le.load_model(conv_onnx)
    small = le.quantize_model(model, data=x, budget=100)
    for saved, limit in ((model, 1e-5), (small, 0.1)):
        path = saved.save(tmp_path / "m.tflite")
        want = model.predict(x)
        got = np.concatenate([run_bare(path, x[i : i + 1]) for i in range(len(x))])
        assert np.abs(got - want).max() <= limit * np.abs(want).max()
    native = border(small.save(tmp_path / "n.tflite", layout="native"))
    assert native["x"][1] == (1, 8, 8, 3)
    assert border(tmp_path / "m.tflite") == {"x": ("float32", (1, 3, 8, 8))}
    with pytest.raises(UsageError, match="unknown layout"):
        small.save(tmp_path / "n.tflite", layout="nhwc")  # type: ignore[arg-type]


def run_bare(path: Path, x: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def border(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path), num_threads=1).get_input_details()
    return {one["name"]: (np.dtype(one["dtype"]).name, tuple(one["shape"].tolist())) for one in details}


def test_a_float_model_saves_as_a_bundle_of_both_formats(conv_onnx: Path, tmp_path: Path) -> None:
    model = le.load_model(conv_onnx)
    path = model.save(tmp_path / "float.lep")
    assert {one.name for one in Bundle.open(path).manifest.variants} >= {"float32-onnx", "float32-tflite"}
    x = models.samples(3)["x"]
    with le.Agent(path, runtimes=["litert"]) as agent:
        np.testing.assert_allclose(agent.predict(x), model.predict(x), rtol=1e-4, atol=1e-5)


def test_a_float_bundle_says_why_it_lacks_a_format(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"no tflite files: .*'first'.*'second'"):
        path = le.load_model(unlowered_net()).save(tmp_path / "float.lep")
    assert [one.name for one in Bundle.open(path).manifest.variants] == ["float32-onnx"]


def test_a_variant_of_a_float_model_must_be_its_own(conv_onnx: Path, tmp_path: Path) -> None:
    model = le.load_model(conv_onnx)
    assert model.save(tmp_path / "x.tflite", variant="float32-tflite").is_file()
    with pytest.raises(UsageError, match="no variant 'int8-tflite' of format tflite; there is float32-tflite"):
        model.save(tmp_path / "y.tflite", variant="int8-tflite")
    assert not (tmp_path / "y.tflite").exists()


def test_a_first_axis_of_a_given_size_is_fixed_and_one_of_1_is_the_batch(tmp_path: Path) -> None:
    net = models.conv_net()
    assert le.load_model(net, shapes={"x": [1, 3, 8, 8]}).signature.inputs[0].shape == ["batch", 3, 8, 8]
    model = le.load_model(net, shapes={"x": [6, 3, 8, 8]})
    assert model.signature.inputs[0].shape == [6, 3, 8, 8]
    again = le.load_model(model.save(tmp_path / "six.tflite"))
    assert again.signature.inputs[0].shape == [6, 3, 8, 8]
    x = models.samples(6)["x"]
    np.testing.assert_allclose(again.predict(x), le.load_model(net).predict(x), rtol=1e-4, atol=1e-5)


def test_save_names_an_operator_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match="Det"):
        le.load_model(unlowered_net()).save(tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*its weights are float16")
def test_a_tflite_source_that_is_quantised_is_kept_in_both_formats(conv_onnx: Path, tmp_path: Path) -> None:
    x = models.samples(60)["x"]
    made = le.quantize_model(conv_onnx, data=x, budget=100).save(tmp_path / "q.tflite")
    again = le.load_model(made)
    outcome = convert(Request(model=made, out=tmp_path / "o.lep", data=x, budget=100, benchmark=False))
    assert [one.name for one in outcome.variants if one.kept][:2] == ["int8-onnx", "int8-tflite"]
    assert outcome.variants[1].agreement == 1.0
    again.save(tmp_path / "copy.tflite")
    np.testing.assert_array_equal(run_bare(tmp_path / "copy.tflite", x[:1]), run_bare(made, x[:1]))


def test_stored_weights_are_float_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps, scale = rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8), rng.uniform(0.1, 1, 8).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"], "stored", axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
    ]
    weights = {"w8": steps, "s": scale, "z": np.zeros(8, np.int8)}
    net = models.model(nodes, weights, inputs={"x": ["batch", 3, 8, 8]}, outputs={"y": ["batch", 8, 6, 6]})
    assert not is_quantised(net)
    (weight,) = with_float_weights(net).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), steps * scale.reshape(8, 1, 1, 1))
    assert len(net.graph.node) == 2
    made = make_artifacts(import_model(net), None, tmp_path, how=How(formats=("onnx", "tflite")))
    assert made.artifacts[0].precision == "float32"


def test_float16_that_is_cast_at_load_is_float32() -> None:
    nodes = [
        helper.make_node("Cast", ["w16"], ["w"], "stored", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["y"], "layer"),
    ]
    net = models.model(nodes, {"w16": np.eye(4, dtype=np.float16)}, inputs={"x": [1, 4]}, outputs={"y": [1, 4]})
    assert not is_half(net)
    assert is_half(models.half_net())


def test_a_form_that_cannot_be_said_is_left_out_with_a_warning(
    conv_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = artifacts.write_artifact

    def refusing(model: object, profile: Profile, *given: object, **more: object) -> Artifact:
        if profile.variant == "float16-tflite":
            raise UnsupportedOperatorError("no TFLite for Cast", operator="Cast")
        return plain(model, profile, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(artifacts, "write_artifact", refusing)
    made = make_artifacts(import_model(conv_onnx), None, tmp_path, how=How(precision="16", formats=("onnx", "tflite")))
    assert [one.name for one in made.artifacts] == ["float32-onnx", "float32-tflite", "float16-onnx"]
    assert list(made.warnings) == ["float16-tflite left out: no TFLite for Cast"]


def test_each_runtime_has_its_own_native_profile() -> None:
    flags, machine = frozenset({"avx2", "avx512_vnni"}), "x86_64"
    assert native_static(flags=flags, machine=machine) is X86_VNNI
    assert native_static("litert", flags=flags, machine=machine) is LITE
    assert native_static("tflite-runtime", flags=flags, machine=machine) is OLD
    assert native_static("openvino", flags=flags, machine=machine) is None


def test_a_file_for_tflites_own_kernels_is_proven_timed_and_served_by_them(
    conv_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = installed()["litert"]
    asked: list[tuple[str, str | None]] = []
    load = runtime.load

    def watched(file: Path, *, threads: int, provider: str | None = None) -> object:
        asked.append((file.stem, provider))
        return load(file, threads=threads, provider=provider)

    monkeypatch.setattr(runtime, "load", watched)
    data, out = models.samples(80), tmp_path / "net.lep"
    request = Request(model=conv_onnx, out=out, data=data["x"], budget=100.0, formats=("tflite",), keep_all=True)
    outcome = convert(request)
    name = "int8-tflite-builtin"
    # XNNPACK may be asked for by name, to see how far apart the two are; never by default.
    used = [provider for file, provider in asked if file == name]
    assert "builtin" in used
    assert None not in used
    assert None in {provider for file, provider in asked if file == "int8-tflite"}
    (timed,) = next(one for one in outcome.variants if one.name == name).latency
    assert timed.provider == "builtin"
    bundle = Bundle.open(out)
    assert {one.name: one.provider for one in bundle.manifest.variants}[name] == "builtin"
    assert bundle.manifest.variant("int8-tflite").provider == ""
    asked.clear()
    benchmark(bundle, runtimes=["litert"], rounds=1)
    assert {provider for file, provider in asked if file == name} == {"builtin"}
    asked.clear()
    variant = bundle.manifest.variant(name)
    session = open_session(bundle.extract(variant.file, tmp_path / "x.tflite"), bundle.manifest.signature, variant)
    assert asked == [("x", "builtin")]
    want = bundle.golden().expected(name)["y"]
    assert np.abs(session.run_samples(bundle.golden().inputs)["y"] - want).max() <= 1e-6


def test_a_second_kernel_set_of_a_runtime_is_spare() -> None:
    assert [one.name for one in STATIC if spare(one)] == ["litert-builtin"]
    assert not spare(FLOAT_TFLITE)


def one(profile: Profile, *, p50: float = 1.0, plain: float = 2.0, native: bool = True, kept: bool = True) -> Judged:
    latency = Latency(
        runtime=profile.runtime, version="1", provider="CPU", threads=1, p50_ms=p50, p99_ms=p50, float_p50_ms=plain
    )
    precision: Precision = "float32" if profile in (FLOAT, FLOAT_TFLITE) else "int8"
    artifact = Artifact(profile, precision, Path(profile.variant), 1)
    proof = Proof({"y": np.arange(4, dtype=np.float32)}, 0.0, 0.05)
    verdict = Verdict(kept=kept, reason="" if kept else "not faster")
    return Judged(artifact, proof, verdict, [latency], native=native)


def test_ranks_put_what_pays_first_and_the_faster_format_before_the_other() -> None:
    plain, lite = one(FLOAT, p50=2.0), one(FLOAT_TFLITE, p50=3.0, plain=3.0)
    both = [plain, lite, one(X86_VNNI, p50=1.0), one(LITE, p50=0.5, plain=3.0)]
    assert [each.name for each in ranked(both)] == ["int8-tflite", "int8-onnx-u8s8", "float32-tflite", "float32-onnx"]
    slow = [plain, lite, one(X86_VNNI, p50=4.0), one(LITE, p50=0.5, plain=3.0)]
    assert [each.name for each in ranked(slow)] == ["int8-tflite", "float32-tflite", "float32-onnx", "int8-onnx-u8s8"]


def test_what_does_not_pay_in_one_format_says_nothing_of_the_other() -> None:
    judged = [one(FLOAT), one(FLOAT_TFLITE), one(X86_VNNI, kept=False), one(LITE), one(OLD, native=False)]
    kept = {each.name: each.verdict.kept for each in follow_the_native(judged)}
    assert kept["int8-tflite"]
    assert kept["int8-tflite-2.14"]
    judged = [one(FLOAT), one(FLOAT_TFLITE), one(X86_VNNI), one(LITE, kept=False), one(OLD, native=False)]
    found = {each.name: each.verdict for each in follow_the_native(judged)}
    assert found["int8-onnx-u8s8"].kept
    assert found["int8-tflite-2.14"].reason == "follows int8-tflite: not faster"


def test_int8_for_others_alone_is_told_by_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.judged.host_flags", lambda: (frozenset({"avx2", "avx512_vnni"}), "x86_64"))
    judged = [one(FLOAT), one(FLOAT_TFLITE), one(X86_VNNI), one(OLD, native=False)]
    assert for_others_alone(judged) == ["tflite"]


def test_another_format_of_a_quantised_source_may_differ_by_rounding_alone() -> None:
    source = one(FLOAT)
    near, far = one(FLOAT_TFLITE), one(FLOAT_TFLITE)
    for judged, shift in ((near, 0.1), (far, 3.0)):
        object.__setattr__(judged.artifact, "precision", "int8")
        judged.proof.outputs["y"] = judged.proof.outputs["y"] + np.float32([shift, -shift, shift, -shift])
    assert without_wrong_formats([source, near], source.proof)[1].verdict.kept
    verdict = without_wrong_formats([source, far], source.proof)[1].verdict
    assert not verdict.kept
    assert "does not compute what the model does" in verdict.reason


def test_a_runtime_of_the_same_format_stands_in() -> None:
    assert host.stand_in("litert") == ""
    if "tflite-runtime" not in installed():
        assert host.stand_in("tflite-runtime").startswith("litert ")
        assert host.host_runtime("tflite-runtime").name == "litert"


def test_this_host_is_known_to_be_of_a_kind() -> None:
    flags, machine = host_flags()
    assert native_static("litert", flags=flags, machine=machine) is LITE
