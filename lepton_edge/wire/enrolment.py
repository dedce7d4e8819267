"""DEVICE.zip: what makes a device a member of a fleet. Whoever holds it is that device: keep it secret."""

import base64
import binascii
import io
import os
import zipfile
from pathlib import Path
from typing import Annotated

import msgspec

from lepton_edge import durable
from lepton_edge.errors import UsageError
from lepton_edge.names import PATTERN
from lepton_edge.typed import Record, decode, encode
from lepton_edge.wire.authenticator import KEY_SIZE
from lepton_edge.wire.signatures import PublicKey

DOCUMENT = "device.json"
MAX_DOCUMENT = 256 * 1024


class Enrolment(Record, frozen=True, kw_only=True):
    """What a device knows of its fleet.

    generation: rises with each enrolment of this id. key: of the authenticator, base64 of 32 bytes.
    broker: URL, mqtt://host:port. goal_keys: whose goals it follows. operator_keys: whose manifests it runs.
    """

    fleet: str
    device: Annotated[str, msgspec.Meta(pattern=f"^{PATTERN}$")]
    generation: int
    key: str
    broker: str
    goal_keys: list[PublicKey]
    operator_keys: list[PublicKey]
    labels: dict[str, str] = {}
    v: int = 1

    def __post_init__(self) -> None:
        try:
            size = len(base64.b64decode(self.key, validate=True))
        except binascii.Error as cause:
            raise ValueError("key is not base64") from cause
        if size != KEY_SIZE:
            raise ValueError(f"key has {size} bytes, expected {KEY_SIZE}")

    @property
    def secret(self) -> bytes:
        return base64.b64decode(self.key)


def new_key() -> str:
    return base64.b64encode(os.urandom(KEY_SIZE)).decode("ascii")


def save_enrolment(enrolment: Enrolment, path: Path) -> None:
    """Write DEVICE.zip, readable by its owner alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(DOCUMENT), encode(enrolment))
    durable.write(path, out.getvalue(), mode=0o600)


def load_enrolment(path: Path) -> Enrolment:
    """Read DEVICE.zip or a folder with its content.

    Raises:
        UsageError: it is no enrolment.
    """
    return decode(_read(path), Enrolment, what=f"{path}", limit=MAX_DOCUMENT, error=UsageError)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            return (path / DOCUMENT).read_bytes()
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(DOCUMENT).file_size > MAX_DOCUMENT:
                raise UsageError(f"{path}: {DOCUMENT} is larger than {MAX_DOCUMENT} bytes")
            return archive.read(DOCUMENT)
    except KeyError as cause:
        raise UsageError(f"{path}: no enrolment: {DOCUMENT} is missing; make one with `lepton-edge enroll`") from cause
    except (zipfile.BadZipFile, NotImplementedError) as cause:
        raise UsageError(f"{path}: no enrolment ({cause}); make one with `lepton-edge enroll`") from cause
    except OSError as cause:
        raise UsageError(f"{path}: {cause.strerror or cause}") from cause
