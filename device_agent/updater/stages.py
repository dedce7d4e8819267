"""What is done in each state. Every stage may be run again after a restart, and ends with the event that comes next.

A stage raises LeptonError where it fails; whether that is a fault that passes or a failure is the error's own
`permanent`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from device_agent.core.deployment import Action, Event, Signal
from device_agent.updater.fetching import check_fit, fetch_files, fetch_meta, stage, verify_files
from device_agent.updater.going_live import activate, discard, roll_back, settle, watch
from device_agent.updater.job import DONE, Job
from device_agent.updater.parts import now_ms
from device_agent.updater.trying import run_self_test

_LONGEST_SLEEP_MS = 900_000

Stage = Callable[[Job], Awaitable[Signal]]


async def begin(job: Job) -> Signal:
    """Nothing: `pending` is over as soon as somebody looks."""
    job.model.trial = job.model.previous = job.model.manifest = None
    return DONE


async def sleep(job: Job) -> Signal:
    """Wait until it is time to try again; a clock that jumps back cannot make it wait for ever."""
    left_ms = job.model.current.until_ms - now_ms()
    await asyncio.sleep(min(max(left_ms, 0), _LONGEST_SLEEP_MS) / 1000)
    return Signal(Event.WAKE)


STAGES: Mapping[Action, Stage] = {
    Action.BEGIN: begin,
    Action.FETCH_META: fetch_meta,
    Action.CHECK_FIT: check_fit,
    Action.FETCH_FILES: fetch_files,
    Action.VERIFY_FILES: verify_files,
    Action.STAGE: stage,
    Action.SELF_TEST: run_self_test,
    Action.ACTIVATE: activate,
    Action.WATCH: watch,
    Action.SETTLE: settle,
    Action.SLEEP: sleep,
    Action.ROLL_BACK: roll_back,
    Action.DISCARD: discard,
}
