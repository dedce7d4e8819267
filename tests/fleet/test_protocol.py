"""The holes that DESIGN closes, from the manager's side, on both brokers."""

import shutil

from fleet.broker.process import BrokerProcess
from fleet.folder import FleetFolder
from lepton_edge.wire.authenticator import seal
from lepton_edge.wire.chunks import blob_ref
from lepton_edge.wire.messages import ModelReport, Reported, State, Status
from lepton_edge.wire.topics import DeviceTopic, Kind
from tests.fleet.bundles import make_bundle
from tests.fleet.conftest import Desk, managing
from tests.fleet.device_twin import DeviceTwin, eventually


def seen(twin: DeviceTwin, kind: Kind) -> int:
    """The seq of `kind` that the manager acknowledged last, in this boot."""
    found = [ack.seen[kind] for ack in twin.acks if kind in ack.seen and ack.seen[kind].boot == twin.boot]
    return found[-1].seq if found else 0


async def test_repeated_message_is_acknowledged_again_and_stored_once(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online(follow=False):
        first = twin.sealed(Kind.REPORTED, Reported(counter=0, models={}))
        second = twin.sealed(Kind.REPORTED, Reported(counter=0, models={"m": REPORT}))
        for count, payload in enumerate([first, second, second, first], 1):
            await twin.raw(Kind.REPORTED, payload)
            await eventually(lambda count=count: len(twin.acks) >= count)
        assert seen(twin, Kind.REPORTED) == 2, "the older one takes nothing back"
        line = await desk.until("dev-1", lambda line: line.counts)
        assert line.counts == {"stale": 1}, "equal is no fault, lower is counted, neither is an attack"
        assert list(line.models) == ["m"]


async def test_device_that_loses_every_ack_still_commits(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    twin.deaf = True
    async with twin.online():
        done = await desk.ended(await desk.push(make_bundle()))
        assert done.state == "done"
        assert twin.acks == []
        twin.deaf = False
        await twin.report()
        await eventually(lambda: seen(twin, Kind.REPORTED) == twin.seq)


async def test_acks_come_from_the_manager_in_rising_order_with_the_highest_boot(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online():
        await eventually(lambda: twin.acks)
    high = twin.boot
    async with twin.online(follow=False):
        twin.boot = high - 1000  # a wiped state folder with a slow clock
        await twin.say(Kind.STATUS, Status(state="online"))
        await eventually(lambda: twin.acks[-1].boot >= high)


async def test_forged_message_is_counted_as_an_attack_and_gets_no_answer(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online(follow=False):
        await twin.raw(Kind.STATUS, twin.sealed(Kind.STATUS, Status(state="online"), key=b"x" * 32))
        line = await desk.until("dev-1", lambda line: line.counts.get("attack") == 1)
        assert line.status == "never-seen"
        assert twin.acks == []


async def test_message_of_another_device_is_not_believed(desk: Desk) -> None:
    one, other = await desk.enrol("dev-1"), await desk.enrol("dev-2")
    async with one.online(follow=False), other.online(follow=False):
        await one.raw(Kind.STATUS, other.sealed(Kind.STATUS, Status(state="online")))
        await desk.until("dev-1", lambda line: line.counts.get("malformed") == 1)
        assert (await desk.device("dev-2")).status == "never-seen"


async def test_unknown_device_is_counted_and_ignored(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online(follow=False):
        assert twin._client is not None
        topic = DeviceTopic("dev-9", Kind.STATUS)
        payload = seal(b"x" * 32, topic, b"{}", speaker="device", generation=1, boot=1, seq=1)
        await twin._client.publish(str(topic), payload, qos=1)
        await twin._client.publish("lep/v1/d/dev-1/status", b"\xff\xfe no header", qos=1)
        await desk.until("dev-1", lambda line: line.counts.get("malformed") == 1)
    from fleet.api import views

    found = await desk.manager.database.run(views.all_devices)
    assert found.unattributed == {"unknown-device": 1}
    assert [line.id for line in found.devices] == ["dev-1"]


async def test_late_will_of_an_earlier_boot_changes_nothing(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online():
        late = twin.sealed(Kind.STATUS, Status(state="offline"), seq=None)
    async with twin.online():
        await desk.until("dev-1", lambda line: line.status == "online")
        await twin.raw(Kind.STATUS, late)
        line = await desk.until("dev-1", lambda line: line.counts.get("will-late"))
        assert line.status == "online"


async def test_will_of_this_boot_counts_until_the_device_speaks_again(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online(follow=False):
        await twin.say(Kind.STATUS, Status(state="online"))
        await desk.until("dev-1", lambda line: line.status == "online")
        await twin.raw(Kind.STATUS, twin.sealed(Kind.STATUS, Status(state="offline"), seq=None))
        await desk.until("dev-1", lambda line: line.status == "offline")
        await twin.say(Kind.STATUS, Status(state="online"))
        await desk.until("dev-1", lambda line: line.status == "online")


async def test_device_that_sees_its_own_late_will_comes_back_online(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online():
        await desk.until("dev-1", lambda line: line.status == "online")
        await twin.raw(Kind.STATUS, twin.sealed(Kind.STATUS, Status(state="offline"), seq=None), retain=True)
        await eventually(lambda: "offline" in twin.statuses)
        await eventually(lambda: twin.statuses[-1] == "online")
        await desk.until("dev-1", lambda line: line.status == "online")


async def test_goal_of_an_earlier_enrolment_is_worth_nothing(desk: Desk) -> None:
    old = await desk.enrol("dev-1")
    async with old.online():
        await desk.ended(await desk.push(make_bundle()))
    new = await desk.enrol("dev-1")
    await new.take_goal(old.payloads[-1])
    assert "for enrolment" in new.refused[0]
    async with new.online():
        await eventually(lambda: new.goal is not None)
        assert new.goal is not None
        assert new.goal.generation == new.enrolment.generation > old.enrolment.generation
        await eventually(lambda: "digits" in new.reports and new.reports["digits"].state is State.COMMITTED)
    async with old.online(follow=False):
        await old.say(Kind.STATUS, Status(state="online"))
        await desk.until("dev-1", lambda line: line.counts.get("other-enrolment"))


async def test_manager_that_lost_its_history_signs_nothing_until_adopted(folder: FleetFolder) -> None:
    from fleet import operations

    one, other = make_bundle("one"), make_bundle("other")
    async with managing(folder) as desk:
        twin = await desk.enrol("dev-1")
        await desk.publish(one)
        await desk.publish(other)
    backup = folder.root / "backup.db"
    shutil.copy(folder.database, backup)
    async with managing(folder) as desk, twin.online():
        await desk.ended(await desk.push(one))
    counter = twin.goal.counter
    shutil.copy(backup, folder.database)
    async with managing(folder) as desk, twin.online():
        await desk.until("dev-1", lambda line: line.adopt)
        pushed = await desk.push(other)
        await twin.report()
        await desk.until("dev-1", lambda line: line.reported_counter == counter)
        assert (await desk.device("dev-1")).counter < counter
        assert twin.goal.counter == counter, "nothing newer was signed"
        assert "--adopt dev-1" in (await desk.rollout(pushed.rollout)).devices[0].reason
        assert await operations.adopt(desk.manager, "all") == ["dev-1"]
        await desk.ended(pushed)
        assert sorted(twin.goal.models) == ["one", "other"], "what was reported is the goal now, and the push too"
        assert twin.goal.counter > counter


async def test_manager_with_an_empty_database_signs_nothing_until_adopted(folder: FleetFolder) -> None:
    from fleet import operations
    from fleet.registry.database import create_sqlite

    bundle = make_bundle()
    async with managing(folder) as desk:
        twin = await desk.enrol("dev-1")
        async with twin.online():
            await desk.ended(await desk.push(bundle))
    for path in folder.root.glob("fleet.db*"):
        path.unlink()
    create_sqlite(folder.database)
    async with managing(folder) as desk:
        again = await desk.enrol("dev-1")
        assert again.enrolment.generation > twin.enrolment.generation
        twin.enrolment = again.enrolment  # the same state, enrolled anew
        counter = twin.goal.counter
        async with twin.online():
            await desk.until("dev-1", lambda line: line.adopt)
            assert await operations.adopt(desk.manager, "dev-1") == ["dev-1"]
            line = await desk.device("dev-1")
            assert "not published here" in line.blocked, "a goal without the model would remove it"
            assert twin.goal.counter == counter
            await desk.publish(bundle)
            await eventually(lambda: twin.goal.counter > counter)
            assert list(twin.goal.models) == ["digits"]


async def test_manager_waits_for_the_device_before_its_first_goal(folder: FleetFolder, broker: BrokerProcess) -> None:
    async with managing(folder) as desk:
        twin = await desk.enrol("dev-1")
        pushed = await desk.push(make_bundle())
        assert pushed.state == "wave"
        assert (await desk.device("dev-1")).counter == 0, "never seen: nothing is signed"
        async with twin.online():
            await desk.ended(pushed)
        counter = (await desk.device("dev-1")).counter
        assert counter > 0
    broker.kill()  # and with it what the device had retained
    broker.restart()
    async with managing(folder) as desk:
        pushed = await desk.push(make_bundle(version="2"))
        assert (await desk.device("dev-1")).counter == counter, "not heard in this start: nothing is signed"
        async with twin.online():
            await desk.ended(pushed)


async def test_forged_need_costs_only_its_own_bytes(desk: Desk) -> None:
    twin, thief = await desk.enrol("dev-1"), await desk.enrol("dev-2")
    bundle, secret = make_bundle(), blob_ref(b"never published")
    async with twin.online(), thief.online():
        await desk.ended(await desk.push(bundle, "dev-1"))
        published = (await desk.rollout((await desk.push(bundle, "dev-1")).rollout)).bytes_published
        received, twin.chunks = twin.received, {}
        assert twin._client is not None
        await twin._client.subscribe("lep/v1/blob/+/+")
        await twin.need(bundle.manifest_ref, key=b"x" * 32)
        await thief.need(bundle.manifest_ref)
        await twin.need(secret)
        await desk.until("dev-1", lambda line: line.counts.get("attack") == 1)
        await desk.until("dev-1", lambda line: line.counts.get("need-unreachable") == 1)
        await desk.until("dev-2", lambda line: line.counts.get("need-unreachable") == 1)
        assert twin.received == received
        assert published == 0
        await twin.need(bundle.manifest_ref)  # an honest one is answered after all of these
        await eventually(lambda: twin.received == received + len(bundle.manifest_ref.chunks))


REPORT = ModelReport(deployment="d", state=State.COMMITTED, bundle="0" * 64)
