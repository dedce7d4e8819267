"""One model's worker: follows the goal's entry, one move at a time.

Each move is in the journal before its action runs. Whatever a stage raises costs the deployment, never the agent,
and never the model that answers.
"""

import asyncio
import logging

import msgspec

from device_agent.core.deployment import (
    ENTRY,
    Action,
    Deployment,
    Event,
    Signal,
    begin,
    restart_signal,
    step,
)
from device_agent.store.journal import Journal
from device_agent.threads import in_thread
from device_agent.updater.job import Job
from device_agent.updater.model import Model
from device_agent.updater.parts import Parts, now_ms
from device_agent.updater.stages import STAGES
from lepton_edge.errors import LeptonError, StorageError
from lepton_edge.wire.goal import ModelGoal
from lepton_edge.wire.messages import State

_LOG = logging.getLogger(__name__)
_UNINTERRUPTED = frozenset({State.ROLLING_BACK, State.ACTIVATING})
"""Short, and they must run to their end."""
_JOURNAL_RETRY_S = 2.0
_REASON = 1000


class Worker:
    """Moves one model towards what the goal says of it."""

    def __init__(self, model: Model, parts: Parts) -> None:
        self.model = model
        self._parts = parts
        self._entry: ModelGoal | None = None
        self._is_told = False
        self._news = asyncio.Event()

    def follow(self, entry: ModelGoal | None) -> None:
        """What the goal says of this model; None: it is absent."""
        self._entry = entry
        self._is_told = True
        self._news.set()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._resume()
        try:
            while True:
                self._news.clear()
                if not await self._do_next():
                    await self._news.wait()
        except asyncio.CancelledError:
            self._note_orderly_stop()
            raise

    async def _do_next(self) -> bool:
        """Make one move; False where nothing is to be done."""
        if not self._is_told:
            return False
        if self.model.is_open:
            await self._advance()
        elif self._entry is None and not self.model.is_removed:
            await self._remove()
        elif self._entry is not None and self._is_new(self._entry):
            await self._start(self._entry)
        else:
            return False
        return True

    def _is_new(self, entry: ModelGoal) -> bool:
        """Whether this deployment has yet to be tried: one that ended is never tried again under its id."""
        journal = self.model.journal
        if journal.committed is not None and journal.committed.deployment == entry.deployment:
            return False
        return journal.current is None or journal.current.id != entry.deployment

    async def _start(self, entry: ModelGoal) -> None:
        _LOG.info("%s: deployment %s of bundle %s", self.model.name, entry.deployment, entry.manifest.sha256[:16])
        self.model.progress = 0.0
        await self._write(self._stamped(begin(entry.deployment, entry.manifest.sha256)))

    async def _advance(self) -> None:
        current = self.model.current
        if self._is_cancelled():
            await self._move(Signal(Event.CANCEL))
        else:
            await self._move(await self._interruptible(current.state))

    def _is_cancelled(self) -> bool:
        if self.model.current.state is State.ROLLING_BACK:
            return False
        return self._entry is None or self._entry.deployment != self.model.current.id

    async def _interruptible(self, state: State) -> Signal:
        """Run the state's action, unless the goal changes its mind in between."""
        work = asyncio.create_task(self._perform(), name=f"{self.model.name}: {state}")
        try:
            while not work.done():
                news = asyncio.create_task(self._news.wait(), name=f"{self.model.name}: news")
                await asyncio.wait({work, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                self._news.clear()
                if self._is_cancelled() and state not in _UNINTERRUPTED and not work.done():
                    return Signal(Event.CANCEL)
            return work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})

    async def _perform(self) -> Signal:
        """Run the actions of the state that the deployment is in."""
        signal = Signal(Event.DONE)
        for action in ENTRY[self.model.current.state]:
            signal = await self._run(action)
        return signal

    async def _run(self, action: Action) -> Signal:
        names_it = self._entry is not None and self._entry.deployment == self.model.current.id
        job = Job(self.model, self._entry if names_it else None, self._parts)
        try:
            return await STAGES[action](job)
        except LeptonError as error:
            event = Event.FAILED if error.permanent else Event.FAULT
            return Signal(event, error.code, str(error)[:_REASON])
        except Exception as error:  # noqa: BLE001 - libraries raise anything on a bad file; the agent must go on
            _LOG.exception("%s: %s failed unexpectedly", self.model.name, action)
            return Signal(Event.FAILED, "internal", f"{action}: {type(error).__name__}: {error}"[:_REASON])

    async def _move(self, signal: Signal) -> None:
        """Journal the move, make it, and run what a terminal state asks for."""
        before = self.model.current
        after, _ = step(before, signal, now_ms=now_ms(), chance=self._parts.chance())
        await self._write(self._stamped(after))
        if after.is_over:
            self._log_end(after)
            await self._perform()
            self._parts.changed()
            self._parts.ended()

    def _log_end(self, ended: Deployment) -> None:
        """One line for each deployment."""
        level = logging.INFO if ended.state is State.COMMITTED else logging.WARNING
        _LOG.log(
            level,
            "%s: deployment %s ended %s after %d moves%s",
            self.model.name,
            ended.id,
            ended.state,
            ended.moves,
            f" ({ended.code}: {ended.reason})" if ended.code else "",
        )

    def _stamped(self, deployment: Deployment) -> Journal:
        return self.model.moved(msgspec.structs.replace(deployment, boot_id=self._parts.boot_id))

    async def _write(self, journal: Journal) -> None:
        """Write the journal; while the disk refuses, say so, stay where we are, and try again."""
        while True:
            try:
                await in_thread(self.model.write, journal)
            except StorageError as error:
                _LOG.warning("%s: no move without a journal: %s", self.model.name, error)
                self.model.stuck = (error.code, str(error)[:_REASON])
                self._parts.changed()
                await asyncio.sleep(_JOURNAL_RETRY_S)
            else:
                break
        self.model.stuck = None
        self._parts.changed()

    async def _resume(self) -> None:
        """Go on where an earlier process ended."""
        current = self.model.journal.current
        if current is None or self.model.is_removed:
            return
        if current.is_over:
            await self._perform()  # it may have ended between the entry and its action
        else:
            signal = restart_signal(current, self._parts.boot_id)
            _LOG.info("%s: deployment %s goes on after: %s", self.model.name, current.id, signal.event)
            await self._move(signal)

    def _note_orderly_stop(self) -> None:
        """Leave word that this is no crash: the next process resumes instead of counting it."""
        if not self.model.is_open:
            return
        current = msgspec.structs.replace(self.model.current, boot_id="")
        try:
            self.model.write(msgspec.structs.replace(self.model.journal, current=current))
        except StorageError as error:
            _LOG.warning("%s: %s", self.model.name, error)

    async def _remove(self) -> None:
        """The goal no longer names this model: it stops answering; its files stay for a while."""
        _LOG.info("%s: removed", self.model.name)
        journal = self.model.journal
        ended_badly = journal.current is not None and journal.current.state is not State.COMMITTED
        kept = journal.current if ended_badly else None
        await self._write(msgspec.structs.replace(journal, removed_ms=max(1, now_ms()), committed=None, current=kept))
        self._parts.engine.remove(self.model.name)
        await in_thread(self.model.slots.switch, None)
        self._parts.changed()
        self._parts.ended()
