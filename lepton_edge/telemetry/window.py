"""A window: what one model's variant did on one device in one stretch of time."""

from typing import Annotated

import msgspec

from lepton_edge.telemetry.histogram import Count, Histogram
from lepton_edge.typed import Record

WindowId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Label = Annotated[str, msgspec.Meta(max_length=128)]

Moment = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Window(Record, frozen=True, kw_only=True):
    """Latencies of one (model, version, variant) between two moments.

    id: 128 random bits in hex; a window that arrives twice counts once.
    bundle: the digest of the manifest that was serving.
    start_ms, end_ms: Unix milliseconds by the device's clock.
    failures: requests that got an error, whose latency is not counted.
    dropped: windows that the device had to drop, for want of space, before this one.
    """

    id: WindowId
    model: Label
    version: Label
    bundle: Label
    variant: Label
    runtime: Label
    start_ms: Moment
    end_ms: Moment
    latency: Histogram
    failures: Count = 0
    dropped: Count = 0
