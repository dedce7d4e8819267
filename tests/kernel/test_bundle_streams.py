"""Bundles of files that lie on disk: the same bytes as from memory, read a piece at a time, and never a wrong one."""

from pathlib import Path

import pytest

from lepton_edge.bundle import Bundle
from lepton_edge.errors import BundleError, HashMismatchError
from lepton_edge.wire.chunks import CHUNK_SIZE
from tests.kernel.test_bundle import MANIFEST, _files


@pytest.fixture
def on_disk(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"loose-{name}" for name in _files()}
    for name, data in _files().items():
        paths[name].write_bytes(data)
    return paths


def test_files_on_disk_and_in_memory_give_equal_bundles(on_disk: dict[str, Path], tmp_path: Path) -> None:
    memory, disk = Bundle.create(MANIFEST, _files()), Bundle.create(MANIFEST, on_disk)
    assert disk.digest == memory.digest
    one, two = memory.save(tmp_path / "one.lep"), disk.save(tmp_path / "two.lep")
    assert one.read_bytes() == two.read_bytes()
    again = Bundle.open(one).save(tmp_path / "again.lep")
    assert again.read_bytes() == one.read_bytes()


def test_pieces_are_small_and_add_up(on_disk: dict[str, Path], tmp_path: Path) -> None:
    bundle = Bundle.open(Bundle.create(MANIFEST, on_disk).save(tmp_path / "m.lep"))
    for name, data in _files().items():
        pieces = list(bundle.pieces(name))
        assert max(map(len, pieces)) <= CHUNK_SIZE
        assert b"".join(pieces) == data == bundle.extract(name, tmp_path / "out").read_bytes()
    with pytest.raises(BundleError, match="not in the manifest"):
        list(bundle.pieces("other"))


def test_a_file_that_changes_under_a_bundle_is_never_written(on_disk: dict[str, Path], tmp_path: Path) -> None:
    bundle = Bundle.create(MANIFEST, on_disk)
    (tmp_path / "m.lep").write_bytes(b"the old one")
    path = on_disk["float.onnx"]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(HashMismatchError, match=r"float\.onnx"):
        bundle.save(tmp_path / "m.lep")
    with pytest.raises(HashMismatchError, match=r"float\.onnx"):
        bundle.extract("float.onnx", tmp_path / "out")
    assert (tmp_path / "m.lep").read_bytes() == b"the old one"
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*.tmp"))
