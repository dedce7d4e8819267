"""The state folder: goal, boot number, journal and slots, whole or damaged."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.core.deployment import begin
from device_agent.store import documents
from device_agent.store.blobs import Blobs
from device_agent.store.boot import BootCounter
from device_agent.store.goal import load_goal, save_goal
from device_agent.store.journal import Committed, Journal, JournalFile
from device_agent.store.layout import Layout, is_in_use, locked
from device_agent.store.slots import SlotRecord, Slots, other
from device_agent.trust import OperatorKeys
from device_agent.updater.model import Model
from lepton_edge.errors import HashMismatchError, SignatureError, StorageError
from lepton_edge.wire.enrolment import Enrolment, new_key
from lepton_edge.wire.goal import Goal, sign_goal
from lepton_edge.wire.messages import Choice
from lepton_edge.wire.signatures import public_key
from tests.bundles import blobs_of, entry, make_bundle

KEY = Ed25519PrivateKey.generate()
OPERATOR = Ed25519PrivateKey.generate()
DAMAGE = {"empty": b"", "truncated": b'{"v":1,', "rubbish": b"\x00\xff" * 50, "other version": b'{"v":9,"boot":1}'}
CHOICE = Choice(variant="float-onnx", runtime="onnxruntime", p50_ms=1, p99_ms=1, golden_ratio=0)


def enrolment(generation: int = 1) -> Enrolment:
    return Enrolment(
        fleet="f",
        device="d",
        generation=generation,
        key=new_key(),
        broker="mqtt://h:1",
        goal_keys=[public_key(KEY)],
        operator_keys=[public_key(OPERATOR)],
    )


def signed(generation: int = 1, counter: int = 5) -> bytes:
    return sign_goal(KEY, Goal(fleet="f", device="d", generation=generation, counter=counter, models={}))


def test_the_boot_number_rises_with_each_process_and_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "boot.json"
    assert BootCounter(path).begin(1000) == 1000
    assert BootCounter(path).begin(1000) == 1001
    assert BootCounter(path).begin(500) == 1002
    counter = BootCounter(path)
    counter.begin(9000)
    assert counter.overtake(50_000) == 50_001
    assert BootCounter(path).begin(0) == 50_002


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_boot_number_starts_from_the_clock(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "boot.json"
    path.write_bytes(damage)
    assert BootCounter(path).begin(1000) == 1000
    assert (tmp_path / "boot.json.damaged").exists()


def test_the_goal_comes_back_whole_with_its_counter(tmp_path: Path) -> None:
    path = tmp_path / "goal.json"
    assert load_goal(path, enrolment()) is None
    save_goal(path, signed())
    held = load_goal(path, enrolment())
    assert held is not None
    assert (held.goal.counter, held.payload) == (5, signed())


@pytest.mark.parametrize("damage", [*DAMAGE.values(), signed()[:-40]], ids=[*DAMAGE, "cut"])
def test_a_damaged_goal_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "goal.json"
    path.write_bytes(damage)
    assert load_goal(path, enrolment()) is None
    assert not path.exists()


def test_a_goal_of_an_earlier_enrolment_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "goal.json"
    save_goal(path, signed(generation=1))
    assert load_goal(path, enrolment(generation=2)) is None


def test_the_journal_keeps_the_last_deployment_and_the_committed_one(tmp_path: Path) -> None:
    file = JournalFile(tmp_path, "m")
    assert file.read() is None
    journal = Journal(
        model="m",
        current=begin("d2", "b" * 64),
        committed=Committed(deployment="d1", bundle="a" * 64, version="1", slot="a", choice=CHOICE),
    )
    file.write(journal)
    assert JournalFile(tmp_path, "m").read() == journal


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_journal_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "journal.json").write_bytes(damage)
    assert JournalFile(tmp_path, "m").read() is None
    assert JournalFile(tmp_path, "m").read() is None


def test_a_journal_of_another_model_is_not_used(tmp_path: Path) -> None:
    JournalFile(tmp_path, "m").write(Journal(model="m"))
    assert JournalFile(tmp_path, "n").read() is None


def staged(tmp_path: Path) -> tuple[Slots, SlotRecord]:
    bundle = make_bundle()
    layout = Layout(tmp_path)
    layout.create()
    for digest, data in blobs_of(bundle).items():
        (layout.blobs / digest).write_bytes(data)
    slots = Slots(layout.model("linear"))
    slots.create()
    files = dict(bundle.manifest.files)
    record = SlotRecord(
        deployment="d1", bundle=bundle.digest, files=[ref.sha256 for ref in files.values()], choice=CHOICE
    )
    slots.stage("a", record, bundle.manifest_bytes, files, Blobs(layout.blobs, layout.partial))
    return slots, record


def test_a_slot_is_staged_and_switched(tmp_path: Path) -> None:
    slots, record = staged(tmp_path)
    assert slots.active() is None
    slots.switch("a")
    assert slots.active() == "a"
    assert slots.read("a") == record
    assert slots.reachable() == {record.bundle, *record.files}
    manifest = slots.manifest("a", record.bundle)
    slots.check_file("a", "float-onnx.onnx", manifest.files["float-onnx.onnx"])
    slots.switch(None)
    assert slots.active() is None
    slots.discard("a")
    assert slots.reachable() == set()


def test_a_damaged_slot_is_noticed(tmp_path: Path) -> None:
    slots, record = staged(tmp_path)
    manifest = slots.manifest("a", record.bundle)
    file = slots.folder("a") / "float-onnx.onnx"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-1] + b"x")
    with pytest.raises(HashMismatchError, match="damaged"):
        slots.check_file("a", "float-onnx.onnx", manifest.files["float-onnx.onnx"])
    with pytest.raises(HashMismatchError, match="not the manifest"):
        slots.manifest("a", "0" * 64)


@pytest.mark.parametrize("damage", [*DAMAGE.values(), b'{"v":1,"slot":"../x"}'])
def test_a_damaged_pointer_means_no_live_slot(tmp_path: Path, damage: bytes) -> None:
    slots, _ = staged(tmp_path)
    slots.switch("a")
    (tmp_path / "models" / "linear" / "active.json").write_bytes(damage)
    assert slots.active() is None


def test_without_a_journal_the_live_slot_speaks_for_itself(tmp_path: Path) -> None:
    slots, record = staged(tmp_path)
    slots.switch("a")
    committed = Model(tmp_path / "models" / "linear", "linear").journal.committed
    assert committed is not None
    assert (committed.bundle, committed.slot, committed.deployment) == (record.bundle, "a", "d1")


def test_the_slots_take_turns() -> None:
    assert [other(slot) for slot in (None, "a", "b")] == ["a", "b", "a"]


def test_one_agent_per_state_folder(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path)
    with locked(tmp_path):
        assert is_in_use(tmp_path)
        with pytest.raises(StorageError, match="in use by another agent"), locked(tmp_path):
            pass
    assert not is_in_use(tmp_path)


def test_leftovers_of_a_crash_are_deleted(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    (tmp_path / ".goal.json.abcd.tmp").write_bytes(b"half")
    layout.create()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_state_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        Layout(tmp_path / "file").create()


def test_a_document_that_cannot_be_set_aside_is_still_no_crash(tmp_path: Path) -> None:
    (tmp_path / "journal.json").mkdir()
    assert documents.load(tmp_path / "journal.json", Journal) is None


def test_a_manifest_of_another_name_or_key_is_refused() -> None:
    bundle = make_bundle("linear")
    trust = OperatorKeys([public_key(OPERATOR)])
    right = entry(bundle, OPERATOR, "d1")
    assert trust.verify_manifest("linear", right, bundle.manifest_bytes).name == "linear"
    with pytest.raises(SignatureError, match="signed for model 'linear'"):
        trust.verify_manifest("other", right, bundle.manifest_bytes)
    with pytest.raises(SignatureError, match="not trusted"):
        trust.verify_manifest("linear", entry(bundle, KEY, "d1"), bundle.manifest_bytes)
    with pytest.raises(SignatureError, match="signature is wrong"):
        trust.verify_manifest("linear", right, bundle.manifest_bytes + b" ")
