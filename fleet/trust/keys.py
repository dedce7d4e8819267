"""Private keys at rest: Ed25519, sealed with a passphrase (scrypt, AES-256-GCM), or plain where there is none.

As with ssh-keygen and cosign an empty passphrase is allowed, but only when given on purpose: an empty answer to the
prompt, or an empty file. The file then protects the key by its mode (0600) alone.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from lepton_edge import durable
from lepton_edge.errors import SignatureError, StorageError
from lepton_edge.typed import Record, decode, encode
from lepton_edge.wire.signatures import PublicKey, public_key

_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 1  # RFC 7914: 32 MiB and about 0.1 s
_MAX_FILE = 4096


class KeyFile(Record, frozen=True, kw_only=True):
    """A private key on disk. salt, nonce, secret: base64; the first two are empty without a passphrase."""

    public: PublicKey
    cipher: Literal["none", "scrypt-aes256gcm"]
    salt: str
    nonce: str
    secret: str
    v: int = 1


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _sealing_key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase)


def save_key(path: Path, private: Ed25519PrivateKey, passphrase: bytes) -> None:
    """Write a key, readable by its owner alone."""
    public, raw = public_key(private), private.private_bytes_raw()
    if not passphrase:
        file = KeyFile(public=public, cipher="none", salt="", nonce="", secret=_text(raw))
    else:
        salt, nonce = os.urandom(16), os.urandom(12)
        # The public key is bound to the secret: exchanging it in the file does not go unseen.
        secret = AESGCM(_sealing_key(passphrase, salt)).encrypt(nonce, raw, public.key.encode())
        file = KeyFile(
            public=public, cipher="scrypt-aes256gcm", salt=_text(salt), nonce=_text(nonce), secret=_text(secret)
        )
    durable.write(path, encode(file), mode=0o600)


def read_key_file(path: Path) -> KeyFile:
    """Raises StorageError or SignatureError: missing, or no key."""
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise StorageError(f"{path}: {cause.strerror or cause}") from cause
    return decode(data, KeyFile, what=str(path), limit=_MAX_FILE, error=SignatureError)


def open_key(path: Path, passphrase: bytes) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        SignatureError: the passphrase is wrong, or the file is damaged.
    """
    file = read_key_file(path)
    try:
        secret = base64.b64decode(file.secret, validate=True)
        if file.cipher != "none":
            salt, nonce = base64.b64decode(file.salt), base64.b64decode(file.nonce)
            secret = AESGCM(_sealing_key(passphrase, salt)).decrypt(nonce, secret, file.public.key.encode())
        private = Ed25519PrivateKey.from_private_bytes(secret)
    except InvalidTag as cause:
        raise SignatureError(f"{path}: the passphrase is wrong") from cause
    except (binascii.Error, ValueError) as cause:
        raise SignatureError(f"{path}: damaged ({cause})") from cause
    if public_key(private) != file.public:
        raise SignatureError(f"{path}: damaged: the public key is not that of the private one")
    return private


def needs_passphrase(path: Path) -> bool:
    return read_key_file(path).cipher != "none"
