"""A device that has tflite-runtime alone finds something in every bundle that it can run."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

import lepton_edge as le
from converters.convert import convert
from converters.golden import LIMIT
from converters.request import Request
from device_agent.core.choice import Device, candidates
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.golden import distance
from lepton_edge.runtimes import open_session
from lepton_edge.runtimes._tflite import BUILTIN, XNNPACK
from lepton_edge.wire.goal import Limits
from tests.converters.quantised import conv, net, square

OLD = Device("x86_64", frozenset(), 0, {"tflite-runtime": "2.14.0"})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("twins") / "net.lep"
    samples = np.random.default_rng(0).standard_normal((24, 8, 10, 10)).astype(np.float32)
    model = net([conv("x", "a"), conv("a", "y")], {"w": square()})
    with pytest.warns(UserWarning, match="not proven|no promise|float alone"):
        le.quantize_model(le.load_model(model), data=samples, precision=16).save(path)
    return Bundle.open(path)


def test_a_tflite_file_serves_both_runtimes_and_is_in_the_bundle_once(bundle: Bundle) -> None:
    of_file: dict[str, set[str]] = {}
    for variant in bundle.manifest.variants:
        of_file.setdefault(variant.file, set()).add(variant.runtime)
    assert of_file["float32-tflite.tflite"] == {"litert", "tflite-runtime"}
    assert len(bundle.manifest.files) == len(of_file) + 1, "the files of the variants, and golden.npz"


def test_the_old_runtime_is_offered_its_variants_alone(bundle: Bundle) -> None:
    offered = candidates(bundle.manifest, OLD, limits=Limits())
    assert offered
    assert {one.runtime for one in offered} == {"tflite-runtime"}
    assert all(one.speed == "unmeasured" and not one.latency and one.judged_with for one in offered)
    assert offered[-1].name == "float32-tflite-2.14"


def test_an_older_release_than_the_file_asks_for_is_offered_nothing(bundle: Bundle) -> None:
    ancient = Device("x86_64", frozenset(), 0, {"tflite-runtime": "1.0.0"})
    assert not candidates(bundle.manifest, ancient, limits=Limits())


def test_golden_outputs_are_there_for_each_twin(bundle: Bundle, tmp_path: Path) -> None:
    golden = bundle.golden()
    for variant in bundle.manifest.variants:
        if variant.runtime == "tflite-runtime":
            own = golden.expected(variant.name)
            twin = golden.expected(variant.name.removesuffix("-2.14"))
            assert all(np.array_equal(own[name], twin[name]) for name in twin)


def test_a_twin_is_proven_on_the_kernels_of_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where XNNPACK and TFLite's own kernels differ by more than one test allows for both."""
    monkeypatch.setattr("converters.golden.LIMIT", 1e-12)
    path = tmp_path / "net.lep"
    samples = np.random.default_rng(0).standard_normal((24, 8, 10, 10)).astype(np.float32)
    model = net([conv("x", "a"), conv("a", "b"), conv("b", "y")], {"w": square()})
    convert(Request(model=model, out=path, data=samples, budget=100, keep_all=True, benchmark=False))
    made = Bundle.open(path)
    golden, signature = made.golden(), made.manifest.signature
    (tmp_path / "net.tflite").write_bytes(made.read("int8-tflite.tflite"))
    given = {}
    for kernels in (XNNPACK, BUILTIN):
        one = msgspec.structs.replace(made.manifest.variant("int8-tflite"), provider=kernels)
        session = open_session(tmp_path / "net.tflite", signature, one)
        given[kernels] = session.run_samples(golden.inputs)
    assert distance(given[BUILTIN], given[XNNPACK]) > 0, "the two must differ for this to show anything"
    assert distance(golden.expected("int8-tflite"), given[XNNPACK]) == 0
    assert distance(golden.expected("int8-tflite-2.14"), given[BUILTIN]) == 0
    twin = made.manifest.variant("int8-tflite-2.14")
    assert twin.tolerance == LIMIT, "kernels so far apart say nothing of how far a third set is"
    assert made.manifest.variant("int8-tflite").tolerance < LIMIT
