"""The deployment machine: all of its rules, and no input or output.

A deployment is in one state. `step` takes it and what happened, looks the pair up in `MOVES`, and gives the next
state with the actions that the shell then runs; time and chance are arguments. The shell writes the new deployment
to the journal BEFORE it runs an action, so every action may be run again after a restart.

Rules beside the table, each in `_effective`:

- A temporary error waits and returns to its state, at most MAX_FAULTS times; then it counts as a permanent one.
- A crash of the process while the model's own code runs counts; MAX_CRASHES of them are a permanent error.
- Moves are capped, as in mender (`kMaxStateDataStoreCount`): whatever goes round in circles is rolled back.
- What is rolled back because it was cancelled ends `cancelled`, else `failed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from lepton_edge.typed import Record
from lepton_edge.wire.messages import TERMINAL, Choice, State

MAX_FAULTS = 12
MAX_CRASHES = 2
MAX_MOVES = 80
"""10 straight ones, 2 for each fault, 4 for each of 7 further candidates, and 18 restarts."""
LAST_MOVES = 8
"""Moves still granted to a rolling back that restarts: then the deployment ends, whatever is left undone."""
FIRST_DELAY_MS = 2_000
LONGEST_DELAY_MS = 900_000


_HARMLESS = (
    State.PENDING,
    State.VERIFYING_META,
    State.PREFLIGHT,
    State.DOWNLOADING,
    State.VERIFYING,
    State.STAGING,
    State.SELF_TESTING,
)
"""Up to here the new model has not answered a request: these states can wait, and nothing needs undoing."""


class Event(StrEnum):
    """What can happen to a deployment."""

    DONE = "done"
    """The state's work ended well."""
    MORE = "more"
    """The state's work needs files that are not here: the next candidate, or chunks that the disk lost."""
    FAULT = "fault"
    """A temporary error."""
    FAILED = "failed"
    """A permanent error, or a budget that is used up."""
    CANCEL = "cancel"
    """The goal no longer names this deployment."""
    WAKE = "wake"
    """The wait is over."""
    CRASHED = "crashed"
    """The process ended in this state; the operating system did not."""
    POWER_LOST = "power-lost"
    """The machine, or an orderly stop of the agent, ended the process."""
    UNDONE = "undone"
    """What was cancelled is rolled back."""


class Action(StrEnum):
    """What the shell does on entering a state."""

    BEGIN = "begin"
    FETCH_META = "fetch-meta"
    CHECK_FIT = "check-fit"
    FETCH_FILES = "fetch-files"
    VERIFY_FILES = "verify-files"
    STAGE = "stage"
    SELF_TEST = "self-test"
    ACTIVATE = "activate"
    WATCH = "watch"
    SETTLE = "settle"
    SLEEP = "sleep"
    ROLL_BACK = "roll-back"
    DISCARD = "discard"


class Work(Record, frozen=True, kw_only=True):
    """What a deployment has found out so far; the shell fills it in, the machine only carries it.

    batch: the variants on trial. rejected: variant -> why. fetched: bytes of chunks taken in.
    """

    version: str = ""
    slot: str = ""
    batch: list[str] = []
    rejected: dict[str, str] = {}
    measured: list[Choice] = []
    choice: Choice | None = None
    fetched: int = 0


class Deployment(Record, frozen=True, kw_only=True):
    """One deployment of one model, as the journal keeps it.

    boot_id: of the operating system that ran when this was written; empty after an orderly stop.
    until_ms, returns_to: only in `waiting`. code, reason: of the last error.
    """

    id: str
    bundle: str
    state: State = State.PENDING
    boot_id: str = ""
    moves: int = 0
    faults: int = 0
    crashes: int = 0
    until_ms: int = 0
    returns_to: State | None = None
    code: str = ""
    reason: str = ""
    cancelled: bool = False
    work: Work = Work()

    def __post_init__(self) -> None:
        if (self.state is State.WAITING) != (self.returns_to in _HARMLESS):
            raise ValueError(f"state {self.state} does not fit returns_to {self.returns_to}")

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True)
class Signal:
    """An event, with the error's code and reason where there is one."""

    event: Event
    code: str = ""
    reason: str = ""


class Move(NamedTuple):
    """Where a pair leads. state: None stands for the state that `waiting` returns to."""

    state: State | None
    actions: tuple[Action, ...] = ()


