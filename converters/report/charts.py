"""Charts as inline SVG: intervals against a budget, and bars. Text is escaped here; numbers are formatted here."""

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 720
LABEL = 190
ROW = 30
RIGHT = 110


class Span(NamedTuple):
    """One interval of a drop, in points."""

    label: str
    value: float
    low: float
    high: float


class Bar(NamedTuple):
    """One bar.

    Attributes:
        label: stands before it.
        value: its length, in any unit.
        text: stands behind it.
        plain: whether it is drawn in the colour of the float model.
        until: how far a thin line goes on behind it; None: there is none.
    """

    label: str
    value: float
    text: str
    plain: bool
    until: float | None = None


def interval_chart(spans: Sequence[Span], *, budget: float | None) -> str:
    """Drop in points with its 95 % interval, one row a variant; lines at zero and at the budget, where there is one."""
    low = min(0.0, *(span.low for span in spans))
    high = max(budget or 0.0, *(span.high for span in spans))
    pad = 0.08 * (high - low) or 1.0
    scale = (WIDTH - LABEL - RIGHT) / (high - low + 2 * pad)

    def at(points: float) -> float:
        return LABEL + (points - low + pad) * scale

    height = ROW * len(spans) + 34
    rows = [_span_row(span, at, ROW * index + 18) for index, span in enumerate(spans)]
    marks = [("zero", 0.0, "0")] + ([] if budget is None else [("budget", budget, f"budget {budget:g}")])
    lines = [
        f'<line class="{kind}" x1="{at(x):.1f}" x2="{at(x):.1f}" y1="4" y2="{height - 26}"/>' for kind, x, _ in marks
    ]
    ticks = [_tick(at(x), height, text) for _, x, text in marks]
    return _svg(height, [*lines, *rows, *ticks], "Drop in points with its 95 % interval")


def _span_row(span: Span, at: Callable[[float], float], y: int) -> str:
    return (
        f'<text x="0" y="{y + 4}">{escape(span.label)}</text>'
        f'<line class="span" x1="{at(span.low):.1f}" x2="{at(span.high):.1f}" y1="{y}" y2="{y}"/>'
        f'<circle class="dot" cx="{at(span.value):.1f}" cy="{y}" r="5"/>'
        f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4}">{span.value:+.2f} points</text>'
    )


def bar_chart(bars: Sequence[Bar], *, title: str, full: float | None = None) -> str:
    """Horizontal bars from zero, one a variant; full: the value of the whole width, the largest one by default."""
    largest = full or max((bar.until or bar.value for bar in bars), default=0.0) or 1.0
    room = WIDTH - LABEL - RIGHT
    rows = []
    for index, bar in enumerate(bars):
        y = ROW * index + 8
        width = max(1.0, room * bar.value / largest)
        end = max(width, room * (bar.until or 0.0) / largest)
        kind = "bar float" if bar.plain else "bar"
        rows.append(
            f'<text x="0" y="{y + 14}">{escape(bar.label)}</text>'
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="18" rx="2"/>'
            f'<line class="whisker" x1="{LABEL + width:.1f}" x2="{LABEL + end:.1f}" y1="{y + 9}" y2="{y + 9}"/>'
            f'<text x="{LABEL + end + 8:.1f}" y="{y + 14}">{escape(bar.text)}</text>'
        )
    return _svg(ROW * len(bars) + 8, rows, title)


def _tick(x: float, height: int, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{height - 10}" text-anchor="middle">{escape(text)}</text>'


def _svg(height: int, parts: Sequence[str], title: str) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
