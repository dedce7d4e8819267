"""What a model's state looks like in `reported`. Pure but for the engine's word on what answers."""

from device_agent.core.deployment import Deployment
from device_agent.updater.model import Model
from lepton_edge.wire.goal import ModelGoal
from lepton_edge.wire.messages import ModelReport, State

_SHORT = 256
_TEXT = 1024


def report_model(model: Model, entry: ModelGoal | None, serving: str) -> ModelReport | None:
    """The report on one model; None where there is nothing to say of it.

    Args:
        entry: what the goal says of it.
        serving: the digest of the bundle that answers, or empty.
    """
    journal = model.journal
    current, committed = journal.current, journal.committed
    if model.is_removed and entry is None:
        return None
    goes_by_committed = committed is not None and (
        current is None or (entry is not None and current.is_over and committed.deployment == entry.deployment)
    )
    if committed is not None and goes_by_committed:
        return ModelReport(
            deployment=committed.deployment,
            state=State.COMMITTED,
            bundle=committed.bundle,
            version=committed.version[:_SHORT],
            serving=serving,
            choice=committed.choice,
            measured=current.work.measured[:32] if current and current.id == committed.deployment else [],
            progress=1.0,
        )
    if current is not None:
        return _report_current(model, current, serving)
    if entry is not None:
        return ModelReport(
            deployment=entry.deployment, state=State.PENDING, bundle=entry.manifest.sha256, serving=serving
        )
    return None


def _report_current(model: Model, current: Deployment, serving: str) -> ModelReport:
    """While the journal cannot be written, the deployment waits where it is."""
    code, reason = model.stuck or (current.code, current.reason)
    is_stuck = model.stuck is not None and current.state is not State.WAITING
    return ModelReport(
        deployment=current.id,
        state=State.WAITING if is_stuck else current.state,
        bundle=current.bundle,
        version=current.work.version[:_SHORT],
        code=code[:_SHORT],
        reason=reason[:_TEXT],
        serving=serving,
        choice=current.work.choice,
        measured=current.work.measured[:32],
        progress=min(1.0, model.progress),
        until_ms=current.until_ms,
        returns_to=current.state if is_stuck else current.returns_to,
    )
