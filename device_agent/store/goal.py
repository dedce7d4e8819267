"""The goal file: the signed bytes, whole; the counter is read from them."""

import logging
from dataclasses import dataclass
from pathlib import Path

from device_agent.store import documents
from lepton_edge import durable
from lepton_edge.errors import GoalRefusedError, LeptonError, StorageError
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.goal import Goal, check_addressee, open_goal

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldGoal:
    """The goal that the device follows."""

    goal: Goal
    payload: bytes


def load_goal(path: Path, enrolment: Enrolment) -> HeldGoal | None:
    """The goal on disk; None where there is none, it is damaged, or it is of an earlier enrolment.

    Its signature is checked like a received one's: the disk is no better a source than the network.
    """
    try:
        with durable.translated(path):
            payload = path.read_bytes()
        goal = open_goal(payload, enrolment.goal_keys)
        check_addressee(goal, fleet=enrolment.fleet, device=enrolment.device, generation=enrolment.generation)
    except GoalRefusedError as error:
        _LOG.info("the goal on disk is not for this enrolment, waiting for a new one: %s", error)
        return None
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            _LOG.warning("the goal on disk cannot be read, waiting for a new one: %s", error)
        return None
    except LeptonError as error:
        documents.set_aside(path, str(error))
        return None
    return HeldGoal(goal, payload)


def save_goal(path: Path, payload: bytes) -> None:
    """Raises DiskFullError or StorageError."""
    durable.write(path, payload)
