"""Proving that a variant computes here what it computed on the host, and measuring how fast.

The first load of a file happens in a child process. A file that was made for another kernel or damaged in a way that
no hash shows can make a native runtime crash, hang or eat all memory; in the agent's own process that would take the
last good model down with it, and the restart would try the same again. The child costs one start of Python and of
the runtime's library per candidate (0.6 s here, a few seconds on a small board) and its memory while it lives, once
per deployment. In return a crash is an ordinary SelfTestError, a hang ends at a timeout, and the memory that the
variant takes is measured instead of guessed. Only what passed there is loaded here, and runs the golden inputs once
more, because it is this session that will serve.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from device_agent.trial.child import examine
from device_agent.trial.measure import golden_check
from device_agent.trial.process import examine_apart
from device_agent.trial.protocol import Request, Verdict
from lepton_edge.bundle.golden import Golden
from lepton_edge.bundle.manifest import Manifest, Variant
from lepton_edge.errors import RuntimeUnavailableError, SelfTestError
from lepton_edge.runtimes import Session, open_session
from lepton_edge.wire.goal import Limits
from lepton_edge.wire.messages import Choice

__all__ = ["Trial", "golden_check", "self_test"]

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Trial:
    """A variant that passed: loaded, and what was measured (`choice.fetched` is the caller's to fill in).

    memory_bytes: what the loaded variant takes, 0 where the system does not tell.
    """

    session: Session
    choice: Choice
    memory_bytes: int = 0


def self_test(
    folder: Path,
    manifest: Manifest,
    variant: Variant,
    golden: Golden,
    *,
    limits: Limits,
    apart: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> Trial:
    """Load, prove and measure a variant. Blocks for a few seconds, at most `timeout_s` and one load.

    Args:
        folder: where the bundle's files lie; `folder / variant.file` is loaded.
        manifest: of the bundle.
        variant: one of its variants.
        golden: of the bundle.
        limits: threads to run on, and the most memory the variant may take.
        apart: first in a child process (see above); False trusts the runtime with this process.
        timeout_s: seconds that the child may take.

    Raises:
        SelfTestError: it does not load, does not pass the golden test, takes too much memory, crashed or hung.
        RuntimeUnavailableError: its runtime is not installed.
    """
    file = folder / variant.file
    request = Request(file=str(file.absolute()), signature=manifest.signature, variant=variant, threads=limits.threads)
    apart = apart and bool(sys.executable)  # an embedded interpreter has no program to start
    verdict = examine_apart(request, golden, timeout_s=timeout_s) if apart else examine(request, golden)
    _judge(verdict, variant, limits)
    session = open_session(file, manifest.signature, variant, threads=limits.threads)
    choice = Choice(
        variant=variant.name,
        runtime=variant.runtime,
        p50_ms=verdict.p50_ms,
        p99_ms=verdict.p99_ms,
        golden_ratio=golden_check(session, variant, golden),
    )
    return Trial(session=session, choice=choice, memory_bytes=verdict.memory_bytes)


def _judge(verdict: Verdict, variant: Variant, limits: Limits) -> None:
    """Raise what the verdict says."""
    if verdict.code == RuntimeUnavailableError.code:
        raise RuntimeUnavailableError(verdict.reason)
    if verdict.code:
        raise SelfTestError(verdict.reason)
    if limits.memory_bytes is not None and verdict.memory_bytes > limits.memory_bytes:
        raise SelfTestError(
            f"variant {variant.name}: takes {verdict.memory_bytes} bytes of memory when loaded, "
            f"{limits.memory_bytes} are allowed"
        )
