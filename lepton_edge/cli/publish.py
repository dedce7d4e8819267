"""lepton-edge publish: sign a bundle on this machine and upload it."""

from pathlib import Path

import click

from lepton_edge.cli.fleet import fleet_option
from lepton_edge.cli.output import ErrorCommand, Output


@click.command(cls=ErrorCommand)
@click.argument("bundle", type=click.Path(path_type=Path))
@fleet_option
@click.pass_obj
def command(output: Output, bundle: Path, fleet_dir: Path | None) -> None:
    """Sign BUNDLE with the operator's key, here, and upload it to the manager."""
    from fleet.api.client import Client
    from fleet.commands import operator_key
    from fleet.folder import find_fleet
    from lepton_edge.bundle import Bundle

    folder, opened = find_fleet(fleet_dir), Bundle.open(bundle)
    with Client(folder) as client:
        answer = client.publish(opened, operator_key(folder))
    output.document(
        {"bundle": answer.bundle, "digest": answer.digest, "published": answer.published},
        text=f"published {answer.bundle} ({answer.digest[:12]})",
    )
