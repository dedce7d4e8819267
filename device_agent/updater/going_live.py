"""Going live, probation, and the way back."""

import asyncio
import time

from device_agent.core.deployment import Signal
from device_agent.threads import in_thread
from device_agent.trial import golden_check
from device_agent.updater.job import DONE, Job, read_staged_golden
from device_agent.updater.serving import go_back
from lepton_edge.bundle.manifest import GOLDEN, MANIFEST
from lepton_edge.errors import SelfTestError
from lepton_edge.wire.goal import Probation

_WATCH_S = 0.1


async def activate(job: Job) -> Signal:
    """Switch the slot, then the requests."""
    model, engine = job.model, job.parts.engine
    if model.trial is None:
        raise RuntimeError(f"{model.name}: activating without a passed self-test")
    await in_thread(model.slots.switch, model.current.work.slot)
    model.previous = engine.serving(model.name)
    engine.install(model.trial)
    return DONE


async def watch(job: Job) -> Signal:
    """Probation: few errors while requests come, and the golden inputs where too few came."""
    model, probation = job.model, job.entry.probation
    deadline = time.monotonic() + probation.probation_s
    while (left := deadline - time.monotonic()) > 0:
        _check_health(job, probation)
        await asyncio.sleep(min(left, _WATCH_S))
    if _check_health(job, probation) < probation.probation_n and model.trial is not None:
        golden = await in_thread(read_staged_golden, job)
        await in_thread(golden_check, model.trial.session, model.trial.variant, golden)
    return DONE


def _check_health(job: Job, probation: Probation) -> int:
    """The number of requests so far. Raises SelfTestError where too many failed."""
    health = job.parts.engine.health(job.model.name)
    if health.failures > probation.max_errors:
        raise SelfTestError(
            f"probation: {health.failures} of {health.requests} inferences failed, {probation.max_errors} are forgiven"
        )
    return health.requests


async def settle(job: Job) -> Signal:
    """Let go of the old model in memory, and of the candidates that were not chosen."""
    model = job.model
    committed = model.journal.committed
    serving = job.parts.engine.serving(model.name)
    if committed is not None and serving is not None and serving.bundle == committed.bundle:
        await in_thread(model.slots.prune, committed.slot, {MANIFEST, GOLDEN, serving.variant.file})
    model.previous = model.manifest = None
    return DONE


async def roll_back(job: Job) -> Signal:
    """The committed model answers again."""
    await in_thread(go_back, job.model, job.parts)
    return DONE


async def discard(job: Job) -> Signal:
    """Clear the slot that the deployment had filled."""
    model = job.model
    model.trial = model.previous = model.manifest = None
    committed = model.journal.committed
    # A process that died in `activating` may have left the pointer on the slot that goes now.
    await in_thread(model.slots.switch, committed.slot if committed else None)
    await in_thread(model.slots.discard, model.trial_slot)
    return DONE
