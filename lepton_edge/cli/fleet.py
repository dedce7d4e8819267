"""lepton-edge fleet: make a fleet, and serve it."""

import asyncio
from pathlib import Path

import click

from lepton_edge.cli.output import ErrorCommand, Output, ServiceCommand

fleet_option = click.option(
    "--fleet",
    "fleet_dir",
    type=click.Path(path_type=Path),
    help="Fleet folder (else LEPTON_FLEET, ./fleet, ~/.lepton-edge/fleet).",
)


@click.group()
def command() -> None:
    """Make and serve a fleet of devices."""


@command.command(cls=ErrorCommand)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--telemetry", default="60s", show_default=True, help="How often devices report latencies.")
@click.option("--broker", default="", help="URL of a broker of yours; default: the embedded one, on loopback.")
@click.option(
    "--broker-port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Of the embedded broker; default: 1883 or a free one.",
)
@click.pass_obj
def init(output: Output, folder: Path, telemetry: str, broker: str, broker_port: int) -> None:
    """Make keys, trust root, configuration and database in DIR.

    The operator's key is sealed with a passphrase, asked for or read from the file that LEPTON_PASSPHRASE_FILE names.
    An empty one leaves the key protected by its file mode alone.
    """
    from fleet.commands import parse_duration
    from fleet.config import BrokerConfig, DeviceConfig
    from fleet.init import check_free, init_fleet
    from fleet.trust.passphrase import read_passphrase
    from lepton_edge.errors import UsageError
    from lepton_edge.wire.broker import parse_broker

    telemetry_s = parse_duration(telemetry, what="--telemetry")
    if not 0.1 <= telemetry_s <= 86_400:
        raise UsageError(f"--telemetry {telemetry}: expected 100ms to 24h")
    if broker:
        parse_broker(broker)
    check_free(folder)
    made = init_fleet(
        folder,
        passphrase=read_passphrase(new=True),
        devices=DeviceConfig(telemetry_s=telemetry_s),
        broker=BrokerConfig(url=broker, port=broker_port),
    )
    config = made.config()
    output.document(
        {"fleet": config.fleet, "folder": str(made.root)},
        text=f"fleet {config.fleet} in {made.root}\nserve it: lepton-edge fleet serve --fleet {made.root}",
    )


@command.command(cls=ServiceCommand)
@fleet_option
@click.option("--http", default="", help="HOST:PORT of the API; port 0 picks one.  [default: 127.0.0.1:8700]")
@click.option("--broker", default="", help="URL of a broker of yours; default: the embedded one, on loopback.")
@click.option("--listen", default="", help="Not yet: serve devices beyond loopback through mosquitto.")
@click.pass_obj
def serve(_output: Output, fleet_dir: Path | None, http: str, broker: str, listen: str) -> None:
    """Run the manager, with the embedded broker on loopback unless --broker is given.

    Prints one JSON line when ready, and runs until SIGTERM or Ctrl-C.
    """
    from fleet.folder import Serving, find_fleet
    from fleet.serve import serve as run
    from lepton_edge.errors import NotYetSupportedError
    from lepton_edge.typed import encode

    if listen:
        raise NotYetSupportedError("--listen: not yet: devices beyond loopback; use --broker with a broker of yours")

    def ready(serving: Serving) -> None:
        click.echo(encode(serving).decode())

    asyncio.run(run(find_fleet(fleet_dir), http=http, broker_url=broker, on_ready=ready))
