"""lepton-edge push: bring a bundle onto devices."""

from pathlib import Path

import click

from lepton_edge.cli.fleet import fleet_option
from lepton_edge.cli.output import ErrorCommand, Output


@click.command(cls=ErrorCommand)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--to", required=True, help="all, or ID,..., or k=v,... (a device must have all of these labels).")
@click.option("--wait", is_flag=True, help="Return when it has ended; 0 done, 4 rolled back.")
@click.option("--timeout", default="", help="With --wait: give up waiting after so long; the goal remains.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--probation", default="5s", show_default=True, help="How long a device watches the new variant.")
@click.option("--max-errors", type=click.IntRange(0), default=0, show_default=True, help="Forgiven in probation.")
@click.option("--max-candidates", type=click.IntRange(1, 16), default=2, show_default=True, help="Variants to try.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Per inference.")
@click.option("--memory", type=click.IntRange(1), help="Most bytes that a loaded variant may need.")
@click.option("--waves", default="", help="Not yet: several waves.")
@click.option("--soak", default="", help="Not yet: time between waves.")
@click.option("--max-failures", default="", help="Not yet: tolerated failures; today one ends the rollout.")
@click.option("--p99", default="", help="Not yet: a latency gate.")
@fleet_option
@click.pass_obj
def command(output: Output, /, bundle: Path, fleet_dir: Path | None, **options: object) -> None:
    """Publish BUNDLE where needed, and set it as the goal of the devices."""
    from fleet.pushing import PushOptions, push

    push(output, bundle, fleet_dir, PushOptions.read(options))
