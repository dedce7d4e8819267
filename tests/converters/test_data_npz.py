"""An .npz is believed only after it was checked, and its samples stay on disk."""

import io
import os
import resource
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.data import npz, open_data
from converters.data.stored import Descriptor, StoredRows
from lepton_edge.bundle.manifest import ModelSignature, TensorSpec
from lepton_edge.errors import DataError

SIGNATURE = ModelSignature(
    inputs=[TensorSpec(name="x", dtype="float32", shape=["batch", "n"])],
    outputs=[
        TensorSpec(name="a", dtype="float32", shape=["batch", 2]),
        TensorSpec(name="b", dtype="float32", shape=["batch", 3]),
    ],
)
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def header(shape: tuple[int, ...], *, dtype: str = "<f4") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()


def zipped(path: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2"])
def test_samples_come_back_as_they_were_stored(
    save: Callable[..., None], order: str, dtype: str, tmp_path: Path
) -> None:
    save(tmp_path / "d.npz", x=np.asarray(X, dtype, order=order), y=np.arange(4))
    data = open_data(tmp_path / "d.npz", SIGNATURE)
    for index in (3, 0, 2):
        np.testing.assert_array_equal(data.inputs(index)["x"], X[index : index + 1])
        assert data.inputs(index)["x"].dtype == np.float32
        assert data.target(index) == index


TARGETS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "classes": ({"y": np.array([0, 1, 1, 0])}, "classes"),
    "numbers": ({"y": np.array([0.5, 1.0, -1.0, 0.0])}, "values"),
    "below zero": ({"y": np.array([0, 1, -1, 0])}, "values"),
    "rows of numbers": ({"y": np.ones((4, 2), np.float32)}, "values"),
    "several classes at once": ({"y": np.array([[0, 1], [1, 1], [0, 0], [1, 0]])}, "values"),
    "for each output": ({"y_a": np.ones((4, 2)), "y_b": np.zeros((4, 3))}, "values"),
    "for one output": ({"y_b": np.zeros((4, 3))}, "values"),
    "texts": ({"y": np.array(["one", "two", "three", "four"])}, "texts"),
    "none": ({}, "none"),
}


@pytest.mark.parametrize(("arrays", "kind"), TARGETS.values(), ids=TARGETS)
def test_y_may_be_classes_numbers_or_texts(arrays: dict[str, np.ndarray], kind: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, **arrays)
    data = open_data(tmp_path / "d.npz", SIGNATURE)
    assert data.targets == kind
    assert (data.labels is not None) == (kind == "classes")
    got = data.target(2)
    if kind == "values":
        assert isinstance(got, dict)
        for name, one in got.items():
            np.testing.assert_array_equal(one, arrays.get("y", arrays.get(f"y_{name}"))[2:3])  # type: ignore[index]
    else:
        assert got == (arrays["y"][2] if arrays else None)


def test_names_as_labels_are_class_names_where_these_are_known(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=np.array(["cat", "ant", "cat", "cat"]))
    data = open_data(tmp_path / "d.npz", SIGNATURE, class_names=["ant", "cat"])
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1, 1]
    with pytest.raises(DataError, match="y holds 'ant', which is none of the 1 labels"):
        open_data(tmp_path / "d.npz", SIGNATURE, class_names=["cat"])


HOSTILE: dict[str, tuple[dict[str, bytes], str]] = {
    "a trillion numbers promised": ({"x.npy": header((10**6, 10**6)) + b"abcd"}, "truncated, or not"),
    "more than 64 bits promised": ({"x.npy": header((2**40, 2**40)) + b"abcd"}, "truncated, or not"),
    "less than is there": ({"x.npy": header((1, 3)) + bytes(400)}, "not the"),
    "a header that is code": (
        {"x.npy": b"\x93NUMPY\x01\x00\x30\x00" + b"{'descr': __import__('os').system('x')}".ljust(48)},
        "no .npz",
    ),
    "pickled objects": ({"x.npy": header((1,), dtype="|O") + bytes(8)}, "pickled objects"),
    "no header": ({"x.npy": b"hello"}, "no .npz"),
    "empty member": ({"x.npy": b""}, "no .npz"),
    "a future version": ({"x.npy": b"\x93NUMPY\x09\x00" + bytes(100)}, "no .npz"),
    "many members": ({f"{i}.npy": header((0,)) for i in range(300)}, "300 members, at most 256"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
@pytest.mark.parametrize(("members", "says"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_members_are_refused_by_name(members: dict[str, bytes], says: str, method: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "d.npz", members, method=method)
    with pytest.raises(DataError, match=says) as caught:
        open_data(path, SIGNATURE)
    assert "d.npz" in str(caught.value)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_UNPACKED", 10_000_000)
    body = header((1, 5_000_000)) + bytes(20_000_000)
    path = zipped(tmp_path / "d.npz", {"x.npy": body}, method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"would unpack to 20000\d+ bytes, at most 10000000.*numpy\.savez"):
        open_data(path, SIGNATURE)


def test_a_size_that_lies_is_found_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "d.npz", {"x.npy": header((1, 3)) + bytes(12)})
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02")
    data[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**31)  # compressed and plain size in the list
    path.write_bytes(data)
    with pytest.raises(DataError, match="truncated"):
        open_data(path, SIGNATURE)


def test_a_long_list_of_members_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_DIRECTORY", 1000)
    path = zipped(tmp_path / "d.npz", {f"{i}.npy": b"" for i in range(100)})
    with pytest.raises(DataError, match="its list of members has"):
        open_data(path, SIGNATURE)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header((0,)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", header((0,)))
    with pytest.raises(DataError, match="different names"):
        open_data(tmp_path / "d.npz", SIGNATURE)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 700), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_file_gives_samples_or_a_data_error(tmp_path: Path, place: int, noise: bytes, packed: bool) -> None:
    save = np.savez_compressed if packed else np.savez
    save(tmp_path / "d.npz", x=X, y=np.arange(4))
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[place : place + len(noise)] = noise
    (tmp_path / "d.npz").write_bytes(data)
    with suppress(DataError):
        assert len(open_data(tmp_path / "d.npz", SIGNATURE)) >= 1


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    rows = 64
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive, archive.open("x.npy", "w", force_zip64=True) as out:
        out.write(header((rows, 500_000)))
        for index in range(rows):
            out.write(np.full(500_000, index, np.float32).tobytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = open_data(tmp_path / "d.npz", SIGNATURE)
    assert [float(data.inputs(index)["x"][0, 7]) for index in (0, 63, 5)] == [0.0, 63.0, 5.0]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 80_000  # kilobytes; the file has 128 MB


def test_a_file_that_shrinks_meanwhile_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(40))
    rows = StoredRows(Descriptor.opened(tmp_path / "raw"), 0, np.dtype("<f4"), (10,))
    os.truncate(tmp_path / "raw", 10)
    with pytest.raises(DataError, match=r"raw: 30 bytes are missing"):
        rows[0:10]
    assert rows[1:2].tolist() == [0.0]


def test_in_memory_data_that_are_no_arrays_are_refused() -> None:
    for data, says in (
        (([[1.0], [1.0, 2.0]], [0, 1]), "x: is no array"),
        ({"x": np.array([object()])}, "x: is a ndarray, which is no array of numbers"),
        (3.5, "data is a float: give a path"),
    ):
        with pytest.raises(DataError, match=says):
            open_data(data, SIGNATURE)