class ImpossibleMoveError(RuntimeError):
    """A pair that the table lacks: a fault of the program, never of a model or a message."""


ENTRY: Mapping[State, tuple[Action, ...]] = {
    State.PENDING: (Action.BEGIN,),
    State.VERIFYING_META: (Action.FETCH_META,),
    State.PREFLIGHT: (Action.CHECK_FIT,),
    State.DOWNLOADING: (Action.FETCH_FILES,),
    State.VERIFYING: (Action.VERIFY_FILES,),
    State.STAGING: (Action.STAGE,),
    State.SELF_TESTING: (Action.SELF_TEST,),
    State.ACTIVATING: (Action.ACTIVATE,),
    State.PROBATION: (Action.WATCH,),
    State.COMMITTED: (Action.SETTLE,),
    State.WAITING: (Action.SLEEP,),
    State.ROLLING_BACK: (Action.ROLL_BACK,),
    State.FAILED: (Action.DISCARD,),
    State.CANCELLED: (Action.DISCARD,),
}
"""What is run on entering a state."""

_LIVE = (State.ACTIVATING, State.PROBATION)
_MODEL_RUNS = frozenset({State.SELF_TESTING, State.ACTIVATING})


def _to(state: State) -> Move:
    return Move(state, ENTRY[state])


def _table() -> dict[tuple[State, Event], Move]:
    moves: dict[tuple[State, Event], Move] = {
        (State.PENDING, Event.DONE): _to(State.VERIFYING_META),
        (State.VERIFYING_META, Event.DONE): _to(State.PREFLIGHT),
        (State.PREFLIGHT, Event.DONE): _to(State.DOWNLOADING),
        (State.DOWNLOADING, Event.DONE): _to(State.VERIFYING),
        (State.VERIFYING, Event.DONE): _to(State.STAGING),
        (State.VERIFYING, Event.MORE): _to(State.DOWNLOADING),
        (State.STAGING, Event.DONE): _to(State.SELF_TESTING),
        (State.STAGING, Event.MORE): _to(State.DOWNLOADING),
        (State.SELF_TESTING, Event.DONE): _to(State.ACTIVATING),
        (State.SELF_TESTING, Event.MORE): _to(State.DOWNLOADING),
        (State.ACTIVATING, Event.DONE): _to(State.PROBATION),
        # The session that passed lived in the process that is gone: it must be loaded, so tested, again.
        (State.ACTIVATING, Event.CRASHED): _to(State.SELF_TESTING),
        (State.ACTIVATING, Event.POWER_LOST): _to(State.SELF_TESTING),
        (State.PROBATION, Event.DONE): _to(State.COMMITTED),
        (State.PROBATION, Event.CRASHED): _to(State.ROLLING_BACK),
        (State.PROBATION, Event.POWER_LOST): _to(State.PROBATION),
        (State.WAITING, Event.WAKE): Move(None),
        (State.WAITING, Event.FAILED): _to(State.ROLLING_BACK),
        (State.WAITING, Event.CANCEL): _to(State.CANCELLED),
        (State.WAITING, Event.CRASHED): _to(State.WAITING),
        (State.WAITING, Event.POWER_LOST): _to(State.WAITING),
        (State.ROLLING_BACK, Event.DONE): _to(State.FAILED),
        (State.ROLLING_BACK, Event.UNDONE): _to(State.CANCELLED),
        (State.ROLLING_BACK, Event.FAULT): _to(State.FAILED),
        (State.ROLLING_BACK, Event.FAILED): _to(State.FAILED),
        (State.ROLLING_BACK, Event.CANCEL): _to(State.ROLLING_BACK),
        (State.ROLLING_BACK, Event.CRASHED): _to(State.ROLLING_BACK),
        (State.ROLLING_BACK, Event.POWER_LOST): _to(State.ROLLING_BACK),
    }
    for state in _HARMLESS:
        moves[state, Event.FAULT] = _to(State.WAITING)
        moves[state, Event.FAILED] = _to(State.ROLLING_BACK)
        moves[state, Event.CANCEL] = _to(State.CANCELLED)
        moves[state, Event.CRASHED] = _to(state)
        moves[state, Event.POWER_LOST] = _to(state)
    for state in _LIVE:
        moves[state, Event.FAULT] = _to(State.ROLLING_BACK)
        moves[state, Event.FAILED] = _to(State.ROLLING_BACK)
        moves[state, Event.CANCEL] = _to(State.ROLLING_BACK)
    for state in TERMINAL:
        moves[state, Event.CANCEL] = Move(state)
    return moves


