"""Bundles: round trips, equal bytes, and what hostile or damaged ones get."""

import io
import json
import struct
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_edge import Bundle
from lepton_edge.bundle import golden as golden_module
from lepton_edge.bundle.binding import check_inputs, from_file, to_file
from lepton_edge.bundle.golden import Golden, distance, read_golden
from lepton_edge.bundle.manifest import Binding, Manifest, ModelSignature, TensorSpec, Variant, is_safe_path
from lepton_edge.errors import BundleError, DataError, HashMismatchError
from lepton_edge.wire.chunks import blob_ref

SPEC_IN = TensorSpec(name="x", dtype="float32", shape=["batch", 2])
SPEC_OUT = TensorSpec(name="y", dtype="float32", shape=["batch", 2])
VARIANT = Variant(
    name="float32-onnx",
    file="float.onnx",
    format="onnx",
    precision="float32",
    runtime="onnxruntime",
    profile="ort-float",
    inputs=[Binding(name="x", tensor="x", dtype="float32")],
    outputs=[Binding(name="y", tensor="y", dtype="float32")],
    rank=0,
    tolerance=1e-3,
)
MANIFEST = Manifest(
    name="m", version="1", signature=ModelSignature(inputs=[SPEC_IN], outputs=[SPEC_OUT]), files={}, variants=[VARIANT]
)
ARRAY = np.arange(32, dtype=np.float32).reshape(16, 2)


def _files() -> dict[str, bytes]:
    golden = Golden({"x": ARRAY}, {"y": ARRAY}, {"float32-onnx": {"y": ARRAY}})
    return {"float.onnx": b"model" * 30_000, "golden.npz": golden.to_bytes()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return Bundle.create(MANIFEST, _files()).save(tmp_path / "m-1.lep")


def test_a_bundle_comes_back_from_its_file_and_from_its_folder(saved: Path, tmp_path: Path) -> None:
    opened = Bundle.open(saved).verify()
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(tmp_path / "folder")
    unpacked = Bundle.open(tmp_path / "folder").verify()
    assert opened.digest == unpacked.digest == Bundle.create(MANIFEST, _files()).digest
    assert opened.read("float.onnx") == _files()["float.onnx"]
    assert unpacked.save(tmp_path / "again.lep").read_bytes() == saved.read_bytes()


def test_a_golden_comes_back_and_equal_arrays_are_equal_bytes(saved: Path) -> None:
    golden = Bundle.open(saved).golden()
    assert golden.to_bytes() == _files()["golden.npz"]
    np.testing.assert_array_equal(golden.expected("float32-onnx")["y"], ARRAY)
    with pytest.raises(BundleError, match="no outputs of variant"):
        golden.expected("other")


@given(data=st.data())
def test_a_truncated_bundle_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("truncated")
    whole = Bundle.create(MANIFEST, _files()).save(folder / "m.lep").read_bytes()
    (folder / "cut.lep").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BundleError, match=r"cut\.lep"):
        Bundle.open(folder / "cut.lep").verify()


@given(data=st.data())
def test_a_damaged_bundle_never_verifies_as_another(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    original = Bundle.create(MANIFEST, _files())
    damaged = bytearray(original.save(folder / "m.lep").read_bytes())
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    (folder / "bad.lep").write_bytes(damaged)
    try:
        opened = Bundle.open(folder / "bad.lep").verify()
    except BundleError:
        return
    # The flip hit a byte without meaning (a date, an attribute), or made another valid name or number of the manifest:
    # then the identity, which is what is signed, differs.
    assert opened.digest != original.digest or opened.manifest == original.manifest


def _with_entry(saved: Path, name: str, content: bytes = b"x", *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return saved


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../b", "a\\..\\b", "C:evil", ".hidden", "a//b", "a/./b", "x" * 300]
)
def test_a_path_that_escapes_is_refused_before_anything_is_read(saved: Path, name: str) -> None:
    with pytest.raises(BundleError, match="escape"):
        Bundle.open(_with_entry(saved, name))


@given(st.text(max_size=30))
def test_a_safe_path_stays_below_its_folder(path: str) -> None:
    if is_safe_path(path):
        assert (Path("/base") / path).resolve().is_relative_to("/base/")


def test_a_zip_bomb_is_refused(saved: Path) -> None:
    bomb = _with_entry(saved, "bomb", bytes(50_000_000), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="stored"):
        Bundle.open(bomb)


def test_an_entry_that_claims_more_than_the_file_holds_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, at + 20, 2**31, 2**31)
    saved.write_bytes(data)
    with pytest.raises(BundleError):
        Bundle.open(saved).verify()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["float.onnx", "extra.bin"])
def test_a_second_or_unnamed_entry_is_refused(saved: Path, name: str) -> None:
    with pytest.raises(BundleError):
        Bundle.open(_with_entry(saved, name))


