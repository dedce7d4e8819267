"""Which variants a device tries, in which order."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.core.choice import Device, candidates, obstacle, obstacles
from lepton_edge.bundle import Manifest, Variant
from lepton_edge.wire.goal import Limits
from tests.device_agent.models import PLUS_ONE, variant_of

DEVICE = Device(
    machine="x86_64",
    cpu_flags=frozenset({"avx2", "avx512_vnni"}),
    memory=1_000_000,
    runtimes={"onnxruntime": "1.20.1", "litert": "2.1.0"},
)


def int8(name: str, rank: int, runtime: str = "onnxruntime", **fields: object) -> Variant:
    return variant_of(PLUS_ONE, name, rank=rank, runtime=runtime, precision="int8", **fields)


def float32(name: str, rank: int, runtime: str = "onnxruntime", **fields: object) -> Variant:
    return variant_of(PLUS_ONE, name, rank=rank, runtime=runtime, **fields)


def order(variants: list[Variant], device: Device = DEVICE, limits: Limits | None = None) -> list[str]:
    manifest = Manifest(name="m", version="1", signature=PLUS_ONE, files={}, variants=variants)
    return [v.name for v in candidates(manifest, device, limits=limits or Limits())]


ORDERS: dict[str, tuple[list[Variant], list[str]]] = {
    "by rank": ([int8("b", 1), int8("a", 2), int8("c", 0)], ["c", "b", "a"]),
    "the best of each runtime first": (
        [int8("ort-0", 0), int8("ort-1", 1), int8("lite-2", 2, "litert"), int8("lite-3", 3, "litert")],
        ["ort-0", "lite-2", "ort-1", "lite-3"],
    ),
    "float last": (
        [float32("float", 1), int8("slow", 3), int8("fast", 0)],
        ["fast", "slow", "float"],
    ),
    "float last even where it is all that a runtime has": (
        [float32("lite-float", 1, "litert"), int8("ort", 0), int8("ort-2", 5)],
        ["ort", "ort-2", "lite-float"],
    ),
    "float first where the host found it faster": (
        [float32("float", 0), int8("int8", 1)],
        ["float", "int8"],
    ),
    "quantised first at equal rank": ([float32("a", 0), int8("b", 0)], ["b", "a"]),
    "float alone": ([float32("b", 1, "litert"), float32("a", 0)], ["a", "b"]),
    "no runtime, no candidate": ([int8("edge", 0, "edgetpu")], []),
}


@pytest.mark.parametrize(("variants", "expected"), ORDERS.values(), ids=ORDERS)
def test_order(variants: list[Variant], expected: list[str]) -> None:
    assert order(variants) == expected
    assert order(variants[::-1]) == expected


@dataclass(frozen=True)
class Fit:
    variant: dict[str, object]
    why: str = ""
    device: Device = DEVICE
    limits: Limits = field(default_factory=Limits)


FITS = {
    "flag there": Fit({"isa": [["avx512_vnni", "avx_vnni"]]}),
    "one of each list is needed": Fit({"isa": [["avx2"], ["amx_int8"]]}, "needs a CPU with amx_int8"),
    "flag missing": Fit({"isa": [["asimddp", "sve"]]}, "needs a CPU with asimddp or sve"),
    "machine fits": Fit({"machines": ["aarch64", "x86_64"]}),
    "machine by another name": Fit({"machines": ["aarch64"]}, device=replace(DEVICE, machine="arm64")),
    "other machine": Fit({"machines": ["aarch64"]}, "is for aarch64, this is x86_64"),
    "runtime as old as allowed": Fit({"min_runtime": "1.20.1"}),
    "runtime numbers compare as numbers": Fit({"min_runtime": "1.9"}),
    "trailing zeros do not count": Fit({"min_runtime": "2.0"}, device=replace(DEVICE, runtimes={"onnxruntime": "2"})),
    "runtime too old": Fit({"min_runtime": "1.21"}, "needs onnxruntime >= 1.21, here is 1.20.1"),
    "runtime absent": Fit({"runtime": "edgetpu"}, "needs the runtime edgetpu, not installed here"),
    "memory fits": Fit({"memory": 1_000_000}),
    "device too small": Fit({"memory": 1_000_001}, "needs 1000001 bytes of memory, 1000000 are allowed here"),
    "limit too small": Fit(
        {"memory": 600}, "needs 600 bytes of memory, 500 are allowed here", limits=Limits(memory_bytes=500)
    ),
    "device's memory unknown": Fit({"memory": 10**15}, device=replace(DEVICE, memory=0)),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_obstacle(fit: Fit) -> None:
    variant = variant_of(PLUS_ONE, "v", **fit.variant)
    assert obstacle(variant, fit.device, limits=fit.limits) == fit.why
    assert order([variant], fit.device, fit.limits) == ([] if fit.why else ["v"])


def test_obstacles_name_every_variant_that_cannot_run() -> None:
    variants = [int8("good", 0), int8("bad", 1, "edgetpu")]
    manifest = Manifest(name="m", version="1", signature=PLUS_ONE, files={}, variants=variants)
    assert list(obstacles(manifest, DEVICE, limits=Limits())) == ["bad"]


variants = st.lists(
    st.builds(
        variant_of,
        st.just(PLUS_ONE),
        st.from_regex(r"\A[a-z]{1,6}\Z"),
        rank=st.integers(0, 4),
        runtime=st.sampled_from(["onnxruntime", "litert", "none"]),
        precision=st.sampled_from(["float32", "int8", "float16"]),
        isa=st.sampled_from([[], [["avx2"]], [["nope"]]]),
    ),
    max_size=8,
    unique_by=lambda v: v.name,
)


@given(variants, st.randoms())
def test_every_able_variant_comes_once_in_an_order_that_the_manifests_order_does_not_change(
    found: list[Variant], random: object
) -> None:
    names = order(found)
    assert sorted(names) == sorted(v.name for v in found if not obstacle(v, DEVICE, limits=Limits()))
    random.shuffle(found)
    assert order(found) == names
