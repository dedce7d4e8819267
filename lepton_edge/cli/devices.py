"""lepton-edge devices: who is in the fleet, and what runs there."""

from pathlib import Path

import click

from lepton_edge.cli.fleet import fleet_option
from lepton_edge.cli.output import ErrorCommand, Output


@click.command(cls=ErrorCommand)
@click.option("--adopt", default="", metavar="ID|all", help="Accept what devices run whose goals this manager lost.")
@fleet_option
@click.pass_obj
def command(output: Output, adopt: str, fleet_dir: Path | None) -> None:
    """Show the devices with their models.

    A device that follows goals which this manager does not know (an old backup, an empty database) gets no new ones
    until it is adopted: what it reports then becomes its goal.
    """
    from fleet.api.client import Client
    from fleet.folder import find_fleet
    from fleet.tables import device_document, device_table

    with Client(find_fleet(fleet_dir)) as client:
        adopted = client.adopt(adopt) if adopt else []
        found = client.devices()
    if adopt:
        output.note(f"adopted: {', '.join(adopted) or 'none needed it'}")
    output.document(device_document(found, adopted), text=device_table(found))
