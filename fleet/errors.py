"""Errors of the fleet room, each with the HTTP status that it becomes."""

from typing import ClassVar

from lepton_edge.errors import LeptonError


class FleetError(LeptonError):
    """A request that the fleet cannot follow."""

    code = "fleet"
    status: ClassVar[int] = 400


class UnknownError(FleetError):
    """A device, bundle, model or rollout that is not in the registry."""

    code = "unknown"
    status = 404


class ConflictError(FleetError):
    """What was asked contradicts what is recorded."""

    code = "conflict"
    status = 409


class BusyError(FleetError):
    """Another process serves the fleet."""

    code = "busy"
    permanent = False
    status = 503


class TimedOutError(FleetError):
    """A wait that somebody limited; what was waited for may still come."""

    code = "timeout"
    permanent = False
    status = 504
