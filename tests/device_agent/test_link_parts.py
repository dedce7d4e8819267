"""The link's pure parts: what is said again and when, which window is asked for, what a full queue drops."""

import asyncio
import itertools

import aiomqtt
from hypothesis import given
from hypothesis import strategies as st

from device_agent.link.inbound import MAX_CHUNKS_QUEUED, MAX_OTHERS_QUEUED, InboundQueue
from device_agent.link.outbox import Outbox
from device_agent.link.pace import delay_s
from device_agent.link.transfer import SMALL_WINDOW, window_of
from device_agent.threads import in_thread
from lepton_edge.wire.authenticator import Order
from lepton_edge.wire.chunks import MAX_BITS
from lepton_edge.wire.topics import Kind, chunk_topic, device_topic

RESEND = (1.0, 8.0)


def sent(outbox: Outbox, now: float, seq: int) -> None:
    for item in outbox.due(now):
        outbox.sent(item, Order(1, 1, seq), now, 0.99)


def due(outbox: Outbox, now: float) -> list[tuple[Kind, bytes]]:
    return [(item.kind, item.body) for item in outbox.due(now)]


def test_what_is_not_acknowledged_goes_out_again_ever_more_rarely() -> None:
    outbox = Outbox(RESEND)
    outbox.put(Kind.REPORTED, b"a", 0.0)
    times, now = [], 0.0
    for seq in range(1, 7):
        assert outbox.next_due() <= now
        times.append(now)
        sent(outbox, now, seq)
        assert outbox.due(now) == []
        now = outbox.next_due()
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] <= RESEND[1]


def test_an_ack_stops_the_repetition_only_if_it_names_what_was_sent() -> None:
    outbox = Outbox(RESEND)
    outbox.put(Kind.REPORTED, b"a", 0.0)
    sent(outbox, 0.0, 5)
    outbox.acknowledged(Kind.REPORTED, Order(1, 1, 4))
    outbox.acknowledged(Kind.REPORTED, Order(1, 0, 99))
    outbox.acknowledged(Kind.INFO, Order(1, 1, 5))
    assert outbox.next_due() < 10
    outbox.acknowledged(Kind.REPORTED, Order(1, 1, 5))
    assert outbox.next_due() == float("inf")


def test_a_new_body_is_due_at_once_and_an_old_ack_does_not_cover_it() -> None:
    outbox = Outbox(RESEND)
    outbox.put(Kind.REPORTED, b"a", 0.0)
    sent(outbox, 0.0, 5)
    outbox.put(Kind.REPORTED, b"b", 1.0)
    outbox.acknowledged(Kind.REPORTED, Order(1, 1, 5))
    assert due(outbox, 1.0) == [(Kind.REPORTED, b"b")]


def test_saying_the_same_again_changes_nothing() -> None:
    outbox = Outbox(RESEND)
    outbox.put(Kind.INFO, b"a", 0.0)
    sent(outbox, 0.0, 1)
    outbox.acknowledged(Kind.INFO, Order(1, 1, 1))
    outbox.put(Kind.INFO, b"a", 1.0)
    assert outbox.due(1.0) == []


def test_a_body_replaced_while_it_was_on_its_way_stays_due() -> None:
    outbox = Outbox(RESEND)
    outbox.put(Kind.REPORTED, b"a", 0.0)
    (item,) = outbox.due(0.0)
    outbox.put(Kind.REPORTED, b"b", 0.0)
    outbox.sent(item, Order(1, 1, 1), 0.0, 0.5)
    assert due(outbox, 0.0) == [(Kind.REPORTED, b"b")]


def test_an_ack_under_way_does_not_stop_what_is_to_be_said_again() -> None:
    outbox = Outbox(RESEND)
    outbox.put(Kind.STATUS, b"online", 0.0)
    sent(outbox, 0.0, 1)
    outbox.again(0.0, Kind.STATUS)  # a late will was seen
    outbox.acknowledged(Kind.STATUS, Order(1, 1, 1))
    (item,) = outbox.due(0.0)
    outbox.again(0.0, Kind.STATUS)  # and another one while that was sent
    outbox.sent(item, Order(1, 1, 2), 0.0, 0.5)
    outbox.acknowledged(Kind.STATUS, Order(1, 1, 2))
    assert due(outbox, 0.0) == [(Kind.STATUS, b"online")]


def test_after_a_connection_all_is_said_again() -> None:
    outbox = Outbox(RESEND)
    for kind in (Kind.STATUS, Kind.INFO):
        outbox.put(kind, b"x", 0.0)
    sent(outbox, 0.0, 1)
    outbox.acknowledged(Kind.STATUS, Order(1, 1, 1))
    outbox.again(5.0)
    assert [kind for kind, _ in due(outbox, 5.0)] == [Kind.STATUS, Kind.INFO]


@given(
    lacking=st.lists(st.booleans(), min_size=1, max_size=300).filter(any),
    most=st.sampled_from([1, 3, SMALL_WINDOW, MAX_BITS]),
)
def test_a_window_starts_at_the_first_lacking_chunk_and_holds_no_more_than_asked(
    lacking: list[bool], most: int
) -> None:
    first = lacking.index(True)
    window = window_of(lacking, first, most)
    inside = sum(lacking[window.start : window.stop])
    assert window.start == first
    assert 1 <= inside <= most
    assert inside == min(most, sum(lacking))


def test_a_window_never_spans_more_chunks_than_a_message_holds() -> None:
    assert len(window_of([True] * 10_000, 0, MAX_BITS)) == MAX_BITS
    assert len(window_of([True] + [False] * 9_000 + [True], 0, MAX_BITS)) == MAX_BITS


@given(attempt=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_delays_stay_within_their_bounds(attempt: int, chance: float) -> None:
    assert 0.25 <= delay_s((0.5, 60.0), attempt, chance) <= 60.0


def message(topic: str) -> aiomqtt.Message:
    return aiomqtt.Message(topic, b"", qos=0, retain=False, mid=0, properties=None)


async def test_a_flood_of_chunks_pushes_out_no_goal_and_is_counted() -> None:
    queue = InboundQueue()
    for index in range(MAX_CHUNKS_QUEUED + 10):
        queue.put_nowait(message(chunk_topic("a" * 64, index)))
    queue.put_nowait(message(device_topic("d", Kind.DESIRED)))
    assert (queue.dropped_chunks, queue.qsize()) == (10, MAX_CHUNKS_QUEUED + 1)
    for _ in range(MAX_OTHERS_QUEUED + 5):
        queue.put_nowait(message(device_topic("d", Kind.ACK)))
    assert queue.dropped_others == 6
    queue.get_nowait()
    queue.put_nowait(message(chunk_topic("a" * 64, 0)))
    assert queue.dropped_chunks == 10


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    loop = asyncio.get_running_loop()
    started, release, ended = asyncio.Event(), asyncio.Event(), []

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        ended.append(True)
        raise ValueError("nobody hears this")

    task = asyncio.create_task(in_thread(work))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    release.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == [True]
