"""The engine: which model answers under which name, who runs it, and what that cost.

Each model has its own lane (one worker thread), so that a slow model delays no other one; a session takes one thread
at a time in any case. A swap is one assignment under the lock; what was queued on the old
model finishes there, and is counted there.

Failures are the model's: a request whose tensors do not fit (DataError) and one that was turned away count as
neither request nor failure, so a clumsy client cannot make a deployment roll back.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from device_agent.serve.errors import InferenceTimeoutError, OverloadedError, UnknownModelError
from device_agent.serve.lane import Lane
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.bundle.manifest import Manifest, Variant
from lepton_edge.errors import DataError
from lepton_edge.runtimes import Session
from lepton_edge.telemetry.histogram import Recorder
from lepton_edge.telemetry.window import Window
from lepton_edge.wire.messages import Choice

QUEUE_DEPTH = 32
TIMEOUT_S = 60.0
CLOSE_S = 5.0


@dataclass(frozen=True)
class ServedModel:
    """A model that answers. bundle: the digest of its manifest; choice: what was measured when it was chosen."""

    manifest: Manifest
    bundle: str
    variant: Variant
    session: Session
    choice: Choice


@dataclass(frozen=True)
class Health:
    """What a model did since it was installed. requests: all that reached it; failures: those it failed."""

    requests: int
    failures: int


class _Tally:
    """Latencies and failures of one key since the last window; the engine's lock guards it."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.failures = 0


_Key = tuple[str, str, str, str, str]
"""model, version, bundle, variant, runtime: the labels of a window."""


@dataclass
class _Slot:
    model: ServedModel
    lane: Lane
    requests: int = 0
    failures: int = 0
    key: _Key = field(init=False)

    def __post_init__(self) -> None:
        manifest, variant = self.model.manifest, self.model.variant
        self.key = (manifest.name, manifest.version, self.model.bundle, variant.name, variant.runtime)


@dataclass
class _Call:
    slot: _Slot
    inputs: Mapping[str, Array]
    counted: bool = False


