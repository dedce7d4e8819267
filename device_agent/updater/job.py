"""What a stage gets, and how it ends."""

from dataclasses import dataclass

from device_agent.core.deployment import Event, Signal
from device_agent.updater.model import Model
from device_agent.updater.parts import Parts
from lepton_edge import durable
from lepton_edge.bundle.golden import Golden, read_golden
from lepton_edge.bundle.manifest import GOLDEN
from lepton_edge.wire.goal import ModelGoal

DONE = Signal(Event.DONE)
MORE = Signal(Event.MORE)


@dataclass(frozen=True)
class Job:
    """One model's deployment, as a stage sees it. wanted: what the goal says, while it names this deployment."""

    model: Model
    wanted: ModelGoal | None
    parts: Parts

    @property
    def entry(self) -> ModelGoal:
        """The goal's entry, without which a deployment cannot go forward, only back."""
        if self.wanted is None:
            raise RuntimeError(f"{self.model.name}: the goal does not name this deployment")
        return self.wanted


def read_staged_golden(job: Job) -> Golden:
    """golden.npz of the slot on trial. Blocking. Raises StorageError or BundleError."""
    path = job.model.slots.folder(job.model.current.work.slot) / GOLDEN
    with durable.translated(path):
        return read_golden(path.read_bytes())
