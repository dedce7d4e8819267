"""The demo is what a newcomer sees first, so it runs here as they run it; and it leaves nothing behind."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from lepton_edge.bundle import Bundle
from lepton_edge.demo.stage import PROGRAM
from lepton_edge.demo.story import DEVICES
from tests.system.world import until

DEMO_S = 150.0


def _start(folder: Path) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir()
    words = [*PROGRAM, "demo", "-o", str(folder / "kept")]
    env = os.environ | {"TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(
        words,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_ends_well_shows_the_table_and_cleans_up(tmp_path: Path) -> None:
    with _start(tmp_path) as demo:
        shown, _ = demo.communicate(timeout=DEMO_S)
    assert demo.returncode == 0, shown[-3000:]
    assert " 0 failed or wrong" in shown
    assert "broken version 3: 0" in shown
    for device in DEVICES:
        assert re.search(rf"digits-2 +{device} ", shown)
    assert re.search(r"digits-1 +camera-litert +litert +\S+-tflite +\d+ +\S+-tflite ", shown)
    assert re.search(r"digits-1 +camera-ort +onnxruntime +\S+-onnx\S* +\d+ +\S+-onnx\S* ", shown)
    assert re.search(r"digits-1 +camera-both +litert \+ onnxruntime +\S+ \+ \S+ .*the fastest of 2: ", shown)
    formats = {variant.format for variant in Bundle.open(tmp_path / "kept" / "digits-3-broken.lep").manifest.variants}
    assert formats == {"onnx", "tflite"}
    assert Bundle.open(tmp_path / "kept" / "digits-1.lep").verify().manifest.name == "digits"
    assert (tmp_path / "kept" / "digits-1.report.html").stat().st_size > 1000
    assert list((tmp_path / "tmp").iterdir()) == []


def agents(process: psutil.Process) -> int:
    """How many agents the demo runs now; a command that just ended is a zombie for a moment."""
    found = 0
    for child in process.children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            found += "agent" in child.cmdline()
    return found


def test_ctrl_c_stops_every_process_and_removes_the_files(tmp_path: Path) -> None:
    with _start(tmp_path) as demo:
        process = psutil.Process(demo.pid)
        until(lambda: agents(process) == len(DEVICES), what="three agents")
        family = process.children(recursive=True)
        demo.send_signal(signal.SIGINT)
        shown, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, shown[-3000:]
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert len(gone) >= 5
    assert list((tmp_path / "tmp").iterdir()) == []
