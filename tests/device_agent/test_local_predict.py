"""`le.Agent`: a bundle or a device's models, in the caller's process."""

import threading
from pathlib import Path

import numpy as np
import pytest

import lepton_edge as le
from device_agent import local
from device_agent.local import Agent
from device_agent.serve.errors import UnknownModelError
from device_agent.store.blobs import Blobs
from device_agent.store.journal import Committed, Journal, JournalFile
from device_agent.store.layout import Layout
from device_agent.store.slots import SlotRecord, Slots
from device_agent.trial import Trial, self_test
from lepton_edge.bundle import Bundle
from lepton_edge.errors import (
    BundleError,
    DataError,
    HashMismatchError,
    RuntimeUnavailableError,
    SelfTestError,
    UsageError,
)
from lepton_edge.wire.goal import Limits
from lepton_edge.wire.messages import Choice
from tests.device_agent.models import WEIGHTS, linear_bundle, linear_onnx, served, unpack

X = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
RIGHT, WRONG = linear_onnx(WEIGHTS), linear_onnx(-WEIGHTS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the child process, which test_trial tests."""

    def in_process(*arguments: object, limits: Limits) -> Trial:
        return self_test(*arguments, limits=limits, apart=False)

    monkeypatch.setattr(local, "self_test", in_process)


def test_the_public_name_loads_a_lep_file(tmp_path: Path) -> None:
    with le.Agent(linear_bundle().save(tmp_path / "m.lep")) as agent:
        np.testing.assert_allclose(agent.predict(X), X @ WEIGHTS, rtol=1e-5)
        np.testing.assert_allclose(agent.predict({"x": X}), X @ WEIGHTS, rtol=1e-5)
        np.testing.assert_allclose(agent.predict("linear", X.astype(np.float64)), X @ WEIGHTS, rtol=1e-5)
        assert agent.models["linear"].choice.p50_ms > 0


def test_an_unpacked_bundle_works_too(tmp_path: Path) -> None:
    agent = Agent(str(unpack(linear_bundle(), tmp_path / "bundle")))
    assert agent.predict(X).shape == (3, 3)


CHOICES = {
    "the first that passes": ({"int8-a": WRONG, "int8-b": RIGHT, "float-onnx": RIGHT}, 1, "int8-b"),
    "float at last": ({"int8-a": WRONG, "int8-b": b"no model", "float-onnx": RIGHT}, 2, "float-onnx"),
}


@pytest.mark.parametrize(("files", "most", "expected"), CHOICES.values(), ids=CHOICES)
def test_a_bundles_variant_is_chosen_as_on_a_device(
    tmp_path: Path, files: dict[str, bytes], most: int, expected: str
) -> None:
    agent = Agent(linear_bundle(files).save(tmp_path / "m.lep"), limits=Limits(max_candidates=most))
    assert agent.models["linear"].variant.name == expected


def test_of_one_runtime_the_best_ranked_alone_is_measured_as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def timed(folder: Path, manifest: object, variant: object, golden: object, *, limits: Limits) -> Trial:
        tried.append(variant.name)
        model = served()
        choice = Choice(variant=variant.name, runtime="onnxruntime", p50_ms=9.0 - len(tried), p99_ms=9, golden_ratio=0)
        return Trial(session=model.session, choice=choice)

    monkeypatch.setattr(local, "self_test", timed)
    bundle = linear_bundle({"int8-a": RIGHT, "int8-b": RIGHT, "int8-c": RIGHT})
    assert local.choose(bundle, limits=Limits(max_candidates=2)).choice.variant == "int8-a"
    assert tried == ["int8-a"]


def test_a_bundle_that_cannot_run_here_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="float-onnx needs a CPU with amx"):
        Agent(linear_bundle(isa=[["amx"]]).save(tmp_path / "m.lep"))
    with pytest.raises(SelfTestError, match=r"no variant passes here: .*golden test gave"):
        Agent(linear_bundle({"int8-a": WRONG}).save(tmp_path / "n.lep"))


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    folder = unpack(linear_bundle(), tmp_path / "bundle")
    (folder / "float-onnx.onnx").write_bytes(WRONG)
    with pytest.raises(HashMismatchError):
        Agent(folder)
    (tmp_path / "x.lep").write_bytes(b"no zip")
    with pytest.raises(BundleError, match="no bundle"):
        Agent(tmp_path / "x.lep")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="neither a bundle nor"):
        Agent(tmp_path / "empty")


def commit(root: Path, bundle: Bundle, name: str = "linear", *, removed_ms: int = 0) -> Layout:
    """What an agent's disk looks like after a deployment."""
    layout = Layout(root)
    layout.create()
    slots = Slots(layout.model(name))
    slots.create()
    for path, ref in bundle.manifest.files.items():
        (layout.blobs / ref.sha256).write_bytes(bundle.read(path))
    choice = Choice(variant="float-onnx", runtime="onnxruntime", p50_ms=1, p99_ms=1, golden_ratio=0)
    record = SlotRecord(deployment="d1", bundle=bundle.digest, files=[], choice=choice)
    blobs = Blobs(layout.blobs, layout.partial)
    slots.stage("b", record, bundle.manifest_bytes, dict(bundle.manifest.files), blobs)
    slots.switch("b")
    committed = Committed(deployment="d1", bundle=bundle.digest, version="1", slot="b", choice=choice)
    journal = Journal(model=name, committed=committed, removed_ms=removed_ms)
    JournalFile(layout.model(name), name).write(journal)
    return layout


def test_a_state_folders_committed_models_answer(tmp_path: Path) -> None:
    bundle = linear_bundle()
    layout = commit(tmp_path, bundle)
    layout.model("never-committed").mkdir()
    agent = Agent(tmp_path)
    assert list(agent.models) == ["linear"]
    assert agent.models["linear"].bundle == bundle.digest
    np.testing.assert_allclose(agent.predict(X), X @ WEIGHTS, rtol=1e-5)


def test_a_removed_model_does_not_answer(tmp_path: Path) -> None:
    commit(tmp_path, linear_bundle(), removed_ms=5)
    with pytest.raises(UnknownModelError):
        Agent(tmp_path).predict("linear", X)


def test_a_damaged_model_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = commit(tmp_path, linear_bundle())
    (layout.model("linear") / "slot-b" / "float-onnx.onnx").write_bytes(WRONG)
    assert Agent(tmp_path).models == {}
    assert "linear is left out" in caplog.text


def test_calls_that_make_no_sense_get_one_clear_line(tmp_path: Path) -> None:
    agent = Agent(linear_bundle().save(tmp_path / "m.lep"))
    with pytest.raises(UnknownModelError, match=r"no model 'other' here; there are \['linear'\]"):
        agent.predict("other", X)
    for arguments in ((), ("linear",), (X, "linear"), ("linear", X, X)):
        with pytest.raises(UsageError, match=r"say predict\(model, inputs\)"):
            agent.predict(*arguments)
    with pytest.raises(DataError, match="has shape"):
        agent.predict(X[:, :2])


def test_threads_may_share_an_agent(tmp_path: Path) -> None:
    agent = Agent(linear_bundle().save(tmp_path / "m.lep"))
    wrong: list[object] = []

    def ask() -> None:
        answers = [agent.predict(X) for _ in range(20)]
        wrong.extend(y for y in answers if not np.allclose(y, X @ WEIGHTS, rtol=1e-4, atol=1e-5))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
