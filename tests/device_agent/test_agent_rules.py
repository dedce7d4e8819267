"""What the agent does with goals, good and bad, over a real broker; the old model answers throughout."""

import errno
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.store.goal import load_goal
from device_agent.store.slots import Slots
from fleet.broker.process import BrokerProcess
from lepton_edge import durable
from lepton_edge.typed import decode, encode
from lepton_edge.wire.goal import Limits, Probation, Settings, SignedGoal
from lepton_edge.wire.messages import State
from tests.bundles import GOLDEN_X, answer, entry, make_bundle
from tests.device_agent.manager_twin import ManagerTwin, RunningAgent, becomes_true, running_agent

DEVICE = "dev-1"
V1 = make_bundle(version="1", padding=150_000)
V2 = make_bundle(version="2", padding=150_000)


@asynccontextmanager
async def world(broker: BrokerProcess, state: Path) -> AsyncIterator[tuple[ManagerTwin, RunningAgent]]:
    """A twin, and an agent on which version 1 is committed as deployment d1."""
    twin = ManagerTwin(broker.url)
    async with twin.connected(), running_agent(twin.enrol(DEVICE), state) as agent:
        await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
        await twin.until_committed(DEVICE, "linear", "d1")
        yield twin, agent


async def assert_answers(agent: RunningAgent, version: str) -> None:
    np.testing.assert_allclose(await agent.infer("linear", GOLDEN_X), answer(version, GOLDEN_X), rtol=1e-5)


