"""Running the test process: whatever a file does to its runtime, the agent lives and the last good model serves."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from device_agent.trial.protocol import Request, Verdict, read_verdict, write_request
from lepton_edge.bundle.golden import Golden
from lepton_edge.durable import translated
from lepton_edge.errors import SelfTestError

COMMAND = (sys.executable, "-P", "-m", "device_agent.trial.child")
_TAIL = 2000


def examine_apart(request: Request, golden: Golden, *, timeout_s: float, command: Sequence[str] = COMMAND) -> Verdict:
    """Have a child process examine a variant.

    Args:
        request: what to examine.
        golden: with the variant's host outputs.
        timeout_s: seconds after which the child is killed.
        command: of the child; it gets two file descriptors as its arguments.

    Raises:
        SelfTestError: the child crashed, hung, or was killed.
        StorageError: no space for its files.
    """
    what = f"variant {request.variant.name}"
    with (
        translated(Path(tempfile.gettempdir())),
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as result,
    ):
        stdin.write(write_request(request, golden))
        stdin.seek(0)
        status = _run(command, stdin, output, result, timeout_s=timeout_s)
        if status is None:
            raise SelfTestError(
                f"{what}: {request.variant.runtime} did not finish the self-test within {timeout_s:g} s"
            )
        if status != 0:
            raise SelfTestError(f"{what}: {request.variant.runtime} {_ending(status)} in the self-test{_last(output)}")
        result.seek(0)
        return read_verdict(result.read())


def _run(
    command: Sequence[str], stdin: IO[bytes], output: IO[bytes], result: IO[bytes], *, timeout_s: float
) -> int | None:
    """The child's exit status; None where it had to be killed."""
    lifeline, ours = os.pipe()
    try:
        with subprocess.Popen(
            [*command, str(lifeline), str(result.fileno())],
            stdin=stdin,
            stdout=output,
            stderr=output,
            pass_fds=(lifeline, result.fileno()),
            start_new_session=True,  # Ctrl-C is for the agent; a child that it hit would look like a bad variant
        ) as child:
            try:
                return child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                child.kill()  # does nothing to one that has ended
    finally:
        os.close(lifeline)
        os.close(ours)


def _ending(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was killed (out of memory?)"
    if status < 0:
        return f"crashed with {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _last(output: IO[bytes]) -> str:
    """The last line that the child said."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _TAIL))
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""
