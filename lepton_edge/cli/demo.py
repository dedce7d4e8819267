"""`lepton-edge demo`."""

import signal
from pathlib import Path

import click

from lepton_edge.cli.output import ServiceCommand
from lepton_edge.errors import UsageError


@click.command("demo", cls=ServiceCommand)
@click.option(
    "-o",
    "--output",
    "keep",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("lepton-demo"),
    show_default=True,
    help="Where the bundles and reports stay.",
)
def command(keep: Path) -> None:
    """All of it on this machine: convert, push to three devices, measure, survive a broken version."""
    try:
        from lepton_edge.demo.story import play
    except ModuleNotFoundError as missing:
        raise UsageError(f"the demo needs {missing.name}: pip install 'lepton-edge[demo]'") from missing
    # A polite kill cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    play(keep)
