"""Files are whole or absent; a full disk is one clear error."""

import errno
import os
from pathlib import Path

import pytest

from lepton_edge import durable
from lepton_edge.errors import DiskFullError, StorageError


def test_a_failed_write_leaves_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write(path, b"old")

    def half() -> None:
        with durable.replacing(path) as file:
            file.write(b"new")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        half()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    durable.write(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"no space left for .*file"):
        durable.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="below"):
        durable.write(tmp_path / "file" / "below", b"x")


def test_data_and_name_are_synced_before_the_rename_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append("rename"), replace(self, to))[1])
    durable.write(tmp_path / "file", b"x")
    assert events == ["fsync", "rename", "fsync"]


def test_removing_a_folder_is_whole_and_leftovers_go(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"x")
    durable.remove(folder)
    durable.remove(folder)
    (tmp_path / ".x.1234.tmp").mkdir()
    (tmp_path / ".y.1234.tmp").write_bytes(b"")
    durable.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
