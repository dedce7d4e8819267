"""Pushes, seen from the manager, with twins on both brokers."""

import asyncio
import re
import threading

import pytest

from fleet.broker.process import BrokerProcess
from fleet.folder import FleetFolder
from fleet.registry import intake
from lepton_edge.wire.messages import State
from tests.fleet.bundles import make_bundle
from tests.fleet.conftest import Desk, managing
from tests.fleet.device_twin import eventually, window


async def test_push_reaches_all_devices_and_counts_its_bytes_once(desk: Desk) -> None:
    twins = [await desk.enrol(f"dev-{n}") for n in range(3)]
    bundle = make_bundle(size=300_000)
    async with twins[0].online(), twins[1].online(), twins[2].online():
        done = await desk.ended(await desk.push(bundle))
    assert done.state == "done"
    assert [(d.id, d.state, d.variant, d.p50_ms) for d in done.devices] == [
        (f"dev-{n}", "committed", "int8", 1.0) for n in range(3)
    ]
    size = len(bundle.manifest_bytes) + sum(ref.size for ref in bundle.manifest.files.values())
    assert size <= done.bytes_published <= 2 * size


async def test_push_that_meets_a_devices_first_report_reaches_the_device(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for while the transaction runs that first hears of the device, and signed after it."""
    reached, go_on, store = threading.Event(), threading.Event(), intake.commit

    def held_up(*arguments: object) -> intake.Outcome:
        outcome = store(*arguments)
        if outcome.heard:
            reached.set()
            assert go_on.wait(15)
        return outcome

    twin = await desk.enrol("dev-1")
    bundle = make_bundle()
    await desk.publish(bundle)
    monkeypatch.setattr("fleet.registry.intake.commit", held_up)
    async with twin.online():
        await eventually(reached.is_set)
        push = asyncio.create_task(desk.roll_out(bundle))
        await asyncio.sleep(0)  # it has begun
        go_on.set()
        assert (await desk.ended(await push)).state == "done"


async def test_windows_count_once_when_repeated(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    one, other = window(), window()
    async with twin.online():
        await twin.send_windows(one, other)
        await twin.send_windows(one)
        await desk.until("dev-1", lambda _: sorted(twin.windows_acked()) == sorted([one.id, other.id, one.id]))
    from fleet.telemetry.summary import summarise

    lines = await desk.manager.database.run(lambda session: summarise(session, model="", by="all"))
    assert [(line.device, line.windows, line.count) for line in lines] == [("dev-1", 2, 4)]


async def test_failed_device_ends_the_rollout_and_hinders_no_other_model(desk: Desk) -> None:
    good, bad = await desk.enrol("good"), await desk.enrol("bad")
    first, second, other = make_bundle(version="1"), make_bundle(version="2"), make_bundle("other")
    async with good.online(), bad.online():
        await desk.ended(await desk.push(first))
        bad.fails = {"digits"}
        ended = await desk.ended(await desk.push(second))
        assert ended.state == "rolled-back"
        states = {device.id: (device.state, device.code, device.reason) for device in ended.devices}
        assert states["bad"] == ("failed", "self-test", "told to fail")
        assert states["good"] in {("committed", "", ""), ("cancelled", "aborted", ABORTED)}
        line = await desk.device("bad")
        assert line.models["digits"].serving == first.digest

        failed = bad.reports["digits"].deployment
        assert (await desk.ended(await desk.push(other, "bad"))).state == "done"
        assert bad.reports["digits"].deployment == failed, "not tried again"

        bad.fails = set()
        again = await desk.ended(await desk.push(second, "bad"))
        assert again.state == "done"
        assert bad.reports["digits"].deployment == again.rollout, "a retry has a new id"

        from fleet import operations

        assert await operations.remove(desk.manager, "digits", "bad") == ["bad"]
        await desk.until("bad", lambda line: list(line.models) == ["other"])


async def test_offline_device_stays_pending_and_catches_up(desk: Desk) -> None:
    here, away = await desk.enrol("here"), await desk.enrol("away")
    async with away.online():
        await desk.until("away", lambda line: line.status == "online")
    async with here.online():
        pushed = await desk.push(make_bundle())
        await eventually(lambda: "digits" in here.reports and here.reports["digits"].state is State.COMMITTED)
        found = await desk.rollout(pushed.rollout)
        assert found.state == "wave"
        assert [device.state for device in found.devices if device.id == "away"] == ["pending"]
        async with away.online():
            assert (await desk.ended(pushed)).state == "done"


async def test_aborting_puts_the_last_goal_back_where_nothing_has_begun(desk: Desk) -> None:
    bad, away = await desk.enrol("bad", kind="x"), await desk.enrol("away", kind="x")
    first, second = make_bundle(version="1"), make_bundle(version="2")
    async with bad.online(), away.online():
        await desk.ended(await desk.push(first))
    before = (await desk.device("away")).goal
    bad.fails = {"digits"}
    async with bad.online():
        ended = await desk.ended(await desk.push(second, "kind=x"))
    assert ended.state == "rolled-back"
    assert {device.id: device.state for device in ended.devices} == {"bad": "failed", "away": "cancelled"}
    assert (await desk.device("away")).goal == before
    async with away.online():
        await desk.until("away", lambda line: line.reported_counter == line.counter)
        assert away.reports["digits"].serving == first.digest


async def test_pushing_what_is_committed_disturbs_nobody(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online():
        first = await desk.ended(await desk.push(make_bundle()))
        counter = (await desk.device("dev-1")).counter
        again = await desk.push(make_bundle())
        assert (again.state, again.bytes_published) == ("done", 0)
        assert again.rollout != first.rollout
        assert (await desk.device("dev-1")).counter == counter


async def test_newer_push_supersedes_one_under_way(desk: Desk) -> None:
    await desk.enrol("dev-1")
    one = await desk.push(make_bundle(version="1"))
    other = await desk.push(make_bundle(version="2"))
    assert (await desk.rollout(one.rollout)).state == "done"
    assert [d.code for d in (await desk.rollout(one.rollout)).devices] == ["superseded"]
    assert (await desk.rollout(other.rollout)).state == "wave"


async def test_every_goal_carries_the_fleet_settings(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online():
        await eventually(lambda: twin.goal is not None)
        assert twin.goal.settings.telemetry_s == 1.0
        assert twin.goal.models == {}


async def test_device_over_its_byte_budget_is_not_answered(folder: FleetFolder) -> None:
    config = (folder.root / "fleet.toml").read_text()
    budget = re.sub(r"device_bytes_hour = \d+", "device_bytes_hour = 1000", config)
    (folder.root / "fleet.toml").write_text(budget)
    async with managing(folder) as desk:
        twin = await desk.enrol("dev-1")
        async with twin.online():
            await desk.push(make_bundle())
            await desk.until("dev-1", lambda line: line.counts.get("need-over-budget"))
            assert twin.received <= 1


async def test_lost_chunks_are_published_again_for_who_lacks_them(desk: Desk) -> None:
    lucky, unlucky = await desk.enrol("lucky"), await desk.enrol("unlucky")
    unlucky.loses = 4
    bundle = make_bundle(size=1_000_000)
    async with lucky.online(), unlucky.online():
        done = await desk.ended(await desk.push(bundle))
    assert done.state == "done"
    size = len(bundle.manifest_bytes) + sum(ref.size for ref in bundle.manifest.files.values())
    assert size < done.bytes_published < 2 * size


async def test_push_survives_the_loss_of_the_broker(desk: Desk, broker: BrokerProcess) -> None:
    twins = [await desk.enrol("dev-1"), await desk.enrol("dev-2")]
    bundle = make_bundle(size=4_000_000)
    one = window()
    async with twins[0].staying(), twins[1].staying():
        await desk.until("dev-1", lambda line: line.counter)
        pushed = await desk.push(bundle)
        await eventually(lambda: all(twin.received > 5 for twin in twins))
        held = twins[0].received
        broker.kill()
        broker.restart()
        done = await desk.ended(pushed, timeout_s=40)
        assert done.state == "done"
        chunks = sum(len(ref.chunks) for ref in [bundle.manifest_ref, *bundle.manifest.files.values()])
        assert twins[0].received <= 2 * chunks - held + 10, "what was held is not asked for again"
        await twins[0].send_windows(one)
        await desk.until("dev-1", lambda _: one.id in twins[0].windows_acked())


ABORTED = "another device of this rollout failed"
