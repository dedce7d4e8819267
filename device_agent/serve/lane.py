"""One worker thread with a bounded queue."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from device_agent.serve.errors import OverloadedError

T = TypeVar("T")
Job = Callable[[], None]


class Lane:
    """Runs jobs in order, one at a time.

    Not a ThreadPoolExecutor: that has no bound on its queue, and joins its threads when the interpreter ends, so a
    runtime that hangs in native code would keep the agent from ever stopping. This thread is a daemon.
    """

    def __init__(self, name: str, *, depth: int) -> None:
        """depth: how many jobs may wait behind the one that runs."""
        self._name = name
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._depth = depth
        self._thread = threading.Thread(target=self._work, name=f"infer-{name}", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> "Future[T]":
        """Queue `function`.

        Raises:
            OverloadedError: the queue is full.
        """
        if self._jobs.qsize() >= self._depth:
            raise OverloadedError(f"{self._name}: {self._depth} requests wait already; try again later")
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - carried to whoever awaits the future, not swallowed
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """Let the thread end after the jobs that are queued. Submit nothing afterwards."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of a stopped lane; False where it did not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # so that an idle lane keeps no tensors alive
