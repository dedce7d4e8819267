"""The rollout machine, with the words of DESIGN. Today it goes through one wave without soaking.

    draft -> dry-run                      (only asked: ends here)
    draft -> ready -> wave -> soak -> gate -> done
                       |               |
                       +-> aborting <--+ -> rolled-back

`paused` and further waves come with the gate's figures; the table has their place.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from lepton_edge.wire.messages import TERMINAL, State


class RolloutState(StrEnum):
    """The words of database, API and JSON."""

    DRAFT = "draft"
    DRY_RUN = "dry-run"
    READY = "ready"
    WAVE = "wave"
    SOAK = "soak"
    GATE = "gate"
    PAUSED = "paused"
    ABORTING = "aborting"
    ROLLED_BACK = "rolled-back"
    DONE = "done"


class Event(Enum):
    """What moves a rollout."""

    ASKED = "only asked"
    PLANNED = "targets chosen"
    STARTED = "goals changed"
    WAVE_ENDED = "all devices of the wave ended well"
    FAILED = "a device failed"
    SOAKED = "soak time over"
    PASSED = "last gate passed"
    SETTLED = "no device is on its way any more"


ENDED = frozenset({RolloutState.DRY_RUN, RolloutState.ROLLED_BACK, RolloutState.DONE})

MOVES: Mapping[tuple[RolloutState, Event], RolloutState] = {
    (RolloutState.DRAFT, Event.ASKED): RolloutState.DRY_RUN,
    (RolloutState.DRAFT, Event.PLANNED): RolloutState.READY,
    (RolloutState.READY, Event.STARTED): RolloutState.WAVE,
    (RolloutState.WAVE, Event.WAVE_ENDED): RolloutState.SOAK,
    (RolloutState.WAVE, Event.FAILED): RolloutState.ABORTING,
    (RolloutState.SOAK, Event.SOAKED): RolloutState.GATE,
    (RolloutState.SOAK, Event.FAILED): RolloutState.ABORTING,
    (RolloutState.GATE, Event.PASSED): RolloutState.DONE,
    (RolloutState.GATE, Event.FAILED): RolloutState.ABORTING,
    (RolloutState.ABORTING, Event.SETTLED): RolloutState.ROLLED_BACK,
}


@dataclass(frozen=True)
class Tally:
    """How many devices of a rollout are where. open: neither committed, failed nor cancelled."""

    committed: int
    failed: int
    cancelled: int
    open: int

    @classmethod
    def of(cls, states: Iterable[str]) -> "Tally":
        found = [State(state) for state in states]
        return cls(
            committed=found.count(State.COMMITTED),
            failed=found.count(State.FAILED),
            cancelled=found.count(State.CANCELLED),
            open=sum(state not in TERMINAL for state in found),
        )


# One wave, no soak time yet: `soak` and `gate` pass at once, failures are seen in `wave`. Read from the top.
WHEN: tuple[tuple[RolloutState, Callable[[Tally], bool], Event], ...] = (
    (RolloutState.DRAFT, lambda _: True, Event.PLANNED),
    (RolloutState.READY, lambda _: True, Event.STARTED),
    (RolloutState.WAVE, lambda tally: tally.failed > 0, Event.FAILED),
    (RolloutState.WAVE, lambda tally: tally.open == 0, Event.WAVE_ENDED),
    (RolloutState.SOAK, lambda _: True, Event.SOAKED),
    (RolloutState.GATE, lambda _: True, Event.PASSED),
    (RolloutState.ABORTING, lambda tally: tally.open == 0, Event.SETTLED),
)


def _event(state: RolloutState, tally: Tally) -> Event | None:
    return next((event for at, holds, event in WHEN if at is state and holds(tally)), None)


def advance(state: RolloutState, tally: Tally) -> RolloutState:
    """Where the rollout stands, given its devices: as many moves as hold now."""
    while (event := _event(state, tally)) is not None:
        state = MOVES[state, event]
    return state


def gives_up(*, device_state: str, online: bool) -> bool:
    """Whether an aborting rollout takes its entry back from a device: one that has not begun, or is away.

    One that works on it is left to end by itself: its own gate decides.
    """
    state = State(device_state)
    return state not in TERMINAL and (state is State.PENDING or not online)
