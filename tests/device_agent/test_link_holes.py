"""The holes of the protocol, closed: acks lost, repeated and forged, late wills, lost boots, forged and lost chunks."""

import asyncio
import os
from pathlib import Path

import msgspec
import numpy as np

from fleet.broker.process import BrokerProcess
from lepton_edge.typed import encode
from lepton_edge.wire import topics
from lepton_edge.wire.authenticator import Order, seal
from lepton_edge.wire.chunks import CHUNK_SIZE, unpack_bits
from lepton_edge.wire.messages import Ack, Seen, Status
from lepton_edge.wire.topics import DeviceTopic, Kind
from tests.bundles import GOLDEN_X, answer, make_bundle
from tests.device_agent.manager_twin import ManagerTwin, becomes_true, running_agent

DEVICE = "dev-1"
ACK = topics.device_topic(DEVICE, Kind.ACK)
STATUS = topics.device_topic(DEVICE, Kind.STATUS)


def count(twin: ManagerTwin, kind: Kind) -> int:
    return len(twin.received[DEVICE, kind])


async def test_a_lost_ack_makes_the_device_say_it_again_until_one_comes(broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(broker.url)
    twin.acks = False
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.until(lambda: count(twin, Kind.REPORTED) >= 3, "reported again")
        seqs = [sealed.header.seq for sealed in twin.received[DEVICE, Kind.REPORTED]]
        assert len(set(seqs)) == len(seqs), "each publish takes a fresh number"
        twin.acks = True
        await twin.send_ack(DEVICE, windows=[])
        await twin.until(lambda: count(twin, Kind.REPORTED), "")
    bodies = {sealed.body for sealed in twin.received[DEVICE, Kind.REPORTED]}
    assert len(bodies) == 1


async def test_windows_stay_until_they_are_acknowledged_and_count_once(
    one_broker: BrokerProcess, tmp_path: Path
) -> None:
    twin = ManagerTwin(one_broker.url)
    enrolment = twin.enrol(DEVICE)
    bundle = make_bundle()
    async with twin.connected():
        async with running_agent(enrolment, tmp_path) as agent:
            await twin.want(DEVICE, linear=twin.entry(bundle, "d1"))
            await twin.until_committed(DEVICE, "linear", "d1")
            twin.acks = False
            for _ in range(5):
                await agent.infer("linear", GOLDEN_X)
            await twin.until(lambda: twin.windows, "a window")
        first = dict(twin.windows)
        async with running_agent(enrolment, tmp_path):  # not acknowledged: it comes again, from the disk
            before = count(twin, Kind.TELE)
            await twin.until(lambda: count(twin, Kind.TELE) > before, "the window again")
            twin.acks = True
            await twin.send_ack(DEVICE, windows=list(twin.windows))
            await becomes_true(lambda: not list((tmp_path / "telemetry").glob("*.json")), "the ring is empty")
    assert set(first) <= set(twin.windows)
    assert sum(window.latency.count for window in twin.windows.values()) == 5


async def test_a_repeated_ack_is_harmless(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.until(lambda: twin.reports[DEVICE], "a report")
        old = twin.sealed_ack(DEVICE, twin.ack(DEVICE, windows=[]))
        twin.acks = False
        await twin.want(DEVICE, linear=twin.entry(make_bundle(), "d1"))
        await twin.until_committed(DEVICE, "linear", "d1")
        for _ in range(5):
            await twin.publish(ACK, old)
        said = count(twin, Kind.REPORTED)
        await twin.until(lambda: count(twin, Kind.REPORTED) > said, "the newer report is still repeated")


async def test_a_forged_ack_makes_the_device_forget_nothing(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    twin.acks = False
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.until(lambda: twin.reports[DEVICE], "a report")
        everything = Seen(generation=1, boot=2**62, seq=2**62)
        forged = Ack(boot=2**62, seen={Kind.REPORTED: everything, Kind.STATUS: everything})
        await twin.publish(ACK, twin.sealed_ack(DEVICE, forged, key=os.urandom(32)))
        for junk in (b"", b"{}", b"{}\n{}", b"\xff\n"):
            await twin.publish(ACK, junk)
        boot = twin.highest_boot[DEVICE]
        said = count(twin, Kind.REPORTED)
        await twin.until(lambda: count(twin, Kind.REPORTED) > said + 1, "still repeated")
        assert twin.highest_boot[DEVICE] == boot


async def test_an_ack_of_another_generation_is_ignored(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    twin.acks = False
    async with twin.connected(), running_agent(twin.enrol(DEVICE, generation=2), tmp_path):
        await twin.until(lambda: twin.reports[DEVICE], "a report")
        topic = DeviceTopic(DEVICE, Kind.ACK)
        body = encode(Ack(boot=2**62))
        key = twin.enrolments[DEVICE].secret
        await twin.publish(ACK, seal(key, topic, body, speaker="manager", generation=1, boot=1, seq=1))
        boot = twin.highest_boot[DEVICE]
        said = count(twin, Kind.REPORTED)
        await twin.until(lambda: count(twin, Kind.REPORTED) > said, "repeated")
        assert twin.highest_boot[DEVICE] == boot


async def test_a_manager_that_knows_a_higher_boot_is_believed(broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(broker.url)
    high = 2**50
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.until(lambda: twin.reports[DEVICE], "a report")
        await twin.send_ack(DEVICE, windows=[], boot=high)
        await twin.until(lambda: twin.last_seen[DEVICE, Kind.REPORTED].boot == high + 1, "a new boot")
        await twin.until(lambda: twin.last_seen[DEVICE, Kind.STATUS].boot == high + 1, "status too")
    assert msgspec.json.decode((tmp_path / "boot.json").read_bytes())["boot"] == high + 1


async def test_a_late_will_is_answered_with_online(broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(broker.url)
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.until(lambda: twin.statuses[DEVICE], "online")
        order = twin.last_seen[DEVICE, Kind.STATUS]
        will = seal(
            twin.enrolments[DEVICE].secret,
            DeviceTopic(DEVICE, Kind.STATUS),
            encode(Status(state="offline")),
            speaker="device",
            generation=1,
            boot=order.boot,
            seq=None,
        )
        await twin.publish(STATUS, will, retain=True)
        await twin.until(lambda: twin.last_seen[DEVICE, Kind.STATUS] > order, "said again")
        assert twin.statuses[DEVICE][-1].state == "online"


async def take_over(broker: BrokerProcess, identifier: str) -> None:
    """Connect under somebody's id, and fall silent: one CONNECT of MQTT 5.0 section 3.1, clean start, no properties."""
    name = identifier.encode()
    body = b"\x00\x04MQTT\x05\x02\x00\x0a\x00" + len(name).to_bytes(2, "big") + name
    reader, writer = await asyncio.open_connection(broker.host, broker.port)
    writer.write(bytes([0x10, len(body)]) + body)
    assert (await reader.read(1)) == b"\x20", "CONNACK"
    writer.close()
    await writer.wait_closed()


async def test_a_device_that_dies_is_reported_by_its_will(broker: BrokerProcess, tmp_path: Path) -> None:
    """Another connection under our id takes ours over: the broker publishes the will, and we come back."""
    twin = ManagerTwin(broker.url)
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.until(lambda: twin.statuses[DEVICE], "online")
        before = twin.last_seen[DEVICE, Kind.STATUS]
        await take_over(broker, DEVICE)
        await twin.until(lambda: twin.last_seen[DEVICE, Kind.STATUS] > before, "back again")
        await twin.until(lambda: twin.statuses[DEVICE][-1].state == "online", "online")
        wills = [sealed for sealed in twin.received[DEVICE, Kind.STATUS] if sealed.header.is_will]
        assert wills, "the will came through, with a right MAC"
        assert wills[0].header.order == Order(1, before.boot, 0)


async def test_forged_chunks_cost_only_their_own_bytes(broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(broker.url)
    bundle = make_bundle(padding=5 * CHUNK_SIZE)
    twin.forger = lambda _, __, right: [os.urandom(len(right)), right[:-1], right + b"x", b"", right, right]
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path) as agent:
        await twin.want(DEVICE, linear=twin.entry(bundle, "d1"))
        report = await twin.until_committed(DEVICE, "linear", "d1")
        assert report.choice is not None
        files = bundle.manifest.files.values()
        assert report.choice.fetched == bundle.manifest_ref.size + sum(ref.size for ref in files)
        np.testing.assert_allclose(await agent.infer("linear", GOLDEN_X), answer("1", GOLDEN_X), rtol=1e-5)


async def test_lost_chunks_alone_are_asked_for_again(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    bundle = make_bundle(padding=6 * CHUNK_SIZE)
    model = bundle.manifest.files["float-onnx.onnx"].sha256
    lost: set[tuple[str, int]] = set()

    def lose_odd_ones_once(blob: str, index: int, right: bytes) -> list[bytes]:
        if blob == model and index % 2 and (blob, index) not in lost:
            lost.add((blob, index))
            return []
        return [right]

    twin.forger = lose_odd_ones_once
    async with twin.connected(), running_agent(twin.enrol(DEVICE), tmp_path):
        await twin.want(DEVICE, linear=twin.entry(bundle, "d1"))
        await twin.until_committed(DEVICE, "linear", "d1")
    needs = [need for need in twin.needs if need.blob == model]
    later = {need.first + bit for need in needs[1:] for bit in unpack_bits(need.bits)}
    assert later == {1, 3, 5}


async def test_a_broker_that_dies_in_a_download_costs_no_chunk_twice(broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(broker.url)
    bundle = make_bundle(padding=8 * CHUNK_SIZE)
    model = bundle.manifest.files["float-onnx.onnx"].sha256
    held_back = {6, 7}
    twin.forger = lambda blob, index, right: [] if blob == model and index in held_back else [right]
    async with running_agent(twin.enrol(DEVICE), tmp_path) as agent:
        async with twin.connected():
            await twin.want(DEVICE, linear=twin.entry(bundle, "d1"))
            await twin.until(lambda: any(n.blob == model and n.first == 6 for n in twin.needs), "the rest is asked for")
            goal = twin.goal(DEVICE, {"linear": twin.entry(bundle, "d1")})
        broker.kill()
        twin.sent_chunks.clear()
        twin.forger = None
        broker.start()
        async with twin.connected():
            await twin.publish_goal(DEVICE, goal)
            await twin.until_committed(DEVICE, "linear", "d1")
            np.testing.assert_allclose(await agent.infer("linear", GOLDEN_X), answer("1", GOLDEN_X), rtol=1e-5)
    again = {index for blob, index in twin.sent_chunks if blob == model}
    assert again == held_back
