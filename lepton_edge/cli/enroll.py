"""lepton-edge enroll: make a device a member of the fleet."""

from pathlib import Path

import click

from lepton_edge.cli.fleet import fleet_option
from lepton_edge.cli.output import ErrorCommand, Output


@click.command(cls=ErrorCommand)
@click.argument("device", metavar="DEVICE-ID")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="For `push --to k=v`; repeatable.")
@click.option("-o", "out", type=click.Path(path_type=Path), help="Where to write it.  [default: DEVICE-ID.zip]")
@click.option("--token", is_flag=True, hidden=True)
@fleet_option
@click.pass_obj
def command(
    output: Output, *, device: str, labels: tuple[str, ...], out: Path | None, token: bool, fleet_dir: Path | None
) -> None:
    """Write DEVICE.zip, with which an agent joins the fleet. Whoever has it is that device: keep it secret.

    Enrolling an id again gives it a new key; the old DEVICE.zip is worth nothing from then on.
    """
    from fleet.commands import parse_labels
    from fleet.enrolment import enrol
    from fleet.folder import find_fleet
    from lepton_edge.errors import NotYetSupportedError
    from lepton_edge.wire.enrolment import save_enrolment

    if token:
        raise NotYetSupportedError("--token: not yet: enrolment by token; use DEVICE.zip")
    enrolment = enrol(find_fleet(fleet_dir), device, parse_labels(labels))
    path = out or Path(f"{device}.zip")
    save_enrolment(enrolment, path)
    output.document(
        {"device": device, "generation": enrolment.generation, "broker": enrolment.broker, "file": str(path)},
        text=f"{path}: device {device}, broker {enrolment.broker}",
    )
