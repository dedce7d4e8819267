"""Figures as a person reads them on a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.outcome import VariantOutcome
    from lepton_edge.bundle.manifest import Latency, Metric


def metric_text(metric: "Metric") -> str:
    """NAME VALUE (LOW..HIGH), rates in percent."""
    return f"{metric.name} {100 * metric.value:.2f} % ({100 * metric.low:.2f}..{100 * metric.high:.2f})"


def drop_text(one: "VariantOutcome") -> str:
    """How far a variant is below the float model, with the interval."""
    return f"drop {one.drop:+.2f} ({one.drop_low:+.2f}..{one.drop_high:+.2f}) points"


def latency_text(one: "Latency") -> str:
    """The quantiles that were measured, in milliseconds."""
    p90 = "" if one.p90_ms is None else f" p90 {one.p90_ms:.3f}"
    return f"p50 {one.p50_ms:.3f}{p90} p99 {one.p99_ms:.3f} ms"
