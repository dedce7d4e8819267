"""The deployment table: total where it must be, always ending, and each rule of it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.core.batch import first_batch, next_candidate
from device_agent.core.deployment import (
    ENTRY,
    FIRST_DELAY_MS,
    LAST_MOVES,
    LONGEST_DELAY_MS,
    MAX_CRASHES,
    MAX_FAULTS,
    MAX_MOVES,
    MOVES,
    Action,
    Deployment,
    Event,
    ImpossibleMoveError,
    Signal,
    backoff_ms,
    begin,
    restart_signal,
    step,
)
from lepton_edge.wire.messages import TERMINAL, State
from tests.bundles import variant

OPEN = sorted(set(State) - TERMINAL)
FROM_OUTSIDE = (Event.CANCEL, Event.CRASHED, Event.POWER_LOST)


def deployment(state: State, **fields: object) -> Deployment:
    returns_to = State.DOWNLOADING if state is State.WAITING else None
    return msgspec.structs.replace(begin("d1", "b" * 64), state=state, returns_to=returns_to, **fields)


def after(found: Deployment, event: Event, code: str = "", *, now_ms: int = 1000, chance: float = 0.0) -> Deployment:
    return step(found, Signal(event, code, code), now_ms=now_ms, chance=chance)[0]


def straight() -> list[State]:
    found, states = begin("d1", "b" * 64), [State.PENDING]
    while not found.is_over:
        found = after(found, Event.DONE)
        states.append(found.state)
    return states


def test_the_straight_way_takes_the_states_of_the_design_in_order() -> None:
    assert [str(state) for state in straight()] == [
        "pending",
        "verifying-meta",
        "preflight",
        "downloading",
        "verifying",
        "staging",
        "self-testing",
        "activating",
        "probation",
        "committed",
    ]


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("event", FROM_OUTSIDE)
def test_what_comes_from_outside_can_come_in_every_open_state(state: State, event: Event) -> None:
    assert (state, event) in MOVES


@pytest.mark.parametrize("state", sorted(State))
def test_every_state_has_an_action_and_can_be_cancelled(state: State) -> None:
    assert ENTRY[state]
    assert (state, Event.CANCEL) in MOVES


@pytest.mark.parametrize("state", [state for state in OPEN if state is not State.WAITING])
@pytest.mark.parametrize("event", [Event.DONE, Event.FAULT, Event.FAILED])
def test_each_state_that_works_knows_how_its_work_can_end(state: State, event: Event) -> None:
    assert (state, event) in MOVES


@pytest.mark.parametrize("state", sorted(State))
@pytest.mark.parametrize("event", sorted(Event))
def test_a_pair_is_in_the_table_or_an_error(state: State, event: Event) -> None:
    found = deployment(state)
    if (state, event) in MOVES:
        step(found, Signal(event), now_ms=0, chance=0)
    else:
        with pytest.raises(ImpossibleMoveError, match="cannot happen"):
            step(found, Signal(event), now_ms=0, chance=0)


@given(
    state=st.sampled_from(sorted(State)),
    moves=st.integers(0, MAX_MOVES + LAST_MOVES),
    faults=st.integers(0, MAX_FAULTS),
    data=st.data(),
)
def test_whatever_happens_every_state_ends_in_bounded_moves(
    state: State, moves: int, faults: int, data: st.DataObject
) -> None:
    """The environment picks the worst events that it can; only cancelling, which a person does, is left out."""
    found = deployment(state, moves=moves, faults=faults)
    for _ in range(MAX_MOVES + LAST_MOVES + 4):
        if found.is_over:
            return
        events = sorted(event for at, event in MOVES if at is found.state and event is not Event.CANCEL)
        found = after(found, data.draw(st.sampled_from(events)), "code", chance=data.draw(st.floats(0, 0.99)))
    raise AssertionError(f"still {found.state} after {found.moves} moves")


@given(state=st.sampled_from(OPEN), data=st.data())
def test_cancel_leads_to_cancelled_from_everywhere(state: State, data: st.DataObject) -> None:
    found = after(deployment(state), Event.CANCEL)
    if state is State.ROLLING_BACK:  # it had failed before
        assert found.state is State.ROLLING_BACK
        return
    while not found.is_over:
        assert found.state is State.ROLLING_BACK
        found = after(found, data.draw(st.sampled_from([Event.DONE, Event.CRASHED, Event.POWER_LOST, Event.CANCEL])))
        if found.moves > MAX_MOVES:
            return
    assert found.state is State.CANCELLED


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_terminal_state_stays_when_cancelled(state: State) -> None:
    found = deployment(state, code="x", moves=7)
    assert step(found, Signal(Event.CANCEL), now_ms=0, chance=0) == (found, ())


@pytest.mark.parametrize("state", [State.ACTIVATING, State.PROBATION])
def test_an_error_after_going_live_is_undone_first(state: State) -> None:
    for event in (Event.FAULT, Event.FAILED):
        found = after(deployment(state), event, "self-test")
        assert (found.state, found.code) == (State.ROLLING_BACK, "self-test")
        assert after(found, Event.DONE).state is State.FAILED
        assert after(found, Event.DONE).code == "self-test"


def test_a_temporary_error_waits_and_returns_to_its_state() -> None:
    found = after(deployment(State.STAGING), Event.FAULT, "disk-full", now_ms=5000)
    assert (found.state, found.returns_to, found.code) == (State.WAITING, State.STAGING, "disk-full")
    assert found.until_ms == 5000 + FIRST_DELAY_MS // 2
    woken, actions = step(found, Signal(Event.WAKE), now_ms=7000, chance=0)
    assert (woken.state, woken.until_ms, woken.returns_to, woken.code) == (State.STAGING, 0, None, "")
    assert actions == (Action.STAGE,)


def test_the_budget_of_temporary_errors_is_used_up() -> None:
    found = deployment(State.DOWNLOADING)
    for _ in range(MAX_FAULTS):
        found = after(after(found, Event.FAULT, "transfer"), Event.WAKE)
    found = after(found, Event.FAULT, "transfer")
    assert (found.state, found.code) == (State.ROLLING_BACK, "transfer")


def test_the_normal_retries_and_candidates_fit_the_cap_on_moves() -> None:
    needed = len(straight()) - 1 + 2 * MAX_FAULTS + 4 * 7
    assert needed + 18 <= MAX_MOVES + 1


def test_circles_end_at_the_cap() -> None:
    found = deployment(State.SELF_TESTING)
    while found.state is not State.ROLLING_BACK:
        found = after(found, Event.MORE if found.state is State.SELF_TESTING else Event.DONE)
    assert (found.code, found.moves) == ("too-many-moves", MAX_MOVES + 1)


def test_a_rolling_back_that_never_ends_is_given_up() -> None:
    found = deployment(State.ROLLING_BACK, code="self-test")
    while not found.is_over:
        found = after(found, Event.CRASHED, "crash")
    assert (found.state, found.code) == (State.FAILED, "self-test")


@pytest.mark.parametrize("state", [State.SELF_TESTING, State.ACTIVATING])
def test_a_model_that_crashes_the_process_does_not_loop(state: State) -> None:
    found, crashes = deployment(state), 0
    while found.state is not State.ROLLING_BACK:
        found = after(found, Event.CRASHED, "crash")
        crashes += 1
    assert (crashes, found.code) == (MAX_CRASHES, "crash")


def test_power_loss_while_the_model_runs_is_nobodys_fault() -> None:
    found = deployment(State.SELF_TESTING)
    for _ in range(5):
        found = after(found, Event.POWER_LOST)
    assert (found.state, found.crashes) == (State.SELF_TESTING, 0)


def test_a_crash_in_probation_rolls_back_and_a_power_loss_resumes() -> None:
    crashed = after(deployment(State.PROBATION), Event.CRASHED, "crash")
    assert (crashed.state, crashed.code) == (State.ROLLING_BACK, "crash")
    assert after(deployment(State.PROBATION), Event.POWER_LOST).state is State.PROBATION


def test_the_session_is_gone_with_the_process_so_activating_tests_again() -> None:
    assert after(deployment(State.ACTIVATING), Event.POWER_LOST).state is State.SELF_TESTING


@pytest.mark.parametrize(
    ("written", "running", "event"),
    [("one", "one", Event.CRASHED), ("one", "two", Event.POWER_LOST), ("", "one", Event.POWER_LOST)],
)
def test_the_systems_boot_tells_a_crash_from_a_power_loss(written: str, running: str, event: Event) -> None:
    assert restart_signal(deployment(State.PROBATION, boot_id=written), running).event is event


def test_a_wait_survives_a_restart() -> None:
    found = after(deployment(State.DOWNLOADING), Event.FAULT, "transfer", now_ms=1000)
    again = after(found, Event.CRASHED, "crash", now_ms=1100)
    assert (again.state, again.until_ms, again.returns_to, again.code) == (
        State.WAITING,
        found.until_ms,
        State.DOWNLOADING,
        "transfer",
    )


@given(faults=st.integers(0, 1000), chance=st.floats(0, 1, exclude_max=True))
def test_backoff_grows_within_bounds_and_is_spread(faults: int, chance: float) -> None:
    delay = backoff_ms(faults, chance)
    assert FIRST_DELAY_MS // 2 <= delay <= LONGEST_DELAY_MS
    assert backoff_ms(faults + 1, chance) >= delay


def test_the_first_batch_is_the_best_of_each_runtime() -> None:
    order = [
        variant("a", 0, runtime="one"),
        variant("b", 1, runtime="two"),
        variant("c", 2, runtime="one"),
        variant("float", 3, runtime="one"),
    ]
    assert first_batch(order, 2) == ["a", "b"]
    assert first_batch(order, 4) == ["a", "b"]
    assert first_batch(order, 1) == ["a"]
    assert first_batch([], 2) == []
    assert next_candidate(order, {"a", "b"}) == "c"
    assert next_candidate(order, {"a", "b", "c", "float"}) is None
