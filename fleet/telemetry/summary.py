"""Merge latency windows into one line per device, or variant, or both."""

import math
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.registry.models import WindowRow
from fleet.telemetry.lines import By, Line
from lepton_edge.telemetry.histogram import Histogram
from lepton_edge.typed import decode

_MAX_HISTOGRAM = 256 * 1024
_BATCH = 500


class _Sum:
    """What one line adds up."""

    def __init__(self) -> None:
        self.latency = Histogram()
        self.failures = self.windows = self.dropped = 0

    def add(self, row: WindowRow) -> None:
        latency = decode(row.latency.encode(), Histogram, what=f"window {row.id}", limit=_MAX_HISTOGRAM)
        self.latency = self.latency.merge(latency)
        self.failures += row.failures
        self.dropped += row.dropped
        self.windows += 1

    def quantile_ms(self, q: float) -> float | None:
        value = self.latency.quantile(q)
        return value * 1e3 if math.isfinite(value) else None


def _key(row: WindowRow, by: By) -> tuple[str, str, str, str, str]:
    device = row.device if by != "variant" else ""
    variant, runtime = (row.variant, row.runtime) if by != "device" else ("", "")
    return row.model, row.version, device, variant, runtime


def summarise(session: Session, *, model: str, by: By) -> list[Line]:
    """Args: model: empty for all. by: "all" keeps devices and variants apart."""
    query = select(WindowRow).execution_options(yield_per=_BATCH)
    if model:
        query = query.where(WindowRow.model == model)
    return merge(session.scalars(query), by)


def merge(rows: Iterable[WindowRow], by: By) -> list[Line]:
    """One line per key, sorted."""
    sums: dict[tuple[str, str, str, str, str], _Sum] = {}
    for row in rows:
        sums.setdefault(_key(row, by), _Sum()).add(row)
    return [_line(key, total) for key, total in sorted(sums.items())]


def _line(key: tuple[str, str, str, str, str], total: _Sum) -> Line:
    model, version, device, variant, runtime = key
    return Line(
        model=model,
        version=version,
        device=device,
        variant=variant,
        runtime=runtime,
        count=total.latency.count,
        failures=total.failures,
        windows=total.windows,
        dropped=total.dropped,
        p50_ms=total.quantile_ms(0.5),
        p90_ms=total.quantile_ms(0.9),
        p99_ms=total.quantile_ms(0.99),
        relative_error=total.latency.relative_error,
    )
