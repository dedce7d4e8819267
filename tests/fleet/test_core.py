"""The pure rules: order, counters, targets, rollouts, needs and their pace."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core import goals, needs
from fleet.core.needs import FORGET_S, IN_FLIGHT_S, Chunk, NeedBoard
from fleet.core.order import Verdict, judge, will_counts
from fleet.core.pace import MIN_RATE, Pace
from fleet.core.rollout import ENDED, MOVES, WHEN, RolloutState, Tally, advance, gives_up
from fleet.core.targets import select
from fleet.errors import FleetError
from lepton_edge.wire.authenticator import Order
from lepton_edge.wire.messages import TERMINAL, State

small = st.integers(0, 3)
orders = st.builds(Order, small, small, small)


@given(st.lists(orders))
def test_what_is_stored_only_rises(messages: list[Order]) -> None:
    held = None
    for message in messages:
        if judge(held, message) is Verdict.NEWER:
            assert held is None or message > held
            held = message
        else:
            assert held is not None
            assert message <= held
    assert held == max(messages, default=None)


@given(orders, orders)
def test_will_counts_only_for_the_boot_stored_last(held: Order, will: Order) -> None:
    assert will_counts(held, will) == (held[:2] == will[:2])
    assert not will_counts(None, will)


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_counters_and_generations_rise_and_reach_the_clock(last: int, now: int) -> None:
    for rule in (goals.next_counter, goals.next_generation):
        assert rule(last, now) > last
        assert rule(last, now) >= now


LABELS = {"a": {"site": "x", "kind": "pi"}, "b": {"site": "x"}, "c": {}}
TARGETS = {
    "all": ["a", "b", "c"],
    "b": ["b"],
    "c,a,a": ["a", "c"],
    "site=x": ["a", "b"],
    "site=x,kind=pi": ["a"],
    " a , b ": ["a", "b"],
}


@pytest.mark.parametrize(("to", "expected"), TARGETS.items(), ids=TARGETS)
def test_targets(to: str, expected: list[str]) -> None:
    assert select(to, LABELS) == expected


BAD_TARGETS = {
    "": "empty",
    "a,": "empty",
    "d": "'d' is not enrolled",
    "a,site=x": "do not mix",
    "site=y": "no enrolled device is selected",
    "a/b": "'a/b' is not enrolled",
    "+": "is not enrolled",
    "#": "is not enrolled",
}


@pytest.mark.parametrize(("to", "message"), BAD_TARGETS.items(), ids=BAD_TARGETS)
def test_bad_targets_are_named(to: str, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        select(to, LABELS)


states = st.lists(st.sampled_from(sorted(State)))


@given(st.sampled_from(sorted(RolloutState)), states)
def test_rollout_comes_to_rest_and_ended_ones_stay(state: RolloutState, devices: list[State]) -> None:
    tally = Tally.of(devices)
    rest = advance(state, tally)
    assert advance(rest, tally) is rest
    if state in ENDED:
        assert rest is state


def test_every_condition_of_a_rollout_has_its_move() -> None:
    assert {(state, event) for state, _, event in WHEN} <= set(MOVES)
    assert set(MOVES.values()) >= ENDED


@dataclass(frozen=True)
class Case:
    devices: list[State]
    ends: RolloutState


ROLLOUTS = {
    "all committed": Case([State.COMMITTED, State.COMMITTED], RolloutState.DONE),
    "one pending": Case([State.COMMITTED, State.PENDING], RolloutState.WAVE),
    "one waiting": Case([State.WAITING], RolloutState.WAVE),
    "one failed, none open": Case([State.COMMITTED, State.FAILED], RolloutState.ROLLED_BACK),
    "one failed, one on its way": Case([State.FAILED, State.STAGING], RolloutState.ABORTING),
    "superseded": Case([State.CANCELLED], RolloutState.DONE),
}


@pytest.mark.parametrize("case", ROLLOUTS.values(), ids=ROLLOUTS)
def test_rollout(case: Case) -> None:
    assert advance(RolloutState.DRAFT, Tally.of(case.devices)) is case.ends


@given(st.sampled_from(sorted(State)), st.booleans())
def test_aborting_disturbs_no_device_at_work(state: State, online: bool) -> None:
    gives = gives_up(device_state=state, online=online)
    assert not (gives and state in TERMINAL)
    if online:
        assert gives == (state is State.PENDING)


asked_for = st.lists(st.tuples(st.sampled_from("ab"), st.sets(st.integers(0, 20)), st.floats(0, 2)), max_size=12)


@given(asked_for)
def test_all_needs_are_met_and_none_twice_within_the_flight_time(asked: list[tuple[str, set[int], float]]) -> None:
    board, now, sent, wanted = NeedBoard(), 0.0, {}, set()
    for blob, indices, step in [*asked, ("a", set(), FORGET_S / 2)]:
        board.add(blob, sorted(indices), now)
        wanted |= {Chunk(blob, index) for index in indices}
        now += step
        for chunk in board.take(now, 7 if indices else 1000):
            assert now - sent.get(chunk, -IN_FLIGHT_S) >= IN_FLIGHT_S
            sent[chunk] = now
    assert set(sent) == wanted
    assert board.wait_s(now) is None


def test_needs_of_many_devices_gather_before_the_first_chunk() -> None:
    board = NeedBoard()
    board.add("a", [0, 1], 0.0)
    assert board.take(needs.GATHER_S / 2, 10) == []
    board.add("a", [1, 2], needs.GATHER_S / 2)
    assert board.take(needs.GATHER_S, 10) == [Chunk("a", 0), Chunk("a", 1), Chunk("a", 2)]


def test_only_chunks_that_were_due_to_arrive_count_as_lost() -> None:
    board = NeedBoard()
    board.add("a", [0, 1], 0.0)
    board.take(needs.GATHER_S, 10)
    assert board.add("a", [0, 1, 2], needs.GATHER_S + IN_FLIGHT_S / 2) == 0
    assert board.add("a", [1], needs.GATHER_S + 2 * IN_FLIGHT_S) == 1


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60))
def test_pace_stays_within_its_bounds(events: list[tuple[bool, float]]) -> None:
    pace, now, most = Pace(), 0.0, 64e6
    for lost, step in events:
        now += step
        pace = pace.lost(now) if lost else pace.sent(500_000, most)
        assert MIN_RATE <= pace.rate <= most


def test_many_devices_that_ask_again_cut_the_pace_once() -> None:
    pace = Pace().lost(0.0)
    assert pace.rate == Pace().rate / 2
    assert pace.lost(0.5) == pace
    assert pace.lost(1.5).rate == pace.rate / 2
