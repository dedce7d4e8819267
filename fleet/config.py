"""fleet.toml: typed, every field with a default, unknown ones refused because a typing error must not pass unseen."""

from pathlib import Path
from typing import Annotated

import msgspec

from lepton_edge.errors import StorageError, UsageError
from lepton_edge.wire.goal import Settings

VERSION = 1
DEFAULT_HTTP = "127.0.0.1:8700"
DEFAULT_BROKER_PORT = 1883
_MAX_FILE = 64 * 1024

Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
PositiveBytes = Annotated[int, msgspec.Meta(ge=1, le=2**50)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the parts of the configuration."""


class BrokerConfig(_Section, frozen=True, kw_only=True):
    """url: of a broker of yours; empty: the embedded one, on loopback at `port`."""

    url: str = ""
    port: Port = DEFAULT_BROKER_PORT


class TransferConfig(_Section, frozen=True, kw_only=True):
    """rate_bytes_s: the most bytes per second that go out. device_bytes_hour: that one device may ask for."""

    rate_bytes_s: PositiveBytes = 64 * 1024 * 1024
    device_bytes_hour: PositiveBytes = 8 * 1024**3


class DeviceConfig(_Section, frozen=True, kw_only=True):
    """The settings in every goal; units as in wire.goal.Settings."""

    telemetry_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 60.0
    keep_removed_s: Annotated[float, msgspec.Meta(ge=0)] = 7 * 86_400.0

    def settings(self) -> Settings:
        return Settings(telemetry_s=self.telemetry_s, keep_removed_s=self.keep_removed_s)


class Config(_Section, frozen=True, kw_only=True):
    """The whole file. fleet: the id that goals name."""

    v: int
    fleet: str
    http: str = DEFAULT_HTTP
    broker: BrokerConfig = BrokerConfig()
    transfer: TransferConfig = TransferConfig()
    devices: DeviceConfig = DeviceConfig()


def to_toml(config: Config) -> bytes:
    """The file as `fleet init` writes it."""
    return f"""\
# A lepton-edge fleet. Restart `lepton-edge fleet serve` after a change.
v = {VERSION}
fleet = "{config.fleet}"          # named in every goal; never change it
http = "{config.http}"

[broker]
url = "{config.broker.url}"                      # empty: the embedded broker on loopback
port = {config.broker.port}

[transfer]
rate_bytes_s = {config.transfer.rate_bytes_s}      # the most that goes out per second
device_bytes_hour = {config.transfer.device_bytes_hour}   # the most that one device may ask for in an hour

[devices]
telemetry_s = {config.devices.telemetry_s}
keep_removed_s = {config.devices.keep_removed_s}
""".encode()


def load_config(path: Path) -> Config:
    """Raises StorageError or UsageError, with the file and what is wrong in it."""
    try:
        data = path.read_bytes()[: _MAX_FILE + 1]
        config = msgspec.toml.decode(data, type=Config)
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror or cause}") from cause
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise UsageError(f"{path}: {cause}") from cause
    if config.v != VERSION:
        raise UsageError(f"{path}: format version {config.v} is unknown, this program knows version {VERSION}")
    return config
