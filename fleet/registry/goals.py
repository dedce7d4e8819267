"""The goal of each device, from what the database says that it shall run."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.core import goals
from fleet.registry import bundles, devices
from fleet.registry.models import DeviceRow, GoalModelRow, GoalRow
from lepton_edge.typed import decode, encode
from lepton_edge.wire.goal import MAX_GOAL, Goal, Limits, ModelGoal, Probation, Settings

_MAX_OPTIONS = 4096


@dataclass(frozen=True)
class GoalMaker:
    """What all goals of a fleet have in common. sign: a Goal to the payload of d/{id}/desired."""

    fleet: str
    settings: Settings
    sign: Callable[[Goal], bytes]


def reconcile(session: Session, device: str, maker: GoalMaker, now_ms: int) -> bytes | None:
    """Sign a new goal where the database asks for something else than the last one does.

    Nothing is signed for a device with lost history, and none that would drop an adopted model because its bundle is
    not published here.

    Returns:
        The payload to publish once this transaction is committed; None where nothing changed or may be signed.
    """
    row = devices.get(session, device)
    if blocked_because(session, row):
        return None
    last = session.get(GoalRow, device)
    goal = _wanted(session, row, maker, goals.next_counter(row.counter, now_ms))
    if last is not None and goals.same_wish(goal, _stored(last)) and last.counter == row.counter:
        return None
    payload = maker.sign(goal)
    row.counter = goal.counter
    session.merge(
        GoalRow(device=device, counter=goal.counter, document=encode(goal), payload=payload, signed_ms=now_ms)
    )
    return payload


def blocked_because(session: Session, row: DeviceRow) -> str:
    """Why nothing may be signed for a device; empty where it may."""
    if row.lost:
        return f"{row.id} follows goals that this manager does not know: `lepton-edge devices --adopt {row.id}`"
    wanted = devices.goal_models(session, row.id)
    missing = set(bundles.missing(session, {model.digest for model in wanted.values()}))
    for name, model in sorted(wanted.items()):
        if model.digest in missing:
            return f"{row.id} runs {name} ({model.digest[:12]}), which is not published here: publish it or remove it"
    return ""


def _wanted(session: Session, row: DeviceRow, maker: GoalMaker, counter: int) -> Goal:
    models = {name: _entry(session, model) for name, model in devices.goal_models(session, row.id).items()}
    return Goal(
        fleet=maker.fleet,
        device=row.id,
        generation=row.generation,
        counter=counter,
        models=models,
        settings=maker.settings,
    )


def _entry(session: Session, model: GoalModelRow) -> ModelGoal:
    bundle = bundles.get(session, model.digest)
    return ModelGoal(
        deployment=model.deployment,
        manifest=bundles.manifest_ref(bundle),
        signature=bundles.signature_of(bundle),
        limits=decode(model.limits.encode(), Limits, what="limits", limit=_MAX_OPTIONS),
        probation=decode(model.probation.encode(), Probation, what="probation", limit=_MAX_OPTIONS),
    )


def _stored(row: GoalRow) -> Goal:
    return decode(row.document, Goal, what=f"goal of {row.device}", limit=MAX_GOAL)


def signed(session: Session, device: str) -> Goal | None:
    """The goal signed last."""
    row = session.get(GoalRow, device)
    return _stored(row) if row is not None else None


def payloads(session: Session) -> dict[str, bytes]:
    """The goal signed last for each device: what d/{id}/desired retains."""
    return {row.device: row.payload for row in session.scalars(select(GoalRow))}


def reach(session: Session) -> dict[str, frozenset[str]]:
    """Per device, the bundles that its last signed goal names."""
    return {row.device: digests(_stored(row)) for row in session.scalars(select(GoalRow))}


def digests(goal: Goal) -> frozenset[str]:
    return frozenset(model.manifest.sha256 for model in goal.models.values())
