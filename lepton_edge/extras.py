"""What to install where a package is missing: each room of the house has an extra that brings what it needs."""

from types import TracebackType

EXTRAS = {"converters": "convert", "device_agent": "agent", "fleet": "fleet"}
"""Room -> extra."""
_OURS = {"lepton_edge", *EXTRAS}


def advice(error: ModuleNotFoundError) -> str:
    """One line: what is missing and what to install; "" where it is a module of our own, which is a fault here."""
    missing = (error.name or "").partition(".")[0]
    if not missing or missing in _OURS:
        return ""
    return f"this needs the package {missing}, which is not installed: pip install 'lepton-edge[{_extra(error)}]'"


def _extra(error: ModuleNotFoundError) -> str:
    """That of the room which wanted the module: the innermost on the way to it."""
    found = "all"
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        room = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        found, trace = EXTRAS.get(room, found), trace.tb_next
    return found
