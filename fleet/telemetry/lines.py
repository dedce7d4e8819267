"""The lines of the telemetry table, free of the database: commands read them too."""

from typing import Literal

from lepton_edge.typed import Record

By = Literal["all", "device", "variant"]


class Line(Record, frozen=True, kw_only=True):
    """One line of the table. Latencies in milliseconds, None where they are unknown or out of the range.

    device, variant, runtime: empty where lines are merged over them. relative_error: by which a quantile may be off.
    failures: requests that got an error. dropped: windows that devices had to drop.
    """

    model: str
    version: str
    device: str
    variant: str
    runtime: str
    count: int
    failures: int
    windows: int
    dropped: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    relative_error: float