MOVES: Mapping[tuple[State, Event], Move] = _table()
"""(state, event) -> (state, actions). A pair that is missing cannot happen."""


def begin(deployment_id: str, bundle: str) -> Deployment:
    """A deployment that has done nothing yet."""
    return Deployment(id=deployment_id, bundle=bundle)


def restart_signal(deployment: Deployment, boot_id: str) -> Signal:
    """What a deployment that a new process finds open has gone through."""
    if deployment.boot_id == boot_id:
        return Signal(Event.CRASHED, "crash", f"the agent ended unexpectedly in {deployment.state}")
    return Signal(Event.POWER_LOST)


def backoff_ms(faults: int, chance: float) -> int:
    """How long to wait after the given number of earlier faults: doubling, capped, and spread by chance in [0, 1)."""
    longest = min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** min(faults, 32))
    return int(longest * (0.5 + chance / 2))


def step(
    deployment: Deployment, signal: Signal, *, now_ms: int, chance: float
) -> tuple[Deployment, tuple[Action, ...]]:
    """The next state of a deployment, and what to do there.

    Args:
        now_ms: Unix milliseconds.
        chance: in [0, 1), spreads the waits of devices that fail together.

    Raises:
        ImpossibleMoveError: the table has no such pair.
    """
    signal = _effective(deployment, signal)
    move = MOVES.get((deployment.state, signal.event))
    if move is None:
        raise ImpossibleMoveError(f"deployment {deployment.id}: {signal.event} cannot happen in {deployment.state}")
    if deployment.is_over:
        return deployment, move.actions
    state = move.state or deployment.returns_to
    if state is None:
        raise ImpossibleMoveError(f"deployment {deployment.id}: waits without a state to return to")
    return _moved(deployment, signal, state, now_ms=now_ms, chance=chance), ENTRY[state]


def _effective(deployment: Deployment, signal: Signal) -> Signal:
    """The signal after the rules that count."""
    state, event = deployment.state, signal.event
    rolling_back = state is State.ROLLING_BACK
    limit = MAX_MOVES + LAST_MOVES if rolling_back else MAX_MOVES
    if not deployment.is_over and deployment.moves >= limit and event is not Event.CANCEL:
        return Signal(Event.FAILED, deployment.code or "too-many-moves", deployment.reason or f"{limit} moves")
    if event is Event.FAULT and deployment.faults >= MAX_FAULTS and not rolling_back:
        return Signal(Event.FAILED, signal.code, signal.reason)
    if event is Event.CRASHED and state in _MODEL_RUNS and deployment.crashes + 1 >= MAX_CRASHES:
        return Signal(Event.FAILED, signal.code, signal.reason)
    if event is Event.DONE and rolling_back and deployment.cancelled:
        return Signal(Event.UNDONE)
    return signal


def _moved(deployment: Deployment, signal: Signal, state: State, *, now_ms: int, chance: float) -> Deployment:
    waits_anew = state is State.WAITING and signal.event is Event.FAULT
    changes: dict[str, object] = {"state": state, "moves": deployment.moves + 1}
    if waits_anew:
        changes["until_ms"] = now_ms + backoff_ms(deployment.faults, chance)
        changes["returns_to"] = deployment.state
        changes["faults"] = deployment.faults + 1
    elif state is not State.WAITING:
        changes["until_ms"], changes["returns_to"] = 0, None
    if signal.event is Event.CRASHED and deployment.state in _MODEL_RUNS:
        changes["crashes"] = deployment.crashes + 1
    if signal.event is Event.CANCEL and state is not deployment.state:
        changes["cancelled"] = True
    if _tells_why(deployment, signal, state):
        changes["code"], changes["reason"] = signal.code, signal.reason
    elif signal.event in {Event.WAKE, Event.CANCEL} and deployment.state is not State.ROLLING_BACK:
        changes["code"], changes["reason"] = "", ""
    return msgspec.structs.replace(deployment, **changes)


def _tells_why(deployment: Deployment, signal: Signal, state: State) -> bool:
    """Whether the signal's code is the deployment's from now on; the first reason to roll back stays."""
    if deployment.state is State.ROLLING_BACK or not signal.code:
        return False
    return state is State.ROLLING_BACK or signal.event is Event.FAULT
