"""Memory that a loaded model needs, measured in a process of its own: `python -m converters.measure.memory FILE...`.

A process's peak never falls, so each file needs a fresh one.
"""

import ctypes
import gc
import importlib
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime

_KIB = 1 if sys.platform == "darwin" else 1024
TIMEOUT_S = 120.0
_M_MMAP_THRESHOLD = -3
WORTH_BYTES = 300_000_000
_LARGE_FILE = WORTH_BYTES // 4
"""Files from here on get a process each: the one that waits with all libraries would count beside them."""
_LARGE = 1 << 20
"""Bytes from which on a block is a mapping of its own during a conversion."""


def bound_heap() -> None:
    """Let every large block go back to the system when it is freed, for the rest of this process.

    glibc raises its threshold for that up to 32 MB as blocks are freed, and then keeps what closed sessions held
    (measured: a second session on a 340 MB file peaks at 2.3x the file, with the threshold fixed at 1.0x). Does
    nothing where the C library is another.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def release_memory(*, worth: int = WORTH_BYTES) -> None:
    """Let go of what nobody needs, graphs (whose nodes and values hold each other) above all.

    Freed memory goes back to the system by malloc_trim(3), where the C library has it. A process that is small anyway
    is left to the interpreter's own collector: a full collection takes 60 ms with all libraries loaded.

    Args:
        worth: what a process must hold before memory is looked for in it, in bytes.
    """
    if 0 < rss_bytes() < worth:
        return
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def rss_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """The memory that this process holds now, in bytes; 0 where the system does not tell (proc(5), statm)."""
    with suppress(OSError, ValueError, IndexError):
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most memory that this process ever held, in bytes.

    On Linux VmHWM: ru_maxrss survives exec, so a child would report what its parent held.
    """
    with suppress(OSError):
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def measure_memory(files: Sequence[Path]) -> list[int]:
    """Bytes that loading each file and running it once add to a fresh process; 0 where that cannot be told.

    One process loads the libraries and forks for each file, one after the other. A large file gets a process of its
    own, which does not fork.
    """
    large = any(file.exists() and file.stat().st_size > _LARGE_FILE for file in files)
    return [size for group in ([[file] for file in files] if large else [files]) for size in _measured(group)]


def _measured(files: Sequence[Path]) -> list[int]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *map(str, files)],
            capture_output=True,
            timeout=TIMEOUT_S * len(files),
            check=True,
        )
        found = [max(0, int(line)) for line in done.stdout.split()]
    except (subprocess.SubprocessError, ValueError, OSError):
        found = []
    return found if len(found) == len(files) else [0] * len(files)


def _in_a_fork(file: str) -> int:
    """What one file adds; 0 where its process ends badly."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before = peak_rss_bytes()
        with suppress(Exception):  # whatever it is, the process that waits is told nothing
            _load_and_run(file)
            os.write(write, str(peak_rss_bytes() - before).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        answer = told.read()
    os.waitpid(child, 0)
    return int(answer or 0)


def _in_this_process(file: str) -> int:
    before = rss_bytes()
    _load_and_run(file)
    return peak_rss_bytes() - before


def _load_and_run(file: str) -> None:
    path = Path(file)
    (_run_tflite if path.suffix == ".tflite" else _run_onnx)(path)


def _run_onnx(path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        feeds[value.name] = np.zeros(shape, _dtype(value.type))
    session.run(None, feeds)


def _run_tflite(path: Path) -> None:
    interpreter = _litert().Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    interpreter.invoke()


def _litert() -> ModuleType:
    return importlib.import_module("ai_edge_litert.interpreter")


def _dtype(text: str) -> str:
    """Give "tensor(float)" and the like numpy's name."""
    kind = text.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def _main(files: Sequence[str]) -> str:
    if any(Path(file).suffix == ".tflite" for file in files):
        _litert()  # before what is measured, so that the library counts for none of it
    if len(files) == 1:
        return str(_in_this_process(files[0]))
    return " ".join(str(_in_a_fork(file)) for file in files)


if __name__ == "__main__":
    sys.stdout.write(_main(sys.argv[1:]))
