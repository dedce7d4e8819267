"""Follows the goal: checks each one that arrives, keeps the newest on disk, and tells every model's worker its part."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from device_agent.store.goal import HeldGoal, load_goal, save_goal
from device_agent.store.layout import Layout
from device_agent.threads import in_thread
from device_agent.updater.housekeeping import sweep
from device_agent.updater.model import Model
from device_agent.updater.parts import Parts, now_ms
from device_agent.updater.report import report_model
from device_agent.updater.serving import restore
from device_agent.updater.worker import Worker
from lepton_edge.errors import DiskFullError, GoalRefusedError, LeptonError, StorageError
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.goal import Goal, Settings, check_addressee, check_fresh, open_goal
from lepton_edge.wire.messages import Refusal, Reported

_LOG = logging.getLogger(__name__)
_MAX_WAITING = 16
_REPORT_S = 0.05
"""Least time between two reports: moves that follow each other faster share one."""
_SWEEP_S = (1.0, 3600.0)


class Follower:
    """The goal, and a worker for each model that it names or once named."""

    def __init__(self, enrolment: Enrolment, layout: Layout, say: Callable[[Reported], None]) -> None:
        """Read what is on disk; blocking. `say` gets each new report. Raises StorageError."""
        self._enrolment = enrolment
        self._layout = layout
        self._say = say
        self._held: HeldGoal | None = load_goal(layout.goal, enrolment)
        self._models = {name: Model(layout.model(name), name) for name in layout.known_models()}
        self._workers: dict[str, Worker] = {}
        self._incoming: deque[bytes] = deque(maxlen=_MAX_WAITING)
        self._arrived = asyncio.Event()
        self._changed = asyncio.Event()
        self._untidy = asyncio.Event()
        self._refused: Refusal | None = None
        self._parts: Parts | None = None
        self.settings_changed = asyncio.Event()

    @property
    def _goal(self) -> Goal | None:
        return self._held.goal if self._held else None

    @property
    def settings(self) -> Settings:
        """The settings of the goal, or the default ones."""
        return self._goal.settings if self._goal else Settings()

    def receive(self, payload: bytes) -> None:
        """A goal arrived; it is looked at soon. Does not block."""
        self._incoming.append(payload)
        self._arrived.set()

    def changed(self) -> None:
        """Something that `reported` says is different now."""
        self._changed.set()

    def ended(self) -> None:
        """Files may have become useless."""
        self._untidy.set()

    async def make_room(self) -> None:
        """Free what can be freed at once: also the files of removed models, whatever their age."""
        await self._sweep(self._goal, keep_s=0.0)

    async def restore(self, parts: Parts) -> None:
        """Let the committed models answer."""
        self._parts = parts
        for model in self._models.values():
            await in_thread(restore, model, parts)

    async def run(self, parts: Parts) -> None:
        """Work until cancelled."""
        self._parts = parts
        async with asyncio.TaskGroup() as tasks:
            for model in self._models.values():
                self._add_worker(tasks, model, parts)
            if self._held:
                self._distribute(tasks, parts, self._held.goal)
            tasks.create_task(self._take_goals(tasks, parts), name="follower: goals")
            tasks.create_task(self._report(parts), name="follower: reports")
            tasks.create_task(self._keep_house(), name="follower: housekeeping")

    def _add_worker(self, tasks: asyncio.TaskGroup, model: Model, parts: Parts) -> Worker:
        worker = self._workers[model.name] = Worker(model, parts)
        tasks.create_task(worker.run(), name=f"worker: {model.name}")
        return worker

    def _distribute(self, tasks: asyncio.TaskGroup, parts: Parts, goal: Goal) -> None:
        for name in goal.models:
            if name not in self._workers:
                try:
                    self._models[name] = Model(self._layout.model(name), name)
                except StorageError as error:  # one model without a folder must not stop the others
                    self._refuse(error, goal.counter)
                    continue
                self._add_worker(tasks, self._models[name], parts)
        for name, worker in self._workers.items():
            worker.follow(goal.models.get(name))

    # -- goals

    async def _take_goals(self, tasks: asyncio.TaskGroup, parts: Parts) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._incoming:
                await self._take_goal(tasks, parts, self._incoming.popleft())

    async def _take_goal(self, tasks: asyncio.TaskGroup, parts: Parts, payload: bytes) -> None:
        """Follow a goal, or refuse it and say why; the old one then stands."""
        goal: Goal | None = None
        try:
            goal = open_goal(payload, self._enrolment.goal_keys)
            if not await self._keep(goal, payload):
                return
            self._refused = None
            self._distribute(tasks, parts, goal)
            self.settings_changed.set()
            self.ended()
        except LeptonError as error:
            self._refuse(error, goal.counter if goal else None)
        self.changed()

    async def _keep(self, goal: Goal, payload: bytes) -> bool:
        """Check a goal and keep it; False where it is the held one.

        Raises:
            GoalRefusedError: it is not to be followed.
            DiskFullError, StorageError: it cannot be kept, so it is not followed.
        """
        enrolment, held = self._enrolment, self._held
        check_addressee(goal, fleet=enrolment.fleet, device=enrolment.device, generation=enrolment.generation)
        if not check_fresh(goal, payload, (held.goal.counter, held.payload) if held else None):
            return False
        await self._save(goal, payload)
        self._held = HeldGoal(goal, payload)
        _LOG.info("following goal %d: %s", goal.counter, ", ".join(sorted(goal.models)) or "no model")
        return True

    async def _save(self, goal: Goal, payload: bytes) -> None:
        """Write the goal; on a full disk, first give up what only the old goal wanted: it may be what filled it."""
        try:
            await in_thread(save_goal, self._layout.goal, payload)
        except DiskFullError:
            await self._sweep(goal, keep_s=0.0)
            await in_thread(save_goal, self._layout.goal, payload)

    def _refuse(self, error: LeptonError, counter: int | None) -> None:
        code = error.reason_code if isinstance(error, GoalRefusedError) else error.code
        _LOG.warning("refused a goal: %s", error)
        self._refused = Refusal(code=code, reason=str(error)[:1024], counter=counter)

    # -- reports

    def reported(self, parts: Parts) -> Reported:
        """What the device says of itself now."""
        goal = self._goal
        models = {}
        for name, model in sorted(self._models.items()):
            served = parts.engine.serving(name)
            entry = goal.models.get(name) if goal else None
            report = report_model(model, entry, served.bundle if served else "")
            if report is not None:
                models[name] = report
        return Reported(counter=goal.counter if goal else 0, models=models, refused=self._refused)

    async def _report(self, parts: Parts) -> None:
        while True:
            self._changed.clear()
            self._say(self.reported(parts))
            await asyncio.sleep(_REPORT_S)
            await self._changed.wait()

    # -- housekeeping

    async def _keep_house(self) -> None:
        while True:
            self._untidy.clear()
            keep_s = self.settings.keep_removed_s
            await self._sweep(self._goal, keep_s=keep_s)
            try:
                async with asyncio.timeout(min(max(keep_s, _SWEEP_S[0]), _SWEEP_S[1])):
                    await self._untidy.wait()
            except TimeoutError:
                continue

    async def _sweep(self, goal: Goal | None, *, keep_s: float) -> None:
        if self._parts is None:
            return
        models, blobs = list(self._models.values()), self._parts.blobs
        try:
            await in_thread(sweep, models, goal, blobs, now_ms=now_ms(), keep_s=keep_s)
        except StorageError as error:
            _LOG.warning("housekeeping: %s", error)
