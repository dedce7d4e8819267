"""Which variants a device should try, in which order. Pure.

DESIGN.md, "Choice": the best-ranked variant of each runtime that the device has comes first, so that runtimes are
compared by measuring; the other ones follow for the case that these fail, float last. The caller fetches
`limits.max_candidates` of them, keeps the fastest that passes, and goes on down the list only when none does.

A float variant stands among the first only where its rank beats every quantised one (int8 is not faster here) or
where nothing else is left: it is the largest file, and rarely the answer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lepton_edge.bundle.manifest import Manifest, Variant
from lepton_edge.wire.goal import Limits

_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True)
class Device:
    """What decides whether a variant can run. memory: bytes, 0 where unknown; runtimes: name -> version."""

    machine: str
    cpu_flags: frozenset[str]
    memory: int
    runtimes: Mapping[str, str] = field(default_factory=dict)


def candidates(manifest: Manifest, device: Device, *, limits: Limits) -> list[Variant]:
    """The variants that can run on `device`, in the order in which to try them; empty where none can."""
    able = sorted((v for v in manifest.variants if not obstacle(v, device, limits=limits)), key=_preference)
    best_of_runtime: dict[str, Variant] = {}
    for variant in able:
        best_of_runtime.setdefault(variant.runtime, variant)
    first = [v for v in best_of_runtime.values() if not _is_float(v) or v.rank < _best_quantised_rank(able)]
    rest = [v for v in able if v not in first]
    return first + [v for v in rest if not _is_float(v)] + [v for v in rest if _is_float(v)]


def obstacles(manifest: Manifest, device: Device, *, limits: Limits) -> dict[str, str]:
    """Why each variant that is no candidate is none, by its name: the reason to report when there is no candidate."""
    reasons = {v.name: obstacle(v, device, limits=limits) for v in manifest.variants}
    return {name: reason for name, reason in reasons.items() if reason}


def obstacle(variant: Variant, device: Device, *, limits: Limits) -> str:
    """Why `device` cannot run `variant`; empty where it can."""
    version = device.runtimes.get(variant.runtime)
    if version is None:
        return f"needs the runtime {variant.runtime}, not installed here"
    if variant.min_runtime and _release(version) < _release(variant.min_runtime):
        return f"needs {variant.runtime} >= {variant.min_runtime}, here is {version}"
    if variant.machines and _machine(device.machine) not in {_machine(name) for name in variant.machines}:
        return f"is for {', '.join(variant.machines)}, this is {device.machine}"
    for choices in variant.isa:
        if choices and device.cpu_flags.isdisjoint(choices):
            return f"needs a CPU with {' or '.join(choices)}"
    caps = [cap for cap in (device.memory or None, limits.memory_bytes) if cap is not None]
    if caps and variant.memory > min(caps):
        return f"needs {variant.memory} bytes of memory, {min(caps)} are allowed here"
    return ""


def _is_float(variant: Variant) -> bool:
    return variant.precision == "float32"


def _preference(variant: Variant) -> tuple[int, bool, str]:
    """Ranks are per profile, so two variants may share one; then the quantised one is the smaller to fetch."""
    return variant.rank, _is_float(variant), variant.name


def _best_quantised_rank(able: list[Variant]) -> float:
    return min((v.rank for v in able if not _is_float(v)), default=float("inf"))


def _machine(name: str) -> str:
    return _MACHINES.get(name.lower(), name.lower())


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "1.20.1rc1" is (1, 20, 1). Trailing zeros do not count."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
