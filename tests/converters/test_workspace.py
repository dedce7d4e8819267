"""Scratch files: gone when the work ends, however it ends; a full disk is named; bundles are whole or absent."""

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import lepton_edge as le
from converters import job
from converters.convert import convert
from converters.proto import write_model
from converters.request import Request
from converters.workspace import LOCK, PREFIX, Workspace, disk_full_named, sweep
from lepton_edge.bundle import Bundle
from lepton_edge.errors import DiskFullError
from tests.converters import models


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def left(scratch: Path) -> list[str]:
    return sorted(path.name for path in scratch.iterdir())


def test_a_workspace_goes_with_the_block_the_call_or_the_object(tmp_path: Path) -> None:
    with Workspace(tmp_path) as one:
        (one.path / "file").write_bytes(b"x")
    assert not one.path.exists()
    two = Workspace(tmp_path)
    two.close()
    two.close()
    three = Workspace(tmp_path)
    path = three.path
    del three
    gc.collect()
    assert not path.exists()
    assert left(tmp_path) == []


def test_what_a_killed_process_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from converters.workspace import Workspace;"
        "kept = Workspace(Path(sys.argv[1])); (kept.path / 'big').write_bytes(b'x'); print(kept.path, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    dead = Path(done.stdout.strip())
    assert (dead / "big").exists()
    with Workspace(tmp_path) as living:
        assert not dead.exists()
        sweep(tmp_path)
        assert (living.path / LOCK).exists()


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}notes").mkdir()
    (tmp_path / "else").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "else")
    sweep(tmp_path)
    assert left(tmp_path) == ["else", f"{PREFIX}link", f"{PREFIX}notes"]


def test_a_conversion_leaves_no_scratch(digits_onnx: Path, scratch: Path, tmp_path: Path) -> None:
    convert(Request(model=digits_onnx, out=tmp_path / "o.lep", benchmark=False))
    assert left(scratch) == []


def test_a_model_keeps_its_scratch_as_long_as_it_lives(digits_onnx: Path, scratch: Path) -> None:
    model = le.quantize_model(digits_onnx)
    model.predict(np.zeros((1, 1, 28, 28), np.float32))
    assert len(left(scratch)) == 1
    del model
    gc.collect()
    assert left(scratch) == []


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["crash", "Ctrl-C"])
def test_work_that_breaks_off_leaves_nothing(
    error: BaseException, digits_onnx: Path, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(job, "judge_artifacts", fail)
    with pytest.raises(type(error)):
        convert(Request(model=digits_onnx, out=tmp_path / "o.lep", benchmark=False))
    assert left(scratch) == []
    assert not (tmp_path / "o.lep").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_command_cleanly(number: int, digits_onnx: Path, tmp_path: Path) -> None:
    scratch, pipe = tmp_path / "scratch", tmp_path / "labels.txt"
    scratch.mkdir()
    # The command waits for ever on a pipe that nobody writes to, in the middle of its work.
    os.mkfifo(pipe)
    (tmp_path / "slow.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    yield np.zeros((1, 28, 28), np.float32), 0\n"
        f"    open({str(pipe)!r}).read()\n"
    )
    child = subprocess.Popen(
        [
            sys.executable, "-m", "lepton_edge", "convert", str(digits_onnx), "--data", "slow:samples",
            "-o", str(tmp_path / "o.lep"),
        ],
        env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    # Opening the other end succeeds when the command has come to read.
    with pipe.open("w"):
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "interrupted" in errors
    assert left(scratch) == []
    assert not list(tmp_path.glob("o.*"))


def test_a_full_disk_is_named_with_what_to_do(
    digits_onnx: Path, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(scratch / "x.onnx"))

    monkeypatch.setattr(job, "make_artifacts", full)
    with pytest.raises(DiskFullError, match=r"x\.onnx: free some space, or let TMPDIR name"):
        convert(Request(model=digits_onnx, out=tmp_path / "o.lep"))
    assert left(scratch) == []
    with pytest.raises(OSError, match="other"), disk_full_named(tmp_path):
        raise OSError(errno.EIO, "other")


def test_the_last_of_two_conversions_to_one_file_wins_whole(tmp_path: Path) -> None:
    """Both write the whole time; a reader sees one or the other, never a mixture."""
    out, stop = tmp_path / "o.lep", threading.Event()
    bundles = [le.load_model(models.conv_net(seed=seed)) for seed in (1, 2)]
    for number, model in enumerate(bundles):
        model.save(tmp_path / f"{number}.lep", name="net")
    wanted = {Bundle.open(tmp_path / f"{number}.lep").digest for number in range(2)}
    sources = [Bundle.open(tmp_path / f"{number}.lep") for number in range(2)]
    sources[0].save(out)

    def write(source: Bundle) -> None:
        while not stop.is_set():
            source.save(out)

    writers = [threading.Thread(target=write, args=(source,)) for source in sources]
    for writer in writers:
        writer.start()
    seen, until = set(), time.monotonic() + 10
    while len(seen) < 2 and time.monotonic() < until:
        copy = tmp_path / "copy.lep"
        copy.write_bytes(out.read_bytes())
        seen.add(Bundle.open(copy).verify().digest)
    stop.set()
    for writer in writers:
        writer.join()
    assert seen <= wanted
    assert not list(tmp_path.glob(".*.tmp"))


ARRAYS = st.lists(
    st.tuples(st.sampled_from(["<f4", "<f2", "|i1", "<i8"]), st.lists(st.integers(0, 3), max_size=3)), max_size=4
)


@given(kinds=ARRAYS, raw=st.booleans())
def test_a_model_written_in_pieces_reads_back_the_same(
    kinds: list[tuple[str, list[int]]], raw: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensors = []
    for index, (kind, shape) in enumerate(kinds):
        array = np.arange(int(np.prod(shape)), dtype=kind).reshape(shape)
        tensor = numpy_helper.from_array(array, f"t{index}")
        if not raw and kind == "<f4":
            tensor = helper.make_tensor(f"t{index}", TensorProto.FLOAT, shape, array.reshape(-1).tolist())
        tensors.append(tensor)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value], tensors, "words")
    model = helper.make_model(graph, producer_name="test", opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    assert write_model(model, path) == path.stat().st_size
    assert onnx.load(path).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    onnx.checker.check_model(model)
