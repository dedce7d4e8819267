"""`lepton-edge agent ...`, and the same as `lepton-agent ...` where only the agent is installed."""

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from lepton_edge.cli.output import ErrorCommand, Output, ServiceCommand
from lepton_edge.errors import LeptonError, UsageError

if TYPE_CHECKING:  # `--help` does not wait for the runtimes
    from device_agent.agent import Options
    from device_agent.status import Ready
    from lepton_edge.wire.enrolment import Enrolment


@click.group(name="agent", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """The agent on a device: follows its goal, serves models, reports how fast they are."""


_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what must outlive the process.  [default: ~/.local/state/lepton-edge/DEVICE-ID]",
)


@command.command(cls=ServiceCommand)
@click.argument("device", type=click.Path(path_type=Path))
@_STATE
@click.option(
    "--http", default="127.0.0.1:8600", show_default=True, help="HOST:PORT of the endpoint; port 0 picks one."
)
@click.option("--socket", type=click.Path(path_type=Path), help="Serve on this Unix socket too.")
@click.option(
    "--runtime", "runtimes", multiple=True, metavar="NAME", help="Use this one alone of the runtimes; may be repeated."
)
def run(device: Path, state: Path | None, http: str, socket: Path | None, runtimes: tuple[str, ...]) -> None:
    """Run the agent of DEVICE (DEVICE.zip, or a folder with its content) until stopped.

    Prints one JSON line when its endpoint answers.
    """
    from device_agent.agent import Options  # noqa: PLC0415 - loads the runtimes
    from lepton_edge.wire.enrolment import load_enrolment  # noqa: PLC0415

    enrolment = load_enrolment(device)
    host, port = _parse_http(http)
    options = Options(
        state=state or _states() / enrolment.device, host=host, port=port, socket=socket, runtimes=frozenset(runtimes)
    )
    asyncio.run(_until_signal(enrolment, options))


async def _until_signal(enrolment: "Enrolment", options: "Options") -> None:
    """Run until SIGTERM or SIGINT, then stop in order."""
    from device_agent import agent  # noqa: PLC0415 - loads the runtimes

    work = asyncio.create_task(agent.run(enrolment, options, _print_ready), name="agent")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    await asyncio.wait({work})
    if not work.cancelled():
        work.result()


def _print_ready(ready: "Ready") -> None:
    line = {"id": ready.id, "http": ready.http, "socket": ready.socket, "pid": ready.pid}
    click.echo(msgspec.json.encode(line).decode())


@command.command(cls=ErrorCommand)
@_STATE
@click.pass_obj
def status(out: Output, state: Path | None) -> None:
    """Show what the agent on this machine runs, from its state folder."""
    from device_agent.status import read_status  # noqa: PLC0415

    found = read_status(_find_state(state))
    lines = [f"{found.id or 'agent'}: {'running' if found.running else 'not running'}, goal {found.counter}"]
    for name, model in found.models.items():
        why = f" ({model.code}: {model.reason})" if model.code else ""
        lines.append(f"  {name} {model.version}: {model.state}{why}, variant {model.variant or '-'}")
    out.document(found, text="\n".join(lines))


@command.command(cls=ErrorCommand)
@_STATE
@click.pass_obj
def doctor(out: Output, state: Path | None) -> None:
    """Check what the agent needs: a folder it can write, a runtime, a broker that answers."""
    from device_agent.status import examine  # noqa: PLC0415

    checks = examine(_find_state(state))
    marks = {True: "ok", False: "BAD"}
    out.document(checks, text="\n".join(f"{marks[check.ok]:4}{check.what}: {check.found}" for check in checks))
    if not all(check.ok for check in checks):
        raise LeptonError(f"{sum(not check.ok for check in checks)} of {len(checks)} checks failed")


def _parse_http(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--http {text!r}: expected HOST:PORT, for example 127.0.0.1:8600")
    return host.strip("[]"), int(port)


def _states() -> Path:
    """The folder of all agents' states of this user."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "lepton-edge"


def _find_state(state: Path | None) -> Path:
    """The state folder meant: the one given, or the only one of this user."""
    if state is not None:
        if not state.is_dir():
            raise UsageError(f"{state}: no such folder; it is what `agent run --state` was given")
        return state
    found = sorted(path for path in _states().glob("*") if path.is_dir())
    if len(found) != 1:
        raise UsageError(f"{_states()} holds {len(found)} agents' states: say which with --state")
    return found[0]


def main() -> None:
    """The `lepton-agent` script."""
    command(prog_name="lepton-agent")
