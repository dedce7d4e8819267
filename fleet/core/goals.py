"""Goals: when one may be signed, and what it says."""

import msgspec

from lepton_edge.wire.goal import Goal


def next_counter(last: int, now_ms: int) -> int:
    """Rises always, and past every counter of a lost database whose clock was right."""
    return max(last + 1, now_ms)


def history_is_lost(reported_counter: int, recorded_counter: int) -> bool:
    """Whether a device follows a goal that this database does not know of."""
    return reported_counter > recorded_counter


def same_wish(one: Goal, other: Goal) -> bool:
    """Whether two goals ask for the same: then no new one is signed."""
    return msgspec.structs.replace(one, counter=0) == msgspec.structs.replace(other, counter=0)


def next_generation(last: int, now_ms: int) -> int:
    """The generation of a new enrolment.

    Unix milliseconds rather than 1, 2, 3: an id that is enrolled again from an empty database must not get a
    generation that old goals already name.
    """
    return max(last + 1, now_ms)
