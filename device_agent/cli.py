"""`lepton-edge agent ...`, and the same as `lepton-agent ...` where only the agent is installed."""

import asyncio
import os
import signal
from pathlib import Path

import click
import msgspec

from lepton_edge.cli.output import ErrorCommand, Output, ServiceCommand
from lepton_edge.errors import UsageError
from lepton_edge.version import VERSION


@click.group(name="agent", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """The agent on a device: follows its goal, serves models, reports how fast they are."""


_STATE = click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), help="Folder for what must outlive the process."
)


@command.command(cls=ServiceCommand)
@click.argument("device", type=click.Path(path_type=Path))
@_STATE
@click.option(
    "--http", default="127.0.0.1:8600", show_default=True, help="HOST:PORT of the endpoint; port 0 picks one."
)
@click.option("--socket", type=click.Path(path_type=Path), help="Serve on this Unix socket too.")
def run(device: Path, state: Path | None, http: str, socket: Path | None) -> None:
    """Run the agent of DEVICE (DEVICE.zip, or a folder with its content) until stopped.

    Prints one JSON line when its endpoint answers.
    """
    from device_agent.agent import Options  # noqa: PLC0415 - loads the runtimes, which `--help` need not wait for
    from device_agent.serve.http import Server  # noqa: PLC0415
    from lepton_edge.wire.enrolment import load_enrolment  # noqa: PLC0415

    enrolment = load_enrolment(device)
    host, port = _parse_http(http)
    options = Options(state=state or _states() / enrolment.device, host=host, port=port, socket=socket)

    def ready(server: Server) -> None:
        line = {"id": enrolment.device, "http": server.url, "socket": str(server.socket or ""), "pid": os.getpid()}
        click.echo(msgspec.json.encode(line).decode())

    asyncio.run(_until_signal(enrolment, options, ready))


async def _until_signal(enrolment, options, ready) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    """Run until SIGTERM or SIGINT, then stop in order."""
    from device_agent import agent  # noqa: PLC0415

    work = asyncio.create_task(agent.run(enrolment, options, ready), name="agent")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    await asyncio.wait({work})
    if not work.cancelled():
        work.result()


def _parse_http(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--http {text!r}: expected HOST:PORT, for example 127.0.0.1:8600")
    return host.strip("[]"), int(port)


def _states() -> Path:
    """The folder of all agents' states of this user."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "lepton-edge"


def main() -> None:
    """The `lepton-agent` script."""
    command(prog_name="lepton-agent")
