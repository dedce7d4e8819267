"""What the fleet's commands share: the operator's key, durations, and a push watched to its end."""

import contextlib
import math
import re
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.api.client import POLL_S, Client
from fleet.api.documents import Rollout
from fleet.core.rollout import ENDED
from fleet.errors import TimedOutError
from fleet.folder import FleetFolder
from fleet.trust.keys import needs_passphrase, open_key
from fleet.trust.passphrase import read_passphrase
from lepton_edge.errors import ConnectionFailedError, UsageError
from lepton_edge.wire.messages import TERMINAL

_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "h": 3600.0}
PATIENCE_S = 30.0
_RETRY_S = 0.3
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")


def parse_duration(text: str, *, what: str) -> float:
    """Seconds of "5s", "500ms", "2m", "1h" or "5". Raises UsageError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{what} {text!r}: expected a duration such as 500ms, 5s, 2m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def parse_labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """Labels from key=value. Raises UsageError."""
    labels = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key or not value or "," in pair:
            raise UsageError(f"--label {pair!r}: expected key=value, without commas")
        labels[key] = value
    return labels


def operator_key(folder: FleetFolder) -> Ed25519PrivateKey:
    """The key that signs manifests, opened with the passphrase where it has one."""
    sealed = needs_passphrase(folder.operator_key)
    return open_key(folder.operator_key, read_passphrase(new=False) if sealed else b"")


def watch(client: Client, rollout: Rollout, *, timeout_s: float | None, show: Callable[[Rollout], None]) -> Rollout:
    """Follow a rollout to its end.

    Args:
        show: called with each new state of affairs.

    Raises:
        TimedOutError: it has not ended after `timeout_s` seconds; the devices' goals remain.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    show(rollout)
    while rollout.state not in ENDED:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            waiting = ", ".join(f"{one.id} ({one.state})" for one in rollout.devices if one.state not in TERMINAL)
            raise TimedOutError(f"{rollout.rollout}: not ended after {timeout_s:g} s; the goal remains for {waiting}")
        rollout = _follow(client, rollout, min(POLL_S, left_s))
        show(rollout)
    return rollout


def _follow(client: Client, rollout: Rollout, wait_s: float) -> Rollout:
    """The rollout after a change; a manager that is being restarted is given PATIENCE_S seconds."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.follow(rollout, wait_s)
        except ConnectionFailedError:
            if time.monotonic() > until:
                raise
        time.sleep(_RETRY_S)
        with contextlib.suppress(ConnectionFailedError):
            client.reconnect()


def wait_until_gone(client: Client, model: str, device_ids: list[str], *, timeout_s: float | None) -> None:
    """Return when none of the devices reports `model` any more.

    Raises:
        TimedOutError: some still do after `timeout_s` seconds; the goals remain.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    found = client.devices()
    while waiting := [one.id for one in found.devices if one.id in device_ids and model in one.models]:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimedOutError(f"{model}: not gone after {timeout_s:g} s; the goal remains for {', '.join(waiting)}")
        found = client.devices(after=found.revision, wait_s=min(POLL_S, left_s))
