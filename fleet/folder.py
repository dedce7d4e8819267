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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.config import Config, load_config
from fleet.errors import BusyError
from fleet.trust.keys import open_key, read_key_file
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
        return f"sqlite:///{self.database}"

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
