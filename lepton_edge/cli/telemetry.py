"""lepton-edge telemetry: how fast the models are on the devices."""

from pathlib import Path

import click

from lepton_edge.cli.fleet import fleet_option
from lepton_edge.cli.output import ErrorCommand, Output


@click.command(cls=ErrorCommand)
@click.argument("model", default="")
@click.option("--by", type=click.Choice(["device", "variant"]), help="Merge over the rest; default: keep both apart.")
@fleet_option
@click.pass_obj
def command(output: Output, model: str, by: str | None, fleet_dir: Path | None) -> None:
    """Show p50, p90 and p99 as the devices measured them, merged by device, model, version and variant."""
    import msgspec

    from fleet.api.client import Client
    from fleet.folder import find_fleet
    from fleet.tables import telemetry_table

    with Client(find_fleet(fleet_dir)) as client:
        answer = client.telemetry(model, by or "all")
    output.document(msgspec.to_builtins(answer), text=telemetry_table(answer))