def test_a_wrong_hash_is_named(tmp_path: Path) -> None:
    bundle = Bundle.create(MANIFEST, _files())
    files = _files() | {"float.onnx": b"MODEL" * 30_000, "manifest.json": bundle.manifest_bytes}
    with zipfile.ZipFile(tmp_path / "bad.lep", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(HashMismatchError, match=r"float\.onnx: sha256 .* expected"):
        Bundle.open(tmp_path / "bad.lep").verify()


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.lep").write_text("hello")
    for path in (tmp_path / "text.lep", tmp_path / "absent.lep"):
        with pytest.raises(BundleError, match=path.name):
            Bundle.open(path)


def test_a_link_in_a_folder_is_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(tmp_path / "folder")
    (tmp_path / "folder" / "float.onnx").unlink()
    (tmp_path / "folder" / "float.onnx").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="link"):
        Bundle.open(tmp_path / "folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "name"),
        ({"variants": []}, "one or more"),
        ({"variants": [VARIANT, VARIANT]}, "own name"),
        ({"variants": [msgspec.structs.replace(VARIANT, file="other")]}, "not listed"),
        ({"variants": [msgspec.structs.replace(VARIANT, tolerance=0.0)]}, "tolerance"),
        ({"variants": [msgspec.structs.replace(VARIANT, inputs=[])]}, "bindings"),
        (
            {
                "variants": [
                    msgspec.structs.replace(VARIANT, inputs=[Binding(name="x", tensor="x", dtype="int8", scale=0.0)])
                ]
            },
            "scale",
        ),
        (
            {
                "variants": [
                    msgspec.structs.replace(
                        VARIANT, inputs=[Binding(name="x", tensor="x", dtype="int8", permutation=[0, 0])]
                    )
                ]
            },
            "permutation",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.create(msgspec.structs.replace(MANIFEST, **change), _files())


def test_a_manifest_of_a_later_version_is_refused_by_number(saved: Path, tmp_path: Path) -> None:
    document = json.loads(Bundle.open(saved).manifest_bytes) | {"v": 2}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="version 2"):
        Bundle.open(tmp_path / "folder")


@given(st.binary(max_size=500))
def test_a_random_golden_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="golden"):
        read_golden(data)


def test_a_pickled_or_oversized_golden_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    np.savez(out, **{"input/x": np.array([object()], dtype=object)})
    with pytest.raises(BundleError, match="golden"):
        read_golden(out.getvalue())
    monkeypatch.setattr(golden_module, "MAX_UNPACKED", 100)
    with pytest.raises(BundleError, match="unpack"):
        read_golden(_files()["golden.npz"])


def test_the_distance_is_the_rms_over_the_spread() -> None:
    host = {"y": np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)}
    assert distance(host, host) == 0.0
    shifted = {"y": host["y"] + np.float32(0.5)}
    assert distance(host, shifted) == pytest.approx(0.5 / np.std(host["y"]))
    worst = {"y": host["y"], "z": np.array([1, 2, 3, 4])}
    assert distance(worst, {"y": shifted["y"], "z": np.array([1, 2, 3, 5])}) == pytest.approx(
        max(0.25, 0.5 / np.std(host["y"]))
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_infinitely_far(value: float) -> None:
    host = {"y": np.array([0.0, 1.0], np.float32)}
    assert distance(host, {"y": np.array([0.0, value], np.float32)}) == float("inf")


def test_missing_misshapen_and_constant_outputs_are_judged() -> None:
    host = {"y": np.ones(4, np.float32)}
    assert distance(host, {}) == float("inf")
    assert distance(host, {"y": np.ones(3, np.float32)}) == float("inf")
    assert distance(host, {"y": np.ones(4, np.float32)}) == 0.0
    assert distance(host, {"y": np.full(4, 1.001, np.float32)}) == float("inf")


@given(st.integers(-127, 127), st.floats(0.001, 10), st.permutations([0, 1, 2]), st.integers(0, 1000))
def test_a_binding_there_and_back_is_within_half_a_step(zero: int, scale: float, order: list[int], seed: int) -> None:
    binding = Binding(name="x", tensor="t", dtype="int8", permutation=order, scale=scale, zero_point=zero)
    steps = np.random.default_rng(seed).integers(-128, 128, (2, 3, 4))
    real = ((steps - zero) * scale).astype(np.float32)
    filed = to_file(binding, real)
    assert filed.dtype == np.int8
    assert filed.shape == tuple(np.array((2, 3, 4))[order])
    np.testing.assert_allclose(from_file(binding, filed, "float32"), real, atol=scale * 0.51)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3), np.float32), "shape"),
        (np.zeros(2, np.float32), "shape"),
        (np.zeros((1, 2), np.complex64), "complex64"),
    ],
)
def test_inputs_that_do_not_fit_are_named(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_inputs(MANIFEST.signature, {"x": array})


def test_names_and_shared_sizes_are_checked() -> None:
    signature = ModelSignature(inputs=[SPEC_IN, msgspec.structs.replace(SPEC_IN, name="z")], outputs=[SPEC_OUT])
    with pytest.raises(DataError, match=r"\['x'\]"):
        check_inputs(signature, {"x": ARRAY})
    with pytest.raises(DataError, match="'z' has shape"):
        check_inputs(signature, {"x": ARRAY, "z": ARRAY[:3]})


def test_a_blob_reference_of_every_file_is_in_the_manifest(saved: Path) -> None:
    bundle = Bundle.open(saved)
    assert bundle.manifest.files == {name: blob_ref(data) for name, data in _files().items()}
