"""lepton-edge remove: take a model off devices."""

from pathlib import Path

import click

from lepton_edge.cli.fleet import fleet_option
from lepton_edge.cli.output import ErrorCommand, Output


@click.command(cls=ErrorCommand)
@click.argument("model")
@click.option("--to", required=True, help="all, or ID,..., or k=v,...")
@click.option("--wait", is_flag=True, help="Return when the devices report that it is gone.")
@click.option("--timeout", default="", help="With --wait: give up waiting after so long; the goal remains.")
@fleet_option
@click.pass_obj
def command(output: Output, *, model: str, to: str, wait: bool, timeout: str, fleet_dir: Path | None) -> None:
    """Take MODEL out of the goal of the devices; they stop serving it."""
    from fleet.api.client import Client
    from fleet.commands import parse_duration, wait_until_gone
    from fleet.folder import find_fleet

    timeout_s = parse_duration(timeout, what="--timeout") if timeout else None
    with Client(find_fleet(fleet_dir)) as client:
        changed = client.remove(model, to)
        if wait:
            wait_until_gone(client, model, changed, timeout_s=timeout_s)
    output.document(
        {"model": model, "devices": changed, "removed": wait},
        text=f"{model}: {'removed' if wait else 'to be removed'} from {', '.join(changed)}",
    )
