"""What this device is: read from the kernel's files, so that nothing but the standard library is needed."""

import logging
import os
import platform
import shutil
from collections.abc import Collection
from pathlib import Path

from device_agent.core.choice import Device
from lepton_edge.cpu import this_cpu
from lepton_edge.errors import UsageError
from lepton_edge.runtimes import Runtime, installed, runtimes
from lepton_edge.version import VERSION
from lepton_edge.wire import messages

_log = logging.getLogger(__name__)
_TEXT = 256
_MAX_FLAGS = 512


def probe(state: Path, labels: dict[str, str], *, only: Collection[str] = (), root: Path = Path("/")) -> messages.Info:
    """Look at this machine.

    Args:
        state: the agent's folder, whose disk counts; the nearest parent that exists is asked.
        labels: as enrolled.
        only: the runtimes that may be used, by name; none: all that are installed.
        root: where /proc and /sys hang; a test has its own.

    Returns:
        What goes to d/{id}/info; what cannot be found out is empty or 0.

    Raises:
        UsageError: `only` names what no runtime is called.
    """
    cpu = this_cpu(root / "proc/cpuinfo")
    return messages.Info(
        agent=VERSION,
        system=f"{platform.system()} {platform.release()}"[:_TEXT],
        machine=platform.machine()[:_TEXT],
        cpu=(cpu.model or platform.processor())[:_TEXT],
        cpu_flags=[flag[:_TEXT] for flag in sorted(cpu.flags)[:_MAX_FLAGS]],
        cores=_cores(),
        memory=memory_bytes(root),
        disk_free=_disk_free(state),
        runtimes=_runtimes(only),
        labels=labels,
    )


def device_of(info: messages.Info) -> Device:
    """What the choice of a variant needs of `info`."""
    return Device(
        machine=info.machine,
        cpu_flags=frozenset(info.cpu_flags),
        memory=info.memory,
        runtimes={runtime.name: runtime.version for runtime in info.runtimes},
    )


def memory_bytes(root: Path = Path("/")) -> int:
    """The memory that this process may use: the machine's, or what its cgroup allows where that is less."""
    totals = [
        int(line.split()[1]) * 1024
        for line in _read(root / "proc/meminfo").splitlines()
        if line.startswith("MemTotal:")
    ]
    return min(totals + _cgroup_limits(root), default=0)


def _cgroup_limits(root: Path) -> list[int]:
    """Every limit from the process's cgroup up (version 2, and 1's memory controller)."""
    limits = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        folder = base / path.lstrip("/")
        # In a container the path may be the host's, which is not mounted: then only the base itself answers.
        places = [place for place in (folder, *folder.parents) if place.is_relative_to(base)]
        limits += [_read(place / name).strip() for place in places]
    return [int(limit) for limit in limits if limit.isdecimal()]


def _cores() -> int:
    """The cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _disk_free(state: Path) -> int:
    place = state.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def _runtimes(only: Collection[str]) -> list[messages.RuntimeInfo]:
    if unknown := sorted(set(only) - set(runtimes())):
        raise UsageError(f"no runtime is called {', '.join(unknown)}; there are {', '.join(sorted(runtimes()))}")
    found = [_runtime(runtime) for name, runtime in installed().items() if not only or name in only]
    return [info for info in found if info is not None]


def _runtime(runtime: Runtime) -> messages.RuntimeInfo | None:
    """None where the library is installed and broken: the device has no such runtime then."""
    try:
        providers = runtime.providers()
    except (ImportError, OSError) as error:
        _log.warning("the runtime %s is installed but does not load: %s", runtime.name, error)
        return None
    return messages.RuntimeInfo(
        name=runtime.name, version=(runtime.version() or "")[:_TEXT], providers=[name[:_TEXT] for name in providers]
    )


def _read(path: Path) -> str:
    """A file of the kernel's; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
