"""Put the page together. Whatever came from the user (names, labels, reasons) is escaped where it enters."""

from collections.abc import Sequence
from html import escape

from converters.measure.accuracy import Evaluation, Example
from converters.outcome import Outcome, VariantOutcome
from converters.quantize.profiles import FLOATS
from converters.report.charts import Bar, Span, bar_chart, interval_chart
from converters.report.style import CSS
from lepton_edge.bundle.manifest import Latency, Metric
from lepton_edge.figures import drop_text, metric_text

_FLOAT_NAMES = {profile.name for profile in FLOATS}
NAMES_SHOWN = 8
"""Nodes that a row of the table of what stays float names."""


def render(outcome: Outcome, evaluation: Evaluation | None, labels: Sequence[str]) -> str:
    """Give the page's HTML.

    Args:
        outcome: all figures.
        evaluation: for the samples on which variants differ; None where nothing was evaluated.
        labels: class names by index, to name classes with.
    """
    title = escape(f"{outcome.name} {outcome.version}")
    sections = [
        f'<h1>{title}</h1><p class="soft">{_made(outcome)}</p>',
        _verdict(outcome),
        _section("Variants", _variants(outcome)),
        _section("Accuracy lost", _drops(outcome)),
        _section("Latency of one inference", _latency(outcome)),
        _section("File size", _sizes(outcome)),
        _section("Share of the arithmetic in int8", _shares(outcome)),
        _section("Left float", _kept_float(outcome)),
        _section("Not made", _not_made(outcome)),
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


def _made(outcome: Outcome) -> str:
    if not _is_whole(outcome):
        return "lepton-edge report, from the bundle's manifest"
    return f"lepton-edge convert, {outcome.seconds:.1f} s, {outcome.peak_rss_mb:.0f} MB at most"


def _verdict(outcome: Outcome) -> str:
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in outcome.warnings)
    if not outcome.kept:
        return f'<p class="verdict bad">Nothing was kept. {escape(outcome.reason)}</p>{warnings}'
    best = next((one for one in outcome.variants if one.kept and not _is_float(one)), None)
    if best is None:
        return f'<p class="verdict">Only float was kept. {escape(outcome.reason)}</p>{warnings}'
    return f'<p class="verdict">{escape(_headline(outcome, best))}</p>{warnings}'


def _headline(outcome: Outcome, best: VariantOutcome) -> str:
    parts = [f"{best.name}: {best.bytes / outcome.source.bytes:.2f} of the source's size"]
    if best.latency:
        parts.append(f"{best.latency[0].float_p50_ms / best.latency[0].p50_ms:.2f}x its speed here")
    if best.drop is not None and best.metric:
        lost = drop_text(best.drop, best.drop_low, best.drop_high, unit=best.metric.unit)
        parts.append(f"{best.metric.name} lost: {lost}, 95 %")
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
        ("p50 / p90 / p99 ms", True),
        ("int8 share", True),
        ("", False),
    ]
    return _table(head, [_variant_row(one) for one in outcome.variants])


def _variant_row(one: VariantOutcome) -> list[str]:
    timed = _quantiles(one.latency[0]) if one.latency else "-"
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


def _quantiles(timed: Latency) -> str:
    known = (timed.p50_ms, timed.p90_ms, timed.p99_ms)
    return " / ".join("-" if value is None else f"{value:.3f}" for value in known)


def _metric(metric: Metric | None) -> str:
    if metric is None:
        return "not evaluated"
    told = metric_text(metric)
    return f"{escape(metric.name)} {told.value}<br>{told.interval}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _drops(outcome: Outcome) -> str:
    spans = [
        Span(one.name, one.drop, one.drop_low or 0.0, one.drop_high or 0.0)
        for one in outcome.variants
        if one.drop is not None and not _is_float(one)
    ]
    if not spans:
        return ""
    caption = (
        f"{escape(_unit(outcome))} lost against the source model on the same samples; the bar is the 95 % interval."
    )
    return _figure(interval_chart(spans, budget=outcome.budget), caption)


