"""What CPU this is, by the kernel's own words, for host and device alike."""

from pathlib import Path
from typing import NamedTuple

CPUINFO = Path("/proc/cpuinfo")
_MODEL_KEYS = ("model name", "Model", "Hardware", "Processor")
_FLAG_KEYS = ("flags", "Features")


class Cpu(NamedTuple):
    """model: empty where the system does not tell. flags: as /proc/cpuinfo names them."""

    model: str
    flags: frozenset[str]


def this_cpu(cpuinfo: Path = CPUINFO) -> Cpu:
    """This machine's CPU; empty where the system does not tell."""
    try:
        return parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Cpu("", frozenset())


def parse_cpuinfo(text: str) -> Cpu:
    """Read /proc/cpuinfo of x86 (`flags`) or ARM (`Features`).

    Flags are those that every core has: big.LITTLE cores may differ, and a thread may run on any.
    """
    model, flags = "", None
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in _MODEL_KEYS and not model:
            model = value
        elif key in _FLAG_KEYS:
            flags = set(value.split()) if flags is None else flags & set(value.split())
    return Cpu(model, frozenset(flags or ()))
