"""Which devices `--to` means: all, a list of ids, or labels that a device must all have."""

from collections.abc import Mapping

from fleet.errors import FleetError, UnknownError


def select(to: str, labels_of: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The ids that `to` selects, sorted.

    Args:
        to: "all"; or "id,id,..."; or "key=value,key=value,..." (all must hold).
        labels_of: the labels of each enrolled device.

    Raises:
        UnknownError: an id is not enrolled, or nothing is selected.
        FleetError: ids and labels are mixed, or `to` is empty.
    """
    parts = [part.strip() for part in to.split(",")]
    if not all(parts):
        raise FleetError(f"--to {to!r}: empty; use all, ID,... or key=value,...")
    with_label = ["=" in part for part in parts]
    if any(with_label) and not all(with_label):
        raise FleetError(f"--to {to!r}: ids and labels do not mix; use all, ID,... or key=value,...")
    chosen = _by_label(parts, labels_of) if any(with_label) else _by_id(parts, labels_of)
    if not chosen:
        raise UnknownError(f"--to {to!r}: no enrolled device is selected")
    return chosen


def _by_id(parts: list[str], labels_of: Mapping[str, Mapping[str, str]]) -> list[str]:
    if parts == ["all"]:
        return sorted(labels_of)
    unknown = sorted(set(parts) - set(labels_of))
    if unknown:
        raise UnknownError(f"device {unknown[0]!r} is not enrolled here; see `lepton-edge devices`")
    return sorted(set(parts))


def _by_label(parts: list[str], labels_of: Mapping[str, Mapping[str, str]]) -> list[str]:
    wanted = [part.split("=", 1) for part in parts]
    return sorted(
        device for device, labels in labels_of.items() if all(labels.get(key) == value for key, value in wanted)
    )
