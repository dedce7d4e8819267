"""Put the page together. Whatever came from the user (names, labels, reasons) is escaped where it enters."""

from collections.abc import Sequence
from html import escape

from converters.measure.accuracy import Evaluation, Example
from converters.outcome import Outcome, VariantOutcome
from converters.quantize.profiles import FLOAT
from converters.report.charts import Bar, Span, bar_chart, interval_chart
from converters.report.style import CSS
from lepton_edge.bundle.manifest import Metric


def render(outcome: Outcome, evaluation: Evaluation | None, labels: Sequence[str]) -> str:
    """Give the page's HTML.

    Args:
        outcome: all figures.
        evaluation: for the samples on which variants differ; None where nothing was evaluated.
        labels: class names by index, to name classes with.
    """
    title = escape(f"{outcome.name} {outcome.version}")
    sections = [
        f'<h1>{title}</h1><p class="soft">lepton-edge convert, {_took(outcome)}</p>',
        _verdict(outcome),
        _section("Variants", _variants(outcome)),
        _section("Accuracy lost", _drops(outcome)),
        _section("Latency of one inference", _latency(outcome)),
        _section("File size", _sizes(outcome)),
        _section("Layers to blame", _blame(outcome)),
        _section("Where variants chose another class", _examples(evaluation, labels)),
        _section("How this was measured", _facts(outcome)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _took(outcome: Outcome) -> str:
    return f"{outcome.seconds:.1f} s, {outcome.peak_rss_mb:.0f} MB at most"


def _verdict(outcome: Outcome) -> str:
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in outcome.warnings)
    if not outcome.kept:
        return f'<p class="verdict bad">Nothing was kept. {escape(outcome.reason)}</p>{warnings}'
    best = next((one for one in outcome.variants if one.kept and one.profile != FLOAT.name), None)
    if best is None:
        return f'<p class="verdict">Only float was kept. {escape(outcome.reason)}</p>{warnings}'
    return f'<p class="verdict">{escape(_headline(outcome, best))}</p>{warnings}'


def _headline(outcome: Outcome, best: VariantOutcome) -> str:
    parts = [f"{best.name}: {best.bytes / outcome.source.bytes:.2f} of the source's size"]
    if best.latency:
        parts.append(f"{best.latency[0].float_p50_ms / best.latency[0].p50_ms:.2f}x its speed here")
    if best.drop is not None:
        parts.append(f"{best.drop:+.2f} points of accuracy lost ({best.drop_low:+.2f} to {best.drop_high:+.2f}, 95 %)")
    return ", ".join(parts) + "."


def _table(head: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> str:
    """A table; head: (title, whether numbers stand below it); cells are HTML already."""
    kinds = [' class="number"' if number else "" for _, number in head]
    top = "".join(f"<th{kind}>{escape(title)}</th>" for (title, _), kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _variants(outcome: Outcome) -> str:
    head = [
        ("variant", False),
        ("for", False),
        ("size", True),
        ("accuracy (95 %)", True),
        ("p50 / p99 ms", True),
        ("int8 share", True),
        ("", False),
    ]
    return _table(head, [_variant_row(one) for one in outcome.variants])


def _variant_row(one: VariantOutcome) -> list[str]:
    timed = f"{one.latency[0].p50_ms:.3f} / {one.latency[0].p99_ms:.3f}" if one.latency else "-"
    if one.latency and one.speed == "unmeasured":
        timed += "<br>(not its kind of CPU)"
    share = "-" if one.int8_macs is None else f"{100 * one.int8_macs:.0f} %"
    state = '<span class="kept">kept</span>' if one.kept else '<span class="refused">refused</span>'
    reason = f"<br>{escape(one.reason)}" if one.reason else ""
    return [
        f"<code>{escape(one.name)}</code>",
        escape(one.profile),
        _bytes(one.bytes),
        _metric(one.metric),
        timed,
        share,
        state + reason,
    ]


def _metric(metric: Metric | None) -> str:
    if metric is None:
        return "not evaluated"
    return f"{escape(metric.name)} {100 * metric.value:.2f} %<br>{100 * metric.low:.2f} to {100 * metric.high:.2f}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _drops(outcome: Outcome) -> str:
    spans = [
        Span(one.name, one.drop, one.drop_low or 0.0, one.drop_high or 0.0)
        for one in outcome.variants
        if one.drop is not None and one.profile != FLOAT.name
    ]
    if not spans or outcome.budget is None:
        return ""
    caption = "Points lost against the source model on the same samples; the bar is the 95 % interval."
    return _figure(interval_chart(spans, budget=outcome.budget), caption)


def _latency(outcome: Outcome) -> str:
    bars = [
        Bar(one.name, one.latency[0].p50_ms, f"{one.latency[0].p50_ms:.3f} ms", one.profile == FLOAT.name)
        for one in outcome.variants
        if one.latency
    ]
    if not bars:
        return ""
    where = next(one.latency[0] for one in outcome.variants if one.latency)
    place = f" on {escape(where.place)}" if where.place else ""
    return _figure(
        bar_chart(bars, title="Median latency"),
        f"Median, {where.threads} thread, interleaved, {escape(where.runtime)} {escape(where.version)}{place}. "
        "Another CPU may rank them otherwise: each device measures for itself.",
    )


def _sizes(outcome: Outcome) -> str:
    bars = [Bar(one.name, one.bytes, _bytes(one.bytes), one.profile == FLOAT.name) for one in outcome.variants]
    return _figure(bar_chart(bars, title="File size"), "Bytes of each file.")


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"


def _blame(outcome: Outcome) -> str:
    rows = [
        [
            f"<code>{escape(one.name)}</code>",
            f"<code>{escape(blame.layer)}</code>",
            escape(blame.operator),
            f"{blame.error:.3f}",
            f"{blame.added:+.3f}",
        ]
        for one in outcome.variants
        for blame in one.blame
    ]
    head = [("variant", False), ("layer", False), ("operator", False), ("relative error", True), ("added here", True)]
    return _table(head, rows) if rows else ""


def _examples(evaluation: Evaluation | None, labels: Sequence[str]) -> str:
    if evaluation is None:
        return ""
    rows = [
        [f"<code>{escape(name)}</code>", *_example_row(example, labels)]
        for name, marks in evaluation.variants.items()
        for example in marks.examples
    ]
    head = [("variant", False), ("sample", False), ("label", False), ("source model", False), ("variant chose", False)]
    return _table(head, rows) if rows else "<p>On no sample.</p>"


def _example_row(example: Example, labels: Sequence[str]) -> list[str]:
    def named(index: int | None) -> str:
        if index is None:
            return "-"
        return escape(f"{index} {labels[index]}" if index < len(labels) else str(index))

    classes = (example.label, example.float_class, example.variant_class)
    return [escape(example.sample), *(named(index) for index in classes)]


def _facts(outcome: Outcome) -> str:
    split = outcome.split
    rows = [
        ["source", f"{escape(outcome.source.format)}, {_bytes(outcome.source.bytes)}"],
        ["calibration", f"{split.calibration} samples, seed {split.seed}"],
        ["evaluation", f"{split.evaluation} other samples ({split.left_out} left out as equal to calibration ones)"],
        ["budget", "none: nothing was evaluated" if outcome.budget is None else f"{outcome.budget:g} points"],
        ["intervals", "rates: Wilson; paired drops: Newcombe 1998, method 10"],
        ["golden test", escape("; ".join(f"{one.name} tolerance {one.tolerance:.3g}" for one in outcome.variants))],
        ["packages", escape(", ".join(f"{name} {version}" for name, version in outcome.versions.items()))],
    ]
    return _table([("", False), ("", False)], rows)
