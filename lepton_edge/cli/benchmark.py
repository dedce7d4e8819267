"""`lepton-edge benchmark`: how fast every variant is on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lepton_edge.cli.output import ErrorCommand, Output, stopping_politely
from lepton_edge.figures import latency_text

if TYPE_CHECKING:
    from converters.outcome import Outcome, VariantOutcome


@click.command(cls=ErrorCommand)
@click.argument("model", metavar="FILE|BUNDLE")
@click.option("--runtime", "wanted", multiple=True, metavar="NAME", help="Runtimes. [default: all installed]")
@click.option("--threads", type=int, default=1, show_default=True, help="Of the runtime.")
@click.option("--rounds", type=int, default=5, show_default=True, help="Interleaved; each gives one ratio to float.")
@click.option("--data", help="Samples to take inputs from. [default: the bundle's own, else random]")
@click.option(
    "--preprocess", type=click.Path(path_type=Path), help="preprocess.toml, in place of what the bundle holds."
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
    wanted: tuple[str, ...],
    threads: int,
    rounds: int,
    data: str | None,
    preprocess: Path | None,
    shapes: tuple[str, ...],
    trust: bool,
) -> None:
    """Time every variant of FILE or BUNDLE on every runtime that takes it, all of them interleaved.

    FILE is what `convert` takes as MODEL.
    """
    from converters.bar import shown_progress
    from converters.benchmark import benchmark_subject
    from converters.graph.signature import parse_shape
    from converters.subject import Opening, opened

    opening = Opening(dict(parse_shape(text) for text in shapes), trust=trust, preprocess=preprocess)
    with (
        stopping_politely(),
        shown_progress(wanted=not output.as_json) as progress,
        opened(model, opening) as subject,
    ):
        outcome = benchmark_subject(
            subject, wanted=wanted, threads=threads, rounds=rounds, data=data, note=output.note, progress=progress
        )
    output.document(outcome, text=_text(outcome))


def _text(outcome: "Outcome") -> str:
    timed = next((one.latency[0] for one in outcome.variants if one.latency), None)
    place = f" on {timed.place}, {timed.threads} thread{'s' if timed.threads > 1 else ''}" if timed else ""
    lines = [f"{outcome.name} {outcome.version}".strip() + place]
    return "\n".join([*lines, *(line for one in outcome.variants for line in _lines(one))])


def _lines(one: "VariantOutcome") -> list[str]:
    from converters.outcome import Timing

    if one.skipped:
        return [f"  {one.name:<20}  skipped: {one.skipped}"]
    lines = []
    for timing in one.latency:
        kernels = f" ({timing.provider})" if timing.provider != "CPU" else ""
        line = f"  {one.name:<20}  {timing.runtime} {timing.version}{kernels}  {latency_text(timing)}"
        if isinstance(timing, Timing) and timing.ratio is not None:
            line += f"  {timing.ratio:.2f}x float ({timing.ratio_low:.2f}..{timing.ratio_high:.2f})"
        lines.append(line)
    return lines
