"""The test process: `python -m device_agent.trial.child LIFELINE RESULT`, request on stdin, verdict to RESULT.

LIFELINE is a pipe that the agent holds open: when it closes, the agent is gone, and so is this process. The verdict
has its own file because native libraries print what they like to stdout and stderr.
"""

import os
import sys
import threading
from pathlib import Path

from device_agent.trial.measure import golden_check, measure
from device_agent.trial.protocol import Request, Verdict, read_request
from lepton_edge.bundle.golden import Golden
from lepton_edge.errors import LeptonError
from lepton_edge.runtimes import installed, open_session
from lepton_edge.typed import encode

_STATUS = Path("/proc/self/status")
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_ORPHANED = 3


def examine(request: Request, golden: Golden) -> Verdict:
    """Load, prove and measure in this process."""
    try:
        if request.variant.runtime in installed():
            installed()[request.variant.runtime].providers()  # so that the library itself is not counted as memory
        before = _memory()
        session = open_session(Path(request.file), request.signature, request.variant, threads=request.threads)
        ratio = golden_check(session, request.variant, golden)
        p50_ms, p99_ms = measure(session, golden.inputs)
    except LeptonError as error:
        return Verdict(code=error.code, reason=str(error))
    return Verdict(golden_ratio=ratio, p50_ms=p50_ms, p99_ms=p99_ms, memory_bytes=_growth(before, _memory()))


def _memory() -> tuple[int, int]:
    """Resident bytes now and at the highest; zeros where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0, 0
    fields = {key: value for key, _, value in (line.partition(":") for line in lines)}
    now, highest = (int(fields.get(key, "0 kB").split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return now, highest


def _growth(before: tuple[int, int], after: tuple[int, int]) -> int:
    """What was added between two `_memory`; the peak counts if it fell in between."""
    peak = after[1] if after[1] > before[1] else after[0]
    return max(0, peak - before[0])


def _die_with_the_agent(lifeline: int) -> None:
    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(_ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def _be_the_first_to_go() -> None:
    """Where memory runs out, the kernel shall end this process and not the agent that serves."""
    try:
        _OOM_SCORE.write_text("1000", encoding="ascii")
    except OSError:
        return


def main() -> None:
    """Read the request, write the verdict."""
    lifeline, result = (int(argument) for argument in sys.argv[1:3])
    _die_with_the_agent(lifeline)
    _be_the_first_to_go()
    request, golden = read_request(sys.stdin.buffer.read())
    with os.fdopen(result, "wb") as out:
        out.write(encode(examine(request, golden)))


if __name__ == "__main__":
    main()
