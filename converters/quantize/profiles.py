"""Profiles as data: what a kind of runtime on a kind of CPU runs in int8, at what cost, and what it needs to be right.

Each is a JSON file in `profile_data`; a measured one is written by `make profile`. Why two forms of the same weights:
on x86 without VNNI the instruction behind U8S8 and S8S8 (vpmaddubsw) adds pairs of products in 16 bits and saturates
without a word; U8U8 takes another path there that does not. On VNNI both are exact, and U8S8 is the faster.
"""

import platform
from functools import cache
from importlib import resources
from typing import Literal

from converters.quantize.cost import MARKS, Edges, OperatorCost
from lepton_edge.cpu import this_cpu
from lepton_edge.errors import ModelError
from lepton_edge.typed import Record, decode

X86 = ["x86_64", "AMD64"]
Sign = Literal["U8", "S8"]
Format = Literal["onnx", "tflite"]
_LIMIT = 1024 * 1024


class Profile(Record, frozen=True, kw_only=True):
    """One target.

    Attributes:
        name: as manifests and reports name it.
        variant: the name of the variant that is made for it.
        runtime: the adapter that runs it.
        provider: of that adapter, where the files are made for one; "" where for the one that devices use.
        format: of its files. TFLite's operators say every change of scale, and carry Relu and Relu6 in themselves.
        isa: CPU flags (as /proc/cpuinfo names them) of which one of each inner list is needed.
        machines: platform.machine() values; empty: any.
        activations, weights: the integer types that its fast kernels take.
        speed: "measured", or "unknown": then the costs only say what is taken, and the device decides.
        operators: by kind (`cost.kind`), what it costs in float and in int8; a kind that is absent stays float.
        edges: what a change between float and int8 costs.
        captures: kinds that the runtime runs in int8 wherever they stand between int8 ones, asked or not.
        float_outputs: kinds whose int8 kernel can give float without a step of its own.
        rewritings: operator -> the name of its int8 form in other words (`rewriting`); one that is absent is kept.
        source: where the figures come from.
    """

    name: str
    variant: str
    runtime: str = "onnxruntime"
    provider: str = ""
    format: Format = "onnx"
    isa: list[list[str]] = []
    machines: list[str] = []
    activations: Sign = "U8"
    weights: Sign = "S8"
    speed: Literal["measured", "unknown"] = "unknown"
    operators: dict[str, OperatorCost] = {}
    edges: Edges = Edges()
    captures: list[str] = []
    float_outputs: list[str] = []
    rewritings: dict[str, str] = {}
    source: str = ""
    v: int = 1

    def entry(self, kind: str) -> OperatorCost | None:
        """What a kind costs; one with a mark that was not measured costs what the plain one does."""
        plain, _, last = kind.rpartition(".")
        return self.operators.get(kind) or (self.entry(plain) if last in MARKS else None)


_FOLDER = resources.files("converters.quantize").joinpath("profile_data")


def _is_shipped(name: str) -> bool:
    return _FOLDER.joinpath(f"{name}.json").is_file()


@cache
def load_profile(name: str) -> Profile:
    """Read a profile that lepton-edge ships.

    Raises:
        ModelError: there is none of this name, or its file is damaged.
    """
    try:
        data = _FOLDER.joinpath(f"{name}.json").read_bytes()
    except OSError as cause:
        raise ModelError(f"there is no profile {name!r}") from cause
    return decode(data, Profile, what=f"profile {name}", limit=_LIMIT, error=ModelError)


FLOAT = Profile(name="ort-float", variant="float32-onnx")
"""The source model itself, which all others are compared with."""
HALF = Profile(name="ort-any", variant="float16-onnx")
DYNAMIC = Profile(name="ort-any", variant="int8-dynamic-onnx")
FLOAT_TFLITE = Profile(name="litert-float", variant="float32-tflite", runtime="litert", format="tflite")
HALF_TFLITE = Profile(name="litert-any", variant="float16-tflite", runtime="litert", format="tflite")
DYNAMIC_TFLITE = Profile(name="litert-any", variant="int8-dynamic-tflite", runtime="litert", format="tflite")
FLOATS = (FLOAT, FLOAT_TFLITE)
"""The float forms: what speed is compared with, each with the files of its own format."""
X86_VNNI = load_profile("ort-x86-vnni")
X86_AVX2 = load_profile("ort-x86-avx2")
ARM64 = load_profile("ort-arm64")
_TFLITE = ("litert-xnnpack", "litert-builtin", "tflite-runtime-2.14")
STATIC = (X86_VNNI, X86_AVX2, ARM64, *(load_profile(name) for name in _TFLITE if _is_shipped(name)))
"""The profiles of static int8, the preferred one of each format first."""


def spare(profile: Profile) -> bool:
    """Whether another profile's files run on its devices too, so that its own would be near-duplicates.

    Of a TFLite runtime's kernel sets the first one serves wherever it is built in, which is nearly everywhere.
    """
    first = next((one for one in STATIC if one.runtime == profile.runtime), profile)
    return profile.format == "tflite" and profile in STATIC and profile != first


def runs_right(profile: Profile, *, flags: frozenset[str], machine: str) -> bool:
    """Whether a CPU is of this profile's kind."""
    if profile.machines and machine not in profile.machines:
        return False
    return all(any(flag in flags for flag in choice) for choice in profile.isa)


def native_static(runtime: str = FLOAT.runtime, *, flags: frozenset[str], machine: str) -> Profile | None:
    """The static profile of a runtime that fits a CPU best; None where there is none yet."""
    fitting = (one for one in STATIC if runs_right(one, flags=flags, machine=machine))
    return next((one for one in fitting if one.runtime == runtime), None)


def saturates(profile: Profile, *, flags: frozenset[str], machine: str) -> bool:
    """Whether a CPU would compute this profile's files wrongly without saying so (see above).

    TFLite's kernels do not: without VNNI they multiply in 16 bits and add in 32 (vpmaddwd).
    """
    vnni = runs_right(X86_VNNI, flags=flags, machine=machine)
    signed = profile.format == "onnx" and profile.weights == "S8" and bool(profile.machines)
    return machine in X86 and signed and not vnni


def host_flags() -> tuple[frozenset[str], str]:
    """This machine's CPU flags and kind."""
    return this_cpu().flags, platform.machine()
