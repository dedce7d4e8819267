"""`lepton-edge report`: a bundle's figures as a page."""

from pathlib import Path

import click

from lepton_edge.cli.output import ErrorCommand, Output


@click.command(cls=ErrorCommand)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page to write. [default: BUNDLE.report.html]")
@click.pass_obj
def command(output: Output, bundle: Path, out: Path | None) -> None:
    """Write the report of BUNDLE again, from what its manifest holds.

    What `convert` knew beyond that (samples that differ, layers to blame, operators left float) is not in it.
    """
    from converters.report.manifest import outcome_of_bundle
    from converters.report.page import render
    from lepton_edge import durable
    from lepton_edge.bundle import Bundle

    opened = Bundle.open(bundle)
    target = out or bundle.with_name(f"{bundle.name.removesuffix('.lep')}.report.html")
    outcome = outcome_of_bundle(opened, str(bundle), str(target))
    durable.write(target, render(outcome, None, opened.manifest.labels).encode())
    output.document(outcome, text=f"wrote {target}")
