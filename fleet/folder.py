"""The fleet folder: everything that a manager and its operator keep.

fleet.toml           configuration
keys/operator.json   signs manifests; used by the operator's commands alone, sealed with the passphrase
keys/goal.json       signs goals; the manager's
token                the API's bearer token
fleet.db             the registry
blobs/               contents of published bundles, by hash
broker/              the embedded broker's files
serve.json           where the running manager answers
lock                 held by the one process that writes
"""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.broker.process import free_port
from fleet.config import DEFAULT_BROKER_PORT, BrokerConfig, Config, DeviceConfig, load_config, to_toml
from fleet.errors import BusyError
from fleet.registry.database import create_sqlite, sqlite_url
from fleet.trust.keys import open_key, read_key_file, save_key
from lepton_edge import durable
from lepton_edge.errors import StorageError, UsageError
from lepton_edge.typed import Record, decode, encode
from lepton_edge.wire.signatures import PublicKey

CONFIG = "fleet.toml"
VARIABLE = "LEPTON_FLEET"
_MAX_SMALL = 4096


class Serving(Record, frozen=True, kw_only=True):
    """serve.json, and the line that `fleet serve` prints."""

    http: str
    broker: str
    pid: int


class FleetFolder:
    """Paths and small files of a fleet."""

    def __init__(self, root: Path) -> None:
        """Raises UsageError: there is no fleet."""
        self.root = root.absolute()
        if not (self.root / CONFIG).is_file():
            raise UsageError(f"{root}: no fleet there; make one with `lepton-edge fleet init {root}`")

    @property
    def database(self) -> Path:
        return self.root / "fleet.db"

    @property
    def database_url(self) -> str:
        return sqlite_url(self.database)

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def operator_key(self) -> Path:
        return self.root / "keys" / "operator.json"

    def config(self) -> Config:
        return load_config(self.root / CONFIG)

    def goal_key(self) -> Ed25519PrivateKey:
        return open_key(self.root / "keys" / "goal.json", b"")

    def operator_keys(self) -> list[PublicKey]:
        """Whose manifests are accepted."""
        return [read_key_file(self.operator_key).public]

    def goal_keys(self) -> list[PublicKey]:
        """Whose goals the devices follow."""
        return [read_key_file(self.root / "keys" / "goal.json").public]

    def token(self) -> str:
        with durable.translated(self.root / "token"):
            return (self.root / "token").read_text(encoding="ascii").strip()

    def serving(self) -> Serving | None:
        """Where the manager answers, if one runs (or was killed)."""
        try:
            data = (self.root / "serve.json").read_bytes()
        except FileNotFoundError:
            return None
        return decode(data, Serving, what="serve.json", limit=_MAX_SMALL, error=StorageError)

    def announce(self, serving: Serving) -> None:
        durable.write(self.root / "serve.json", encode(serving), mode=0o600)

    def withdraw(self) -> None:
        durable.remove(self.root / "serve.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that writes.

        Raises:
            BusyError: another one is.
        """
        with durable.translated(self.root / "lock"):
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise BusyError(f"{self.root}: another process serves this fleet; stop it first") from cause
            yield
        finally:
            os.close(handle)


def find_fleet(option: Path | None) -> FleetFolder:
    """The fleet in use: --fleet, else LEPTON_FLEET, else ./fleet, else ~/.lepton-edge/fleet."""
    named = os.environ.get(VARIABLE)
    if option is not None:
        return FleetFolder(option)
    if named:
        return FleetFolder(Path(named))
    places = [Path("fleet"), Path.home() / ".lepton-edge" / "fleet"]
    for place in places:
        if (place / CONFIG).is_file():
            return FleetFolder(place)
    raise UsageError(
        "no fleet in ./fleet or ~/.lepton-edge/fleet: give --fleet DIR, or make one: lepton-edge fleet init"
    )


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
