"""Typed JSON at the boundaries: bytes become frozen, validated structs at once, or one clear error.

Rules kept here for every file and message: a size limit before parsing, unknown fields tolerated, unknown versions
refused.
"""

from typing import TypeVar

import msgspec

from lepton_edge.errors import LeptonError, MessageError


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all typed data that leave the process."""


R = TypeVar("R")


def encode(value: object) -> bytes:
    """JSON bytes with fields in declaration order and sorted dictionary keys: equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")


def decode(data: bytes, kind: type[R], *, what: str, limit: int, error: type[LeptonError] = MessageError) -> R:
    """Parse `data` as `kind`.

    Args:
        data: JSON in UTF-8.
        kind: the struct expected; if it has a field `v`, that must equal its default.
        what: how the error message names the data.
        limit: the most bytes accepted.
        error: the class to raise.
    """
    if len(data) > limit:
        raise error(f"{what}: {len(data)} bytes, at most {limit} are accepted")
    try:
        value = msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as cause:
        raise error(f"{what}: {cause}{_version_hint(data, kind)}") from cause
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise error(f"{what}: not valid JSON ({cause})") from cause
    _check_version(value, what, error)
    return value


class _Versioned(msgspec.Struct):
    v: int = 0


def _expected_version(kind: object) -> int | None:
    fields = getattr(kind, "__struct_fields__", ())
    defaults = getattr(kind, "__struct_defaults__", ())
    named = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
    version = named.get("v")
    return version if isinstance(version, int) else None


def _version_hint(data: bytes, kind: object) -> str:
    """A newer format may fail the type check first: say so, as it is the likelier cause."""
    want = _expected_version(kind)
    try:
        got = msgspec.json.decode(data, type=_Versioned).v
    except (msgspec.DecodeError, RecursionError):
        return ""
    if want is None or got == want:
        return ""
    return f"; it says version {got}, this program knows version {want}"


def _check_version(value: object, what: str, error: type[LeptonError]) -> None:
    want = _expected_version(type(value))
    got = getattr(value, "v", None)
    if want is not None and got != want:
        raise error(f"{what}: format version {got} is unknown, this program knows version {want}; update lepton-edge")