def _latency(outcome: Outcome) -> str:
    bars = [_latency_bar(one, one.latency[0]) for one in outcome.variants if one.latency]
    if not bars:
        return ""
    timed = [one.latency[0] for one in outcome.variants if one.latency]
    runtimes = ", ".join(dict.fromkeys(f"{one.runtime} {one.version}" for one in timed))
    place = f" on {escape(timed[0].place)}" if timed[0].place else ""
    caption = (
        f"Median, the line up to the 90th percentile, {timed[0].threads} thread, interleaved, "
        f"{escape(runtimes)}{place}; in brackets how many times as fast as the float file of the same format. Another "
        "CPU may rank them otherwise: each device measures for itself."
    )
    return _figure(bar_chart(bars, title="Median latency"), caption)


def _latency_bar(one: VariantOutcome, timed: Latency) -> Bar:
    text = f"{timed.p50_ms:.3f} ms"
    if not _is_float(one) and timed.float_p50_ms and timed.p50_ms:
        text += f" ({timed.float_p50_ms / timed.p50_ms:.2f}x)"
    return Bar(one.name, timed.p50_ms, text, _is_float(one), until=timed.p90_ms)


def _shares(outcome: Outcome) -> str:
    bars = [
        Bar(one.name, one.int8_macs, f"{100 * one.int8_macs:.0f} %", plain=False)
        for one in outcome.variants
        if one.int8_macs is not None
    ]
    caption = "Multiply-accumulates that are done in int8; the others stay float."
    return _figure(bar_chart(bars, title="Share in int8", full=1.0), caption) if bars else ""


def _kept_float(outcome: Outcome) -> str:
    """Per variant the operators that stay float, folded away, grouped by reason."""
    return "".join(_kept_float_in(one) for one in outcome.variants if one.kept_float)


def _kept_float_in(one: VariantOutcome) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for kept in one.kept_float:
        groups.setdefault((kept.reason, kept.operator), []).append(kept.node)
    rows = [
        [escape(reason), escape(operator), str(len(nodes)), _some(nodes)]
        for (reason, operator), nodes in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    table = _table([("reason", False), ("operator", False), ("count", True), ("nodes", False)], rows)
    return (
        f"<details><summary><code>{escape(one.name)}</code>: {len(one.kept_float)} operators</summary>{table}</details>"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"<code>{escape(name)}</code>" for name in names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def _not_made(outcome: Outcome) -> str:
    rows = [[escape(name), escape(reason)] for name, reason in outcome.not_made.items()]
    return _table([("format", False), ("reason", False)], rows) if rows else ""


def _sizes(outcome: Outcome) -> str:
    bars = [Bar(one.name, one.bytes, _bytes(one.bytes), _is_float(one)) for one in outcome.variants]
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


def _unit(outcome: Outcome) -> str:
    """What drops and the budget are counted in."""
    metric = outcome.source.metric
    return "points" if metric is None or metric.unit == "fraction" else metric.name


def _is_float(one: VariantOutcome) -> bool:
    """Whether it is the model as it came, for whatever runtime."""
    return one.profile in _FLOAT_NAMES or one.precision == "float32"


def _is_whole(outcome: Outcome) -> bool:
    """Whether this comes from a conversion; a manifest does not hold what was given to it."""
    return outcome.seconds > 0


def _terms(outcome: Outcome) -> list[list[str]]:
    split = outcome.split
    return [
        ["calibration", f"{split.calibration} samples, seed {split.seed}"],
        ["evaluation", f"{split.evaluation} other samples ({split.left_out} left out as equal to calibration ones)"],
        ["budget", "none: nothing was evaluated" if outcome.budget is None else f"{outcome.budget:g} {_unit(outcome)}"],
    ]


def _stand_ins(outcome: Outcome) -> list[list[str]]:
    """Variants whose own runtime was not there to be asked."""
    told = "its runtime was not installed: outputs and accuracy are those of"
    return [[escape(one.name), f"{told} {escape(one.judged_with)}"] for one in outcome.variants if one.judged_with]


def _facts(outcome: Outcome) -> str:
    rows = [
        ["source", f"{escape(outcome.source.format)}, {_bytes(outcome.source.bytes)}"],
        *(_terms(outcome) if _is_whole(outcome) else []),
        ["intervals", "rates: Wilson; paired drops: Newcombe 1998, method 10; other metrics: bootstrap"],
        *_stand_ins(outcome),
        ["golden test", escape("; ".join(f"{one.name} tolerance {one.tolerance:.3g}" for one in outcome.variants))],
        ["packages", escape(", ".join(f"{name} {version}" for name, version in outcome.versions.items()))],
    ]
    return _table([("", False), ("", False)], rows)
