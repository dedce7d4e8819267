"""Which of two messages on one topic of a device counts (DESIGN, "Order")."""

from enum import Enum

from lepton_edge.wire.authenticator import Order


class Verdict(Enum):
    """NEWER is committed, then acknowledged; EQUAL and LOWER are acknowledged only, and LOWER is counted."""

    NEWER = "newer"
    EQUAL = "equal"
    LOWER = "lower"


def judge(held: Order | None, got: Order) -> Verdict:
    """Compare a message with the last one stored on its topic: by generation, then boot, then seq."""
    if held is None or got > held:
        return Verdict.NEWER
    return Verdict.EQUAL if got == held else Verdict.LOWER


def will_counts(held: Order | None, will: Order) -> bool:
    """Whether a will says something about the present: only if it is of the boot whose status was stored last.

    A will of an earlier boot comes late, one of a boot unknown so far comes from a session that never said hello.
    """
    return held is not None and (held.generation, held.boot) == (will.generation, will.boot)
