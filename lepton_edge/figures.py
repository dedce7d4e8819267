"""Measured figures as people read them, on a terminal and in a report."""

from typing import Literal, NamedTuple

from lepton_edge.bundle.manifest import Latency, Metric

Unit = Literal["fraction", "own"]


class MetricText(NamedTuple):
    """A metric's value and its 95 % interval; fractions in percent."""

    value: str
    interval: str


def metric_text(metric: Metric) -> MetricText:
    if metric.unit == "fraction":
        return MetricText(f"{100 * metric.value:.2f} %", f"{100 * metric.low:.2f}..{100 * metric.high:.2f}")
    return MetricText(f"{metric.value:.4g}", f"{metric.low:.4g}..{metric.high:.4g}")


def drop_text(drop: float, low: float | None, high: float | None, *, unit: Unit) -> str:
    """How far a variant is below the float model, with the interval: in points, or in the metric's own unit."""
    form, name = ("+.2f", " points") if unit == "fraction" else ("+.4g", "")
    interval = "" if low is None or high is None else f" ({low:{form}}..{high:{form}})"
    return f"{drop:{form}}{interval}{name}"


def latency_text(one: Latency) -> str:
    """The quantiles that were measured, in milliseconds."""
    p90 = "" if one.p90_ms is None else f" p90 {one.p90_ms:.3f}"
    return f"p50 {one.p50_ms:.3f}{p90} p99 {one.p99_ms:.3f} ms"
