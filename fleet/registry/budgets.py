"""How many bytes each device asked for in each hour."""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from fleet.registry.models import NeedBudgetRow

HOUR_MS = 3_600_000
_KEEP_HOURS = 24


def spend(session: Session, device: str, size_bytes: int, limit: int, now_ms: int) -> bool:
    """Book `size_bytes` on the device's hour; False, and nothing booked, where that would pass `limit` bytes."""
    hour = now_ms // HOUR_MS
    row = session.get(NeedBudgetRow, (device, hour))
    if row is None:
        session.execute(
            delete(NeedBudgetRow).where(NeedBudgetRow.device == device, NeedBudgetRow.hour < hour - _KEEP_HOURS)
        )
        row = NeedBudgetRow(device=device, hour=hour, bytes_asked=0)
        session.add(row)
    if row.bytes_asked + size_bytes > limit:
        return False
    row.bytes_asked += size_bytes
    return True
