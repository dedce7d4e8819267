"""Why a device chose what it chose, in words. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from lepton_edge.wire.messages import Choice

_MAX_TEXT = 1024


def with_reason(chosen: Choice, measured: Sequence[Choice], rejected: Mapping[str, str]) -> Choice:
    """The choice with its reason: the figures that it won by, and what failed before.

    Args:
        chosen: one of `measured`.
        measured: all that passed.
        rejected: variant -> why it did not pass.
    """
    listed = ", ".join(f"{one.variant} {one.p50_ms:.3g} ms" for one in sorted(measured, key=lambda one: one.p50_ms))
    won = f"the fastest of {len(measured)}" if len(measured) > 1 else "the best-ranked that passes here"
    failed = [f"{name} failed: {why.removeprefix(f'variant {name}: ')}" for name, why in rejected.items()]
    return msgspec.structs.replace(chosen, reason="; ".join([f"{won}: {listed}", *failed])[:_MAX_TEXT])
