"""`fleet init`: a new fleet folder, whole or not at all."""

import secrets
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.broker.process import free_port
from fleet.config import DEFAULT_BROKER_PORT, BrokerConfig, Config, DeviceConfig, to_toml
from fleet.folder import CONFIG, FleetFolder
from fleet.registry.database import create_sqlite
from fleet.trust.keys import save_key
from lepton_edge import durable
from lepton_edge.errors import UsageError


def check_free(root: Path) -> None:
    """Raise UsageError unless `root` is absent or an empty folder."""
    with durable.translated(root):
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            what = "a fleet is there already" if (root / CONFIG).exists() else "not an empty folder"
            raise UsageError(f"{root}: {what}; nothing was changed")


def init_fleet(root: Path, *, passphrase: bytes, devices: DeviceConfig, broker: BrokerConfig) -> FleetFolder:
    """Make a fleet folder, whole or not at all.

    Args:
        broker: a port of 0 is replaced by MQTT's 1883, or by a free one where that is taken; it is kept, because the
            enrolments name it.

    Raises:
        UsageError: the folder is not empty.
        StorageError, DiskFullError: it cannot be written.
    """
    check_free(root)
    root = root.absolute()
    with durable.translated(root):
        root.parent.mkdir(parents=True, exist_ok=True)
    if not broker.url and broker.port == 0:
        broker = BrokerConfig(port=_usual_port())
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.", suffix=".tmp") as made:
        inside = Path(made) / "fleet"
        inside.mkdir(mode=0o700)
        _fill(inside, passphrase, Config(v=1, fleet=f"f-{secrets.token_hex(8)}", broker=broker, devices=devices))
        durable.move_into_place(inside, root)
    return FleetFolder(root)


def _fill(folder: Path, passphrase: bytes, config: Config) -> None:
    for name in ("keys", "blobs", "broker"):
        (folder / name).mkdir(mode=0o700)
    save_key(folder / "keys" / "operator.json", Ed25519PrivateKey.generate(), passphrase)
    save_key(folder / "keys" / "goal.json", Ed25519PrivateKey.generate(), b"")  # the manager starts unattended
    durable.write(folder / "token", secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
    durable.write(folder / CONFIG, to_toml(config), mode=0o600)
    create_sqlite(folder / "fleet.db")


def _usual_port() -> int:
    try:
        return free_port(port=DEFAULT_BROKER_PORT)
    except OSError:
        return free_port()