class Engine:
    """Runs inferences and records them. `install`, `remove` and `take_windows` may be called from any thread."""

    def __init__(
        self, *, queue_depth: int = QUEUE_DEPTH, timeout_s: float = TIMEOUT_S, started_ms: int | None = None
    ) -> None:
        """An engine that serves nothing yet.

        Args:
            queue_depth: requests per model that may wait behind the one that runs.
            timeout_s: seconds from a request to its answer, after which it counts as failed.
            started_ms: where the first windows begin, Unix milliseconds; None: now.
        """
        self._queue_depth = queue_depth
        self._timeout_s = timeout_s
        self._since_ms = time.time_ns() // 1_000_000 if started_ms is None else started_ms
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._retired: list[Lane] = []
        self._tallies: dict[_Key, _Tally] = {}
        self._closed = False

    @property
    def is_open(self) -> bool:
        return not self._closed

    def names(self) -> list[str]:
        """The models that answer, sorted."""
        with self._lock:
            return sorted(self._slots)

    def install(self, model: ServedModel) -> None:
        """Let `model` answer for its manifest's name from now on; requests under way finish on the old one."""
        name = model.manifest.name
        slot = _Slot(model, Lane(name, depth=self._queue_depth))
        with self._lock:
            if self._closed:
                slot.lane.stop()
                raise OverloadedError(f"{name}: the agent is stopping")
            self._retire(self._slots.get(name))
            self._slots[name] = slot

    def remove(self, name: str) -> None:
        """Stop answering for `name`, if it did; requests under way finish."""
        with self._lock:
            self._retire(self._slots.pop(name, None))

    def _retire(self, slot: _Slot | None) -> None:
        if slot is not None:
            slot.lane.stop()
            self._retired = [lane for lane in self._retired if not lane.join(0)] + [slot.lane]

    def serving(self, name: str) -> ServedModel | None:
        """The model that answers for `name`; None where none does."""
        with self._lock:
            slot = self._slots.get(name)
        return slot.model if slot else None

    def health(self, name: str) -> Health:
        """Raises UnknownModelError where nothing answers for `name`, OverloadedError after `close`."""
        with self._lock:
            slot = self._slot(name)
            return Health(requests=slot.requests, failures=slot.failures)

    def _slot(self, name: str) -> _Slot:
        if self._closed:
            raise OverloadedError("the agent is stopping")
        slot = self._slots.get(name)
        if slot is None:
            raise UnknownModelError(f"no model {name!r} here; there are {sorted(self._slots)}")
        return slot

    async def infer(self, name: str, inputs: Mapping[str, Array]) -> tuple[ServedModel, Arrays]:
        """Run one inference in the model's worker thread.

        Args:
            name: of the model.
            inputs: by the signature's names.

        Returns:
            The model that answered, and its outputs by the signature's names.

        Raises:
            UnknownModelError: nothing answers for `name`.
            DataError: the inputs do not fit the signature.
            OverloadedError: too many requests wait, or the engine is closed.
            InferenceTimeoutError: no answer in time.
            SelfTestError: the runtime failed.
        """
        _refuse_empty(inputs)
        with self._lock:
            slot = self._slot(name)
            call = _Call(slot, inputs)
            future = slot.lane.submit(lambda: self._run(call))
        return slot.model, await self._answer(call, future)

    async def _answer(self, call: _Call, future: "Future[Arrays]") -> Arrays:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as cause:
            if not future.cancel():  # it began and does not come back; one that never began tells nothing
                self._count(call, None)
            raise InferenceTimeoutError(
                f"{call.slot.model.manifest.name}: no answer within {self._timeout_s:g} s"
            ) from cause

    def _run(self, call: _Call) -> Arrays:
        """In the worker thread."""
        started = time.perf_counter()
        try:
            outputs = call.slot.model.session.run(call.inputs)
        except DataError:
            raise
        except BaseException:
            self._count(call, None)
            raise
        self._count(call, time.perf_counter() - started)
        return outputs

    def _count(self, call: _Call, latency_s: float | None) -> None:
        """Record a request, once; latency_s is None where it failed."""
        with self._lock:
            if call.counted:
                return
            call.counted, slot = True, call.slot
            tally = self._tallies.setdefault(slot.key, _Tally())
            slot.requests += 1
            if latency_s is None:
                slot.failures += 1
                tally.failures += 1
            else:
                tally.recorder.record(latency_s)

    def take_windows(self, now_ms: int) -> list[Window]:
        """What was recorded since the last call, one window per variant that had a request.

        Args:
            now_ms: where the windows end, Unix milliseconds; the next ones begin there.
        """
        with self._lock:
            tallies, self._tallies = self._tallies, {}
            start_ms, self._since_ms = min(self._since_ms, now_ms), now_ms
        return [_window(key, tally, start_ms, now_ms) for key, tally in sorted(tallies.items(), key=lambda kv: kv[0])]

    async def close(self) -> None:
        """Refuse what comes, finish what is queued, and wait for it at most CLOSE_S seconds a model."""
        with self._lock:
            self._closed = True
            for name in list(self._slots):
                self._retire(self._slots.pop(name))
            lanes, self._retired = self._retired, []
        for lane in lanes:
            await asyncio.to_thread(lane.join, CLOSE_S)


def _refuse_empty(inputs: Mapping[str, Array]) -> None:
    """A runtime may choke on a tensor without elements; that must not count against the model."""
    for name, array in inputs.items():
        if np.size(array) == 0:
            raise DataError(f"input {name!r} has shape {list(np.shape(array))}: it is empty")


def _window(key: _Key, tally: _Tally, start_ms: int, end_ms: int) -> Window:
    model, version, bundle, variant, runtime = key
    return Window(
        id=secrets.token_hex(16),
        model=model,
        version=version,
        bundle=bundle,
        variant=variant,
        runtime=runtime,
        start_ms=start_ms,
        end_ms=end_ms,
        latency=tally.recorder.snapshot(),
        failures=tally.failures,
    )
