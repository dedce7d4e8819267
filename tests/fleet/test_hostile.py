"""An enrolled device that sends what no honest one would: it must not stop the manager, nor spoil the others."""

import msgspec
import pytest

from fleet import operations
from fleet.errors import FleetError
from fleet.telemetry.summary import summarise
from lepton_edge.errors import MessageError
from lepton_edge.telemetry.histogram import MIN_SCALE, Histogram
from lepton_edge.typed import encode
from lepton_edge.wire.authenticator import seal
from lepton_edge.wire.messages import Reported, Status, Telemetry, decode_body
from lepton_edge.wire.topics import DeviceTopic, Kind
from tests.fleet.conftest import Desk
from tests.fleet.device_twin import DeviceTwin, eventually, window

pytestmark = pytest.mark.parametrize("broker", ["iotcore"], indirect=True)

WINDOW = msgspec.to_builtins(window())
BAD_WINDOWS = {
    "moment past 64 bits": {"start_ms": 2**70},
    "moment before 1970": {"end_ms": -1},
    "bucket past every latency": {"latency": {"scale": 6, "buckets": [[10**9, 1]]}},
    "bucket below every latency": {"latency": {"scale": 6, "buckets": [[-(10**9), 1]]}},
    "buckets out of order": {"latency": {"scale": 6, "buckets": [[1, 1], [0, 1]]}},
    "bucket twice": {"latency": {"scale": 6, "buckets": [[1, 1], [1, 1]]}},
    "scale that overflows": {"latency": {"scale": -10, "buckets": [[0, 1]]}},
    "negative count": {"failures": -1},
}


@pytest.mark.parametrize("change", BAD_WINDOWS.values(), ids=BAD_WINDOWS)
async def test_impossible_window_is_refused_and_the_next_one_counts(desk: Desk, change: dict[str, object]) -> None:
    twin = await desk.enrol("dev-1")
    body = encode({"windows": [{**WINDOW, **change}]})
    with pytest.raises(MessageError):
        decode_body(Kind.TELE, body)
    good = window()
    async with twin.online():
        await twin.raw(Kind.TELE, _sealed(twin, Kind.TELE, body))
        await twin.send_windows(good)
        await eventually(lambda: good.id in twin.windows_acked())
    line = await desk.device("dev-1")
    assert line.counts == {"malformed": 1}


def _sealed(twin: DeviceTwin, kind: Kind, body: bytes) -> bytes:
    topic = DeviceTopic(twin.id, kind)
    e = twin.enrolment
    return seal(e.secret, topic, body, speaker="device", generation=e.generation, boot=twin.boot, seq=10**6)


async def test_coarsest_histogram_has_figures(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    coarse = Histogram(scale=MIN_SCALE, buckets=[(-1, 1), (0, 1)], underflow=1, overflow=1)
    async with twin.online():
        one = msgspec.structs.replace(window(), latency=coarse)
        await twin.say(Kind.TELE, Telemetry(windows=[one]))
        await eventually(lambda: one.id in twin.windows_acked())
    lines = await desk.manager.database.run(lambda session: summarise(session, model="", by="all"))
    assert lines[0].count == 4
    assert lines[0].p99_ms is None, "past the range: no figure is better than a wrong one"


async def test_counter_at_the_end_of_all_numbers_cannot_be_adopted(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online(follow=False):
        await twin.say(Kind.STATUS, Status(state="online"))
        await twin.say(Kind.REPORTED, Reported(counter=2**63 - 1, models={}))
        await desk.until("dev-1", lambda line: line.adopt)
        with pytest.raises(FleetError, match="enrol anew"):
            await operations.adopt(desk.manager, "all")
        boot, twin.boot = twin.boot, 2**63 - 1
        await twin.say(Kind.STATUS, Status(state="online"))
        await eventually(lambda: twin.acks[-1].boot == 2**63 - 1)
        twin.boot = boot


async def test_will_with_another_body_is_offline_all_the_same(desk: Desk) -> None:
    twin = await desk.enrol("dev-1")
    async with twin.online(follow=False):
        await twin.say(Kind.STATUS, Status(state="online"))
        await desk.until("dev-1", lambda line: line.status == "online")
        await twin.raw(Kind.INFO, twin.sealed(Kind.INFO, Status(state="online"), seq=None))
        await desk.until("dev-1", lambda line: line.counts == {"malformed": 1})
        await twin.raw(Kind.STATUS, twin.sealed(Kind.STATUS, Status(state="online"), seq=None))
        await desk.until("dev-1", lambda line: line.status == "offline")
