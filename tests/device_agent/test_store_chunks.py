"""Chunks and blobs on a disk that loses power, fills up and rots."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.store.blobs import Blobs
from device_agent.store.chunks import PartialBlob
from lepton_edge.errors import DiskFullError, HashMismatchError
from lepton_edge.wire.chunks import CHUNK_SIZE, BlobRef, blob_ref

DATA = os.urandom(3 * CHUNK_SIZE + 1234)
REF = blob_ref(DATA)


def chunk(index: int, data: bytes = DATA) -> bytes:
    return data[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]


def blobs_in(folder: Path) -> Blobs:
    for name in ("blobs", "partial"):
        (folder / name).mkdir(exist_ok=True)
    return Blobs(folder / "blobs", folder / "partial")


def fill(blobs: Blobs, ref: BlobRef = REF, data: bytes = DATA) -> None:
    with blobs.partial(ref) as partial:
        for index in range(len(ref.chunks)):
            partial.put(index, chunk(index, data))
        partial.flush()
    assert blobs.complete(ref)


def test_a_forged_chunk_is_not_taken(tmp_path: Path) -> None:
    with PartialBlob(tmp_path, REF) as partial:
        assert not partial.put(0, os.urandom(CHUNK_SIZE))
        assert not partial.put(0, chunk(1))
        assert not partial.put(0, b"")
        assert not partial.put(4, chunk(0))
        assert not partial.put(-1, chunk(3))
        assert partial.put(0, chunk(0))
        assert not partial.put(0, chunk(0))
        assert partial.lacking == [False, True, True, True]


def test_what_was_flushed_survives_and_the_rest_is_asked_for_again(tmp_path: Path) -> None:
    with PartialBlob(tmp_path, REF) as partial:
        partial.put(1, chunk(1))
        partial.flush()
        partial.put(2, chunk(2))
    with PartialBlob(tmp_path, REF) as partial:
        assert partial.lacking == [True, False, True, True]


def test_data_are_on_disk_before_the_bitmap_that_claims_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        events.append("sync " + Path(f"/proc/self/fd/{handle}").readlink().suffix)
        real_fsync(handle)

    def replace(self: Path, target: Path) -> Path:
        events.append("claim")
        return real_replace(self, target)

    with PartialBlob(tmp_path, REF) as partial:
        partial.put(0, chunk(0))
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        partial.flush()
    assert events.index("sync .data") < events.index("claim")


def test_a_false_claim_is_found_on_restart_and_only_it_is_dropped(tmp_path: Path) -> None:
    with PartialBlob(tmp_path, REF) as partial:
        for index in range(3):
            partial.put(index, chunk(index))
        partial.flush()
        rot(partial.path, CHUNK_SIZE + 5)
    with PartialBlob(tmp_path, REF) as partial:
        assert partial.lacking == [False, True, False, True]


def rot(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0xFF]))


@pytest.mark.parametrize("damage", [b"", b"{", b'{"v":1,"blob":"x","have":"!"}', b"\xff" * 40])
def test_a_damaged_bitmap_costs_a_download_and_no_crash(tmp_path: Path, damage: bytes) -> None:
    with PartialBlob(tmp_path, REF) as partial:
        partial.put(0, chunk(0))
        partial.flush()
    (tmp_path / f"{REF.sha256}.have").write_bytes(damage)
    with PartialBlob(tmp_path, REF) as partial:
        assert all(partial.lacking)


def test_a_truncated_data_file_loses_its_claims(tmp_path: Path) -> None:
    with PartialBlob(tmp_path, REF) as partial:
        for index in range(4):
            partial.put(index, chunk(index))
        partial.flush()
    os.truncate(tmp_path / f"{REF.sha256}.data", CHUNK_SIZE)
    with PartialBlob(tmp_path, REF) as partial:
        assert partial.lacking == [False, True, True, True]


def test_a_complete_blob_is_moved_into_place_once_its_hash_is_right(tmp_path: Path) -> None:
    blobs = blobs_in(tmp_path)
    assert not blobs.complete(REF)
    assert blobs.missing_bytes(REF) == REF.size
    fill(blobs)
    assert blobs.holds(REF)
    assert blobs.read(REF) == DATA
    assert blobs.missing_bytes(REF) == 0
    assert list((tmp_path / "partial").iterdir()) == []


def test_an_empty_blob_needs_no_chunk(tmp_path: Path) -> None:
    blobs = blobs_in(tmp_path)
    fill(blobs, blob_ref(b""), b"")
    assert blobs.read(blob_ref(b"")) == b""


def test_a_rotten_blob_gives_up_its_wrong_chunks_only(tmp_path: Path) -> None:
    blobs = blobs_in(tmp_path)
    fill(blobs)
    rot(blobs.path(REF), 2 * CHUNK_SIZE)
    assert not blobs.complete(REF)
    assert blobs.missing_bytes(REF) == CHUNK_SIZE
    with blobs.partial(REF) as partial:
        assert partial.lacking == [False, False, True, False]
        partial.put(2, chunk(2))
        partial.flush()
    assert blobs.complete(REF)


def test_a_reference_that_contradicts_itself_is_a_permanent_error(tmp_path: Path) -> None:
    blobs = blobs_in(tmp_path)
    liar = BlobRef(sha256="0" * 64, size=REF.size, chunks=REF.chunks)
    with blobs.partial(liar) as partial:
        for index in range(4):
            partial.put(index, chunk(index))
        partial.flush()
    with pytest.raises(HashMismatchError, match="its chunks are right"):
        blobs.complete(liar)


def test_a_full_disk_is_a_clear_error_and_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with PartialBlob(tmp_path, REF) as partial:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(DiskFullError, match="no space left"):
                partial.put(0, chunk(0))
        assert all(partial.lacking)
        assert partial.put(0, chunk(0))


def test_a_link_shares_the_bytes_and_a_copy_serves_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = blobs_in(tmp_path)
    fill(blobs)
    blobs.link(REF, tmp_path / "one" / "file")
    assert (tmp_path / "one" / "file").stat().st_ino == blobs.path(REF).stat().st_ino

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    blobs.link(REF, tmp_path / "two" / "file")
    assert (tmp_path / "two" / "file").read_bytes() == DATA


def test_collect_deletes_what_nobody_reaches(tmp_path: Path) -> None:
    blobs = blobs_in(tmp_path)
    other = blob_ref(b"kept")
    fill(blobs)
    fill(blobs, other, b"kept")
    with blobs.partial(blob_ref(b"half")) as partial:
        partial.put(0, b"half")
        partial.flush()
    assert blobs.collect({other.sha256}) >= REF.size
    assert not blobs.holds(REF)
    assert blobs.holds(other)
    assert list((tmp_path / "partial").iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(4)), cut=st.integers(0, 4), junk=st.binary(max_size=64))
def test_any_order_with_a_restart_in_between_gives_the_blob(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cut: int, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("blob")
    blobs = blobs_in(folder)
    for part in (order[:cut], order[cut:]):
        with blobs.partial(REF) as partial:
            for index in part:
                assert not partial.put(index, junk)
                partial.put(index, chunk(index))
            partial.flush()
    assert blobs.complete(REF)
    assert blobs.read(REF) == DATA
