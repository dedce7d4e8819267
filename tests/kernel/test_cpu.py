"""What /proc/cpuinfo says, on x86 and ARM."""

from pathlib import Path

import pytest

from lepton_edge.cpu import parse_cpuinfo, this_cpu

X86 = """processor\t: 0
model name\t: AMD Ryzen 5
flags\t\t: fpu sse2 avx2

processor\t: 1
model name\t: AMD Ryzen 5
flags\t\t: fpu sse2 avx2
"""
BIG_LITTLE = """processor       : 0
BogoMIPS        : 108.00
Features        : fp asimd crc32

processor       : 1
Features        : fp asimd crc32 asimddp

Model           : Raspberry Pi 5 Model B Rev 1.0
"""


@pytest.mark.parametrize(
    ("text", "model", "flags"),
    [
        (X86, "AMD Ryzen 5", ["avx2", "fpu", "sse2"]),
        (BIG_LITTLE, "Raspberry Pi 5 Model B Rev 1.0", ["asimd", "crc32", "fp"]),
        ("", "", []),
    ],
    ids=["x86", "ARM with unlike cores", "nothing"],
)
def test_cpuinfo(text: str, model: str, flags: list[str]) -> None:
    assert parse_cpuinfo(text) == (model, frozenset(flags))


def test_a_system_that_does_not_tell_is_no_error(tmp_path: Path) -> None:
    assert this_cpu(tmp_path / "absent") == ("", frozenset())
