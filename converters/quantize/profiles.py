"""Profiles as data: what a kind of runtime on a kind of CPU runs in int8, and what it needs to run it right.

Why two forms of the same weights: on x86 without VNNI the instruction behind U8S8 and S8S8 (vpmaddubsw) adds pairs of
products in 16 bits and saturates without a word; U8U8 takes another path there that does not. On VNNI both are exact.
"""

import platform

from lepton_edge.cpu import this_cpu
from lepton_edge.typed import Record

X86 = ["x86_64", "AMD64"]


class Profile(Record, frozen=True, kw_only=True):
    """One target.

    Attributes:
        name: as manifests and reports name it.
        variant: the name of the variant that is made for it.
        runtime: the adapter that runs it.
        isa: CPU flags (as /proc/cpuinfo names them) of which one of each inner list is needed.
        machines: platform.machine() values; empty: any.
        unsigned_weights: whether weights are U8 with zero point 128 rather than S8.
    """

    name: str
    variant: str
    runtime: str = "onnxruntime"
    isa: list[list[str]] = []
    machines: list[str] = []
    unsigned_weights: bool = False


FLOAT = Profile(name="ort-float", variant="float32-onnx")
DYNAMIC = Profile(name="ort-any", variant="int8-dynamic-onnx")
X86_VNNI = Profile(name="ort-x86-vnni", variant="int8-onnx-u8s8", isa=[["avx512_vnni", "avx_vnni"]], machines=X86)
X86_AVX2 = Profile(name="ort-x86-avx2", variant="int8-onnx-u8u8", isa=[["avx2"]], machines=X86, unsigned_weights=True)
STATIC = (X86_VNNI, X86_AVX2)
"""The profiles of static int8, the preferred one first."""


def runs_right(profile: Profile, *, flags: frozenset[str], machine: str) -> bool:
    """Whether a CPU computes this profile's files exactly."""
    if profile.machines and machine not in profile.machines:
        return False
    return all(any(flag in flags for flag in choice) for choice in profile.isa)


def native_static(*, flags: frozenset[str], machine: str) -> Profile | None:
    """The static profile that fits a CPU best; None where there is none yet."""
    return next((one for one in STATIC if runs_right(one, flags=flags, machine=machine)), None)


def saturates(profile: Profile, *, flags: frozenset[str], machine: str) -> bool:
    """Whether a CPU would compute this profile's files wrongly without saying so (see above)."""
    return machine in X86 and not profile.unsigned_weights and not runs_right(profile, flags=flags, machine=machine)


def host_flags() -> tuple[frozenset[str], str]:
    """This machine's CPU flags and kind."""
    return this_cpu().flags, platform.machine()
