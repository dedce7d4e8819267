"""The commands of lepton-edge: each in its own file, imported when it is called."""

import importlib

import click

from lepton_edge.version import VERSION

COMMANDS = {
    "inspect": "lepton_edge.cli.inspect",
    "convert": "lepton_edge.cli.convert",
    "evaluate": "lepton_edge.cli.evaluate",
    "benchmark": "lepton_edge.cli.benchmark",
    "report": "lepton_edge.cli.report",
    "run": "lepton_edge.cli.run",
    "demo": "lepton_edge.cli.demo",
    "fleet": "lepton_edge.cli.fleet",
    "enroll": "lepton_edge.cli.enroll",
    "publish": "lepton_edge.cli.publish",
    "push": "lepton_edge.cli.push",
    "remove": "lepton_edge.cli.remove",
    "devices": "lepton_edge.cli.devices",
    "telemetry": "lepton_edge.cli.telemetry",
    "agent": "device_agent.cli",
}
"""Command -> module that defines `command`."""


class LazyGroup(click.Group):
    """A group whose commands are imported when asked for, so that each needs only its own room's packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="lepton-edge")
def main() -> None:
    """Make trained models small and fast, get them safely onto devices, and measure them there."""
