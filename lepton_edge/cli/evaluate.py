"""`lepton-edge evaluate`: how accurate every variant is."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lepton_edge.cli.output import ErrorCommand, Output, stopping_politely
from lepton_edge.figures import drop_text, metric_text

if TYPE_CHECKING:
    from converters.outcome import Outcome, VariantOutcome


@click.command(cls=ErrorCommand)
@click.argument("model", metavar="FILE|BUNDLE")
@click.option("--data", required=True, help="Samples to evaluate with, as `convert` takes them.")
@click.option(
    "--preprocess", type=click.Path(path_type=Path), help="preprocess.toml, in place of what the bundle holds."
)
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one a line, in place of the bundle's.")
@click.option("--metric", help="As `convert` takes it.")
@click.option(
    "--state", "states", multiple=True, metavar="OUT=IN", help="Output OUT of one step is input IN of the next."
)
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Sizes for open axes; ? leaves one open."
)
@click.option("--trust", is_flag=True, help="Load a .pt2, .skops or pickle that could run code, too.")
@click.pass_obj
def command(
    output: Output,
    *,
    model: str,
    data: str,
    preprocess: Path | None,
    labels: Path | None,
    metric: str | None,
    states: tuple[str, ...],
    shapes: tuple[str, ...],
    trust: bool,
) -> None:
    """Measure every variant of FILE or BUNDLE on samples, paired with the float model.

    FILE is what `convert` takes as MODEL.

    A variant that this machine cannot run, or would compute wrongly, is listed as skipped with the reason.
    """
    from converters.bar import shown_progress
    from converters.data.sequence import parse_state
    from converters.evaluate import evaluate_subject
    from converters.graph.signature import parse_shape
    from converters.subject import Opening, opened

    opening = Opening(dict(parse_shape(text) for text in shapes), trust=trust, preprocess=preprocess, labels=labels)
    with (
        stopping_politely(),
        shown_progress(wanted=not output.as_json) as progress,
        opened(model, opening) as subject,
    ):
        state = parse_state(states)
        outcome = evaluate_subject(subject, data, metric=metric, state=state, note=output.note, progress=progress)
    output.document(outcome, text=_text(outcome))


def _text(outcome: "Outcome") -> str:
    return "\n".join([f"{outcome.name} {outcome.version}".strip(), *(_line(one) for one in outcome.variants)])


def _line(one: "VariantOutcome") -> str:
    if one.metric is None:
        return f"  {one.name:<20}  skipped: {one.skipped}"
    told = metric_text(one.metric)
    parts = [f"  {one.name:<20}", f"{one.metric.name} {told.value} ({told.interval})", f"n={one.metric.n}"]
    if one.drop is not None and one.precision != "float32":
        parts.append(f"drop {drop_text(one.drop, one.drop_low, one.drop_high, unit=one.metric.unit)}")
        parts += [f"agreement {100 * one.agreement:.2f} %"] if one.agreement is not None else []
    return "  ".join(parts)
