"""Whether a need is answered: only for what the device's own goal reaches, within its budget."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.core.rollout import ENDED
from fleet.registry import budgets, bundles
from fleet.registry.counters import Tallies
from fleet.registry.models import BundleRow, RolloutDeviceRow, RolloutRow
from lepton_edge.errors import MessageError
from lepton_edge.wire.chunks import BlobRef, unpack_bits
from lepton_edge.wire.messages import Need


@dataclass(frozen=True)
class Wanted:
    """Chunks to publish. rollout: which pays for them; empty where none is active."""

    ref: BlobRef
    numbers: list[int]
    rollout: str


class Judge:
    """Knows what each device's goal reaches.

    Attributes:
        reach: device -> digests of the bundles in its last signed goal; kept up to date by the manager.
    """

    def __init__(self, tallies: Tallies, budget_bytes_hour: int) -> None:
        self.reach: dict[str, frozenset[str]] = {}
        self._tallies = tallies
        self._budget = budget_bytes_hour
        self._blobs: dict[str, dict[str, BlobRef]] = {}

    def judge(self, session: Session, device: str, need: Need, now_ms: int) -> Wanted | None:
        """What of `need` is to be published; what is refused is counted."""
        found = self._find(session, device, need.blob)
        if found is None:
            self._tallies.count(device, "need-unreachable")
            return None
        digest, ref = found
        try:
            asked = [need.first + bit for bit in unpack_bits(need.bits)]
        except MessageError:
            asked = [-1]
        numbers = [number for number in asked if 0 <= number < len(ref.chunks)]
        if len(numbers) < len(asked):
            self._tallies.count(device, "malformed")
        size = sum(ref.chunks[number][1] for number in numbers)
        if not budgets.spend(session, device, size, self._budget, now_ms):
            self._tallies.count(device, "need-over-budget")
            return None
        return Wanted(ref, numbers, _rollout_of(session, device, digest))

    def _find(self, session: Session, device: str, blob: str) -> tuple[str, BlobRef] | None:
        for digest in self.reach.get(device, frozenset()):
            ref = self._blobs_of(session, digest).get(blob)
            if ref is not None:
                return digest, ref
        return None

    def _blobs_of(self, session: Session, digest: str) -> dict[str, BlobRef]:
        if digest not in self._blobs:
            row = session.get(BundleRow, digest)
            if row is None:
                return {}  # of a lost history: not cached, it may be published again
            self._blobs[digest] = bundles.blobs_of(row)
        return self._blobs[digest]


def _rollout_of(session: Session, device: str, digest: str) -> str:
    query = (
        select(RolloutRow.id)
        .join(RolloutDeviceRow, RolloutDeviceRow.rollout == RolloutRow.id)
        .where(
            RolloutDeviceRow.device == device,
            RolloutRow.digest == digest,
            RolloutRow.state.not_in([state.value for state in ENDED]),
        )
    )
    return session.scalars(query).first() or ""
