"""What the device says about itself."""

from pathlib import Path

import onnxruntime
import pytest

from device_agent.info import device_of, memory_bytes, probe
from lepton_edge.runtimes.onnxruntime import OnnxRuntime
from lepton_edge.typed import encode
from lepton_edge.wire import messages
from lepton_edge.wire.topics import Kind


def put(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def memory(root: Path, cgroup: str, files: dict[str, str]) -> int:
    put(root, proc__meminfo="MemTotal:  1000 kB\nMemFree: 1 kB\n", proc__self__cgroup=cgroup)
    for name, text in files.items():
        put(root / Path(name).parent, **{Path(name).name: text})
    return memory_bytes(root)


V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
MEMORY: dict[str, tuple[str, dict[str, str], int]] = {
    "no cgroup": ("", {}, 1_024_000),
    "version 2": ("0::/a/b\n", {f"{V2}/a/b/memory.max": "5000\n"}, 5000),
    "the parent allows less": ("0::/a/b\n", {f"{V2}/a/b/memory.max": "max\n", f"{V2}/a/memory.max": "7\n"}, 7),
    "in a container": ("0::/host/path\n", {f"{V2}/memory.max": "600\n"}, 600),
    "version 1": ("4:cpu,memory:/a\n3:cpu:/x\n", {f"{V1}/a/memory.limit_in_bytes": "900\n"}, 900),
    "more than the machine has": ("0::/\n", {f"{V2}/memory.max": "99999999999\n"}, 1_024_000),
    "malformed": ("nonsense\n", {f"{V2}/memory.max": "?\n"}, 1_024_000),
}


@pytest.mark.parametrize(("cgroup", "files", "expected"), MEMORY.values(), ids=MEMORY)
def test_memory_is_what_the_cgroup_allows(tmp_path: Path, cgroup: str, files: dict[str, str], expected: int) -> None:
    assert memory(tmp_path, cgroup, files) == expected


def test_this_machine_describes_itself_within_the_messages_limits(tmp_path: Path) -> None:
    info = probe(tmp_path / "not" / "there" / "yet", {"site": "lab"})
    assert info.cores >= 1
    assert info.memory > 2**20
    assert info.disk_free > 0
    assert info.labels == {"site": "lab"}
    assert [(r.name, r.version) for r in info.runtimes if r.name == "onnxruntime"] == [
        ("onnxruntime", onnxruntime.__version__)
    ]
    assert messages.decode_body(Kind.INFO, encode(info)) == info
    device = device_of(info)
    assert device.runtimes["onnxruntime"] == onnxruntime.__version__
    assert device.memory == info.memory


def test_an_empty_root_gives_an_info_all_the_same(tmp_path: Path) -> None:
    info = probe(tmp_path, {}, root=tmp_path)
    assert (info.memory, info.cpu_flags) == (0, [])


def test_a_runtime_that_does_not_load_is_no_runtime(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def broken(self: OnnxRuntime) -> list[str]:
        raise ImportError("libonnxruntime.so: wrong ELF class")

    monkeypatch.setattr(OnnxRuntime, "providers", broken)
    assert "onnxruntime" not in [runtime.name for runtime in probe(tmp_path, {}).runtimes]
    assert "wrong ELF class" in caplog.text
