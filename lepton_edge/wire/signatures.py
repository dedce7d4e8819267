"""Ed25519 (RFC 8032) over a context line and the exact bytes: a signature for one use never fits another."""

import base64
import binascii
import hashlib
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lepton_edge.errors import SignatureError
from lepton_edge.typed import Record


class Context(Enum):
    """What is signed."""

    MANIFEST = b"lepton-edge manifest 1\n"
    GOAL = b"lepton-edge goal 1\n"


class Signature(Record, frozen=True, kw_only=True):
    """A detached signature. keyid: SHA-256 of the raw public key, hex; sig: base64."""

    keyid: str
    sig: str


class PublicKey(Record, frozen=True, kw_only=True):
    """A key that somebody trusts. key: the raw 32 bytes, base64."""

    key: str

    @property
    def keyid(self) -> str:
        return hashlib.sha256(_decode(self.key, what="public key")).hexdigest()


def public_key(private: Ed25519PrivateKey) -> PublicKey:
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return PublicKey(key=base64.b64encode(raw).decode("ascii"))


def sign(private: Ed25519PrivateKey, context: Context, data: bytes) -> Signature:
    sig = private.sign(context.value + data)
    return Signature(keyid=public_key(private).keyid, sig=base64.b64encode(sig).decode("ascii"))


def verify(trusted: list[PublicKey], context: Context, data: bytes, signature: Signature, *, what: str) -> None:
    """Return if one of the `trusted` keys signed `data`.

    Raises:
        SignatureError: the key is not trusted, or the signature is not its own.
    """
    for key in trusted:
        if key.keyid == signature.keyid:
            _verify_one(key, context.value + data, signature, what)
            return
    raise SignatureError(f"{what}: signed by key {signature.keyid[:16]}, which is not trusted here")


def _verify_one(key: PublicKey, message: bytes, signature: Signature, what: str) -> None:
    try:
        public = Ed25519PublicKey.from_public_bytes(_decode(key.key, what="public key"))
        public.verify(_decode(signature.sig, what=what), message)
    except (InvalidSignature, ValueError) as cause:
        raise SignatureError(f"{what}: the signature is wrong") from cause


def _decode(text: str, *, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise SignatureError(f"{what}: not base64") from cause