async def test_a_new_version_takes_over(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        await assert_answers(agent, "1")
        await twin.want(DEVICE, linear=twin.entry(V2, "d2"))
        report = await twin.until_committed(DEVICE, "linear", "d2")
        assert (report.serving, report.version) == (V2.digest, "2")
        await assert_answers(agent, "2")


async def test_a_model_that_computes_something_else_never_goes_live(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        await twin.want(DEVICE, linear=twin.entry(make_bundle(version="2", broken=True), "d2"))
        report = await twin.until_state(DEVICE, "linear", "d2", State.FAILED)
        assert (report.code, report.serving) == ("self-test", V1.digest)
        assert "float-onnx" in report.reason
        await assert_answers(agent, "1")


async def test_a_model_that_fails_on_probation_is_rolled_back(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        fragile = make_bundle(version="2", fragile=True)
        await twin.want(DEVICE, linear=twin.entry(fragile, "d2", probation=Probation(probation_s=30)))
        await twin.until_state(DEVICE, "linear", "d2", State.PROBATION)
        assert await agent.status_of("linear", GOLDEN_X + 5) != 200
        report = await twin.until_state(DEVICE, "linear", "d2", State.FAILED)
        assert (report.code, report.serving) == ("self-test", V1.digest)
        assert "probation: 1 of 1 inferences failed" in report.reason
        await assert_answers(agent, "1")


async def test_the_next_candidate_is_fetched_only_when_one_fails(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    both = ("int8-onnx", "float-onnx")
    good = make_bundle("good", padding=500, variants=both)
    bad = make_bundle("bad", padding=500, variants=both, failing=("int8-onnx",))
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.want(DEVICE, good=twin.entry(good, "g1"), bad=twin.entry(bad, "b1"))
        first = await twin.until_committed(DEVICE, "good", "g1")
        second = await twin.until_committed(DEVICE, "bad", "b1")
        assert (first.choice.variant, second.choice.variant) == ("int8-onnx", "float-onnx")
        fetched = {need.blob for need in twin.needs}
        assert good.manifest.files["float-onnx.onnx"].sha256 not in fetched
        assert bad.manifest.files["float-onnx.onnx"].sha256 in fetched


async def test_no_variant_for_this_device_is_a_permanent_failure(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        await twin.want(DEVICE, linear=twin.entry(make_bundle(version="2", runtime="edgetpu"), "d2"))
        report = await twin.until_state(DEVICE, "linear", "d2", State.FAILED)
        assert report.code == "no-runtime"
        assert "edgetpu, not installed" in report.reason
        await assert_answers(agent, "1")


async def test_a_failed_deployment_is_not_retried_and_a_new_one_is(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, _):
        broken = make_bundle(version="2", broken=True)
        await twin.want(DEVICE, linear=twin.entry(broken, "d2"))
        failed = await twin.until_state(DEVICE, "linear", "d2", State.FAILED)
        needs = len(twin.needs)
        await twin.want(DEVICE, linear=twin.entry(broken, "d2"), other=twin.entry(make_bundle("other"), "o1"))
        await twin.until_committed(DEVICE, "other", "o1")
        assert twin.report(DEVICE, "linear") == failed
        assert all(
            need.blob not in {ref.sha256 for ref in broken.manifest.files.values()} for need in twin.needs[needs:]
        )
        await twin.want(DEVICE, linear=twin.entry(broken, "d3"))
        await twin.until_state(DEVICE, "linear", "d3", State.FAILED)


async def test_a_failed_deployment_is_not_retried_after_a_restart(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    enrolment = twin.enrol(DEVICE)
    async with twin.connected():
        async with running_agent(enrolment, tmp_path):
            await twin.want(DEVICE, linear=twin.entry(make_bundle(broken=True), "d1"))
            await twin.until_state(DEVICE, "linear", "d1", State.FAILED)
        twin.reports.clear()
        async with running_agent(enrolment, tmp_path):
            report = await twin.until_state(DEVICE, "linear", "d1", *State)
            assert (report.state, report.code) == (State.FAILED, "self-test")


@pytest.mark.parametrize("state", [State.DOWNLOADING, State.PROBATION])
async def test_cancel_leaves_the_committed_model(one_broker: BrokerProcess, tmp_path: Path, state: State) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        twin.add(V2)
        twin.answers_needs = state is not State.DOWNLOADING
        if state is State.DOWNLOADING:
            twin.answers_needs = True
            twin.forger = lambda blob, _, right: [right] if blob == V2.manifest_ref.sha256 else []
        await twin.want(DEVICE, linear=twin.entry(V2, "d2", probation=Probation(probation_s=60)))
        await twin.until_state(DEVICE, "linear", "d2", state)
        await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
        report = await twin.until_committed(DEVICE, "linear", "d1")
        assert report.serving == V1.digest
        assert [r.models["linear"].state for r in twin.reports[DEVICE] if "linear" in r.models].count("failed") == 0
        await assert_answers(agent, "1")


async def test_a_model_that_the_goal_no_longer_names_is_removed(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        await twin.want(DEVICE)
        await twin.until(lambda: twin.reports[DEVICE][-1].models == {}, "no model reported")
        assert await agent.status_of("linear", GOLDEN_X) == 404
        needs = len(twin.needs)
        await twin.want(DEVICE, linear=twin.entry(V1, "d5"))
        await twin.until_committed(DEVICE, "linear", "d5")
        assert len(twin.needs) == needs, "its files had stayed"
        await assert_answers(agent, "1")


async def test_the_files_of_a_removed_model_go_when_their_time_has_passed(
    one_broker: BrokerProcess, tmp_path: Path
) -> None:
    async with world(one_broker, tmp_path) as (twin, _):
        goal = twin.goal(DEVICE, {}, settings=Settings(telemetry_s=0.2, keep_removed_s=0))
        await twin.publish_goal(DEVICE, goal)
        await twin.until(lambda: twin.reports[DEVICE][-1].models == {}, "no model reported")
        await becomes_true(lambda: not any((tmp_path / "blobs").iterdir()), "the blobs are deleted")
        assert Slots(tmp_path / "models" / "linear").reachable() == set()


async def test_models_share_blobs_that_are_equal(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        manifest = msgspec.structs.replace(V1.manifest, name="twin", version="7")
        twins = type(V1).create(manifest, {path: V1.read(path) for path in V1.manifest.files})
        before = {need.blob for need in twin.needs}
        await twin.want(DEVICE, linear=twin.entry(V1, "d1"), twin=twin.entry(twins, "t1"))
        await twin.until_committed(DEVICE, "twin", "t1")
        assert {need.blob for need in twin.needs} - before == {twins.manifest_ref.sha256}
        np.testing.assert_allclose(await agent.infer("twin", GOLDEN_X), answer("1", GOLDEN_X), rtol=1e-5)


# -- goals that are refused


def tampered(payload: bytes) -> bytes:
    signed = decode(payload, SignedGoal, what="goal", limit=10**6)
    return encode(msgspec.structs.replace(signed, sig=signed.sig[::-1]))


REFUSED = {
    "another fleet": ({"fleet": "elsewhere"}, "other-fleet"),
    "another device": ({"device": "dev-2"}, "other-device"),
    "an earlier enrolment": ({"generation": 0}, "other-generation"),
    "an old counter": ({"counter": 1}, "old-counter"),
    "an unknown version": ({"v": 9}, "message-invalid"),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_goal_that_is_not_for_us_is_refused_with_the_reason(
    one_broker: BrokerProcess, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        counter = twin.reports[DEVICE][-1].counter
        await twin.publish_goal(DEVICE, twin.goal(DEVICE, {}, **changes))
        refused = await twin.until(lambda: twin.reports[DEVICE][-1].refused, "refused")
        assert refused.code == code
        assert twin.reports[DEVICE][-1].counter == counter
        await assert_answers(agent, "1")


async def test_a_goal_that_nobody_we_trust_signed_is_refused(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        for payload in (tampered(twin.goal(DEVICE, {})), b"rubbish", b"x" * 600_000):
            twin.reports[DEVICE].clear()
            await twin.publish_goal(DEVICE, payload)
            await twin.until(lambda: twin.reports[DEVICE] and twin.reports[DEVICE][-1].refused, "refused")
        await assert_answers(agent, "1")
        await twin.want(DEVICE, linear=twin.entry(V2, "d2"))
        await twin.until_committed(DEVICE, "linear", "d2")
        assert twin.reports[DEVICE][-1].refused is None


async def test_the_same_goal_again_changes_nothing(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        payload = await twin.want(DEVICE, linear=twin.entry(V2, "d2"))
        await twin.until_committed(DEVICE, "linear", "d2")
        needs = len(twin.needs)
        await twin.publish_goal(DEVICE, payload)
        await twin.want(DEVICE, linear=twin.entry(V2, "d2"), other=twin.entry(make_bundle("other"), "o1"))
        await twin.until_committed(DEVICE, "other", "o1")
        assert all(r.refused is None for r in twin.reports[DEVICE])
        assert all(need.blob != V2.manifest_ref.sha256 for need in twin.needs[needs:])
        await assert_answers(agent, "2")


@pytest.mark.parametrize("who", ["stranger", "other model"])
async def test_a_manifest_that_the_operator_did_not_sign_for_this_model_is_refused(
    one_broker: BrokerProcess, tmp_path: Path, who: str
) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        twin.add(V2)
        if who == "stranger":
            wrong = {"linear": entry(V2, Ed25519PrivateKey.generate(), "d2")}
        else:
            wrong = {"linear": twin.entry(make_bundle("else"), "d2")}
        await twin.want(DEVICE, **wrong)
        report = await twin.until_state(DEVICE, "linear", "d2", State.FAILED)
        assert (report.code, report.serving) == ("signature-invalid", V1.digest)
        files = {ref.sha256 for ref in V2.manifest.files.values()}
        assert not files & {need.blob for need in twin.needs}, "no file is fetched before the signature holds"
        await assert_answers(agent, "1")


async def test_a_goal_replayed_after_reenrolment_is_refused(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    first = twin.enrol(DEVICE)
    async with twin.connected():
        async with running_agent(first, tmp_path):
            old = await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
            await twin.until_committed(DEVICE, "linear", "d1")
        twin.reports.clear()
        second = twin.enrol(DEVICE, generation=2, key=first.key)
        async with running_agent(second, tmp_path) as agent:  # the broker still retains the old goal
            refused = await twin.until(
                lambda: twin.reports[DEVICE] and twin.reports[DEVICE][-1].refused, "refused by generation"
            )
            assert refused.code == "other-generation"
            assert twin.reports[DEVICE][-1].counter == 0
            await assert_answers(agent, "1")
            await twin.publish_goal(DEVICE, old)
            await twin.want(DEVICE, linear=twin.entry(V2, "d2"))
            await twin.until_committed(DEVICE, "linear", "d2")


# -- disks


async def test_a_wiped_state_folder_comes_back_by_itself(broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(broker.url)
    enrolment = twin.enrol(DEVICE)
    async with twin.connected():
        async with running_agent(enrolment, tmp_path / "state"):
            await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
            await twin.until_committed(DEVICE, "linear", "d1")
        boot = twin.highest_boot[DEVICE]
        shutil.rmtree(tmp_path / "state")
        twin.reports.clear()
        async with running_agent(enrolment, tmp_path / "state") as agent:
            await twin.until_committed(DEVICE, "linear", "d1")
            await assert_answers(agent, "1")
        assert twin.highest_boot[DEVICE] > boot


async def test_committed_models_answer_before_any_network(tmp_path: Path, one_broker: BrokerProcess) -> None:
    twin = ManagerTwin(one_broker.url)
    enrolment = twin.enrol(DEVICE)
    async with twin.connected(), running_agent(enrolment, tmp_path):
        await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
        await twin.until_committed(DEVICE, "linear", "d1")
    one_broker.kill()
    async with running_agent(enrolment, tmp_path) as agent:
        await assert_answers(agent, "1")


async def test_an_unreachable_broker_is_one_clear_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    twin = ManagerTwin("mqtt://127.0.0.1:1")
    with caplog.at_level(logging.WARNING):
        async with running_agent(twin.enrol(DEVICE), tmp_path):
            await becomes_true(lambda: caplog.records, "a log line")
    lines = [record.getMessage() for record in caplog.records if "device_agent" in record.name]
    assert len(lines) == 1
    assert lines[0].startswith("no connection to the broker at mqtt://127.0.0.1:1, trying again: ")


DAMAGED = [
    "goal.json",
    "boot.json",
    "models/linear/journal.json",
    "models/linear/active.json",
    "models/linear/slot-a.json",
]


@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_state_file_heals(one_broker: BrokerProcess, tmp_path: Path, name: str) -> None:
    twin = ManagerTwin(one_broker.url)
    enrolment = twin.enrol(DEVICE)
    async with twin.connected():
        async with running_agent(enrolment, tmp_path):
            await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
            await twin.until_committed(DEVICE, "linear", "d1")
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:7])
        twin.reports.clear()
        async with running_agent(enrolment, tmp_path) as agent:
            await twin.until_committed(DEVICE, "linear", "d1")
            await assert_answers(agent, "1")
            await twin.until(lambda: twin.reports[DEVICE][-1].counter, "the goal is followed again")


async def test_a_damaged_model_file_is_fetched_again(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    enrolment = twin.enrol(DEVICE)
    async with twin.connected():
        async with running_agent(enrolment, tmp_path):
            await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
            await twin.until_committed(DEVICE, "linear", "d1")
        file = tmp_path / "models" / "linear" / "slot-a" / "float-onnx.onnx"
        data = bytearray(file.read_bytes())
        data[70_000] ^= 0xFF
        file.write_bytes(data)
        twin.reports.clear()
        twin.sent_chunks.clear()
        async with running_agent(enrolment, tmp_path) as agent:
            await twin.until_committed(DEVICE, "linear", "d1")
            await assert_answers(agent, "1")
        assert set(twin.sent_chunks) == {(V1.manifest.files["float-onnx.onnx"].sha256, 1)}, "the damaged chunk alone"


async def test_a_full_disk_waits_and_goes_on_once_there_is_room(
    one_broker: BrokerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        real = shutil.disk_usage

        def full(path: Path) -> object:
            return real(path)._replace(free=10_000)

        monkeypatch.setattr(shutil, "disk_usage", full)
        await twin.want(DEVICE, linear=twin.entry(V2, "d2"))
        report = await twin.until_state(DEVICE, "linear", "d2", State.WAITING)
        assert (report.code, report.returns_to, report.serving) == ("disk-full", State.PREFLIGHT, V1.digest)
        await assert_answers(agent, "1")
        monkeypatch.setattr(shutil, "disk_usage", real)
        await twin.until_committed(DEVICE, "linear", "d2")
        await assert_answers(agent, "2")


async def test_a_goal_that_cannot_be_kept_is_refused_and_taken_later(
    one_broker: BrokerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        before = (tmp_path / "goal.json").read_bytes()

        def full(path: Path, *_: object, **__: object) -> None:
            with durable.translated(path):
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(durable, "write", full)
            payload = await twin.want(DEVICE, linear=twin.entry(V2, "d2"))
            refused = await twin.until(lambda: twin.reports[DEVICE][-1].refused, "refused")
            assert refused.code == "disk-full"
            assert (tmp_path / "goal.json").read_bytes() == before
            await assert_answers(agent, "1")
        await twin.publish_goal(DEVICE, payload)
        await twin.until_committed(DEVICE, "linear", "d2")
        held = load_goal(tmp_path / "goal.json", twin.enrolments[DEVICE])
        assert held is not None
        assert held.payload == payload


async def test_limits_and_memory_are_the_goals(one_broker: BrokerProcess, tmp_path: Path) -> None:
    async with world(one_broker, tmp_path) as (twin, agent):
        await twin.want(DEVICE, linear=twin.entry(V2, "d2", limits=Limits(memory_bytes=1)))
        report = await twin.until_state(DEVICE, "linear", "d2", State.FAILED)
        assert "memory" in report.reason
        await assert_answers(agent, "1")
