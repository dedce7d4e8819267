"""Authenticated messages into the database, a batch in one transaction; what may be acknowledged comes out."""

from dataclasses import dataclass, field

from sqlalchemy import delete
from sqlalchemy.orm import Session

from fleet.core import goals
from fleet.core.order import Verdict, judge, will_counts
from fleet.registry import rollouts
from fleet.registry.counters import Tallies
from fleet.registry.models import DeviceRow, OrderRow, ReportedModelRow, WindowRow
from lepton_edge.telemetry.window import Window
from lepton_edge.typed import encode
from lepton_edge.wire.authenticator import Header, Order
from lepton_edge.wire.messages import Ack, Body, Info, Need, Reported, Seen, Status, Telemetry
from lepton_edge.wire.topics import Kind


@dataclass(frozen=True)
class Incoming:
    """A message whose MAC is right."""

    device: str
    kind: Kind
    header: Header
    body: Body


@dataclass
class Outcome:
    """What a committed batch means to the rest of the manager.

    acks: by device. heard: devices whose present goal is known now, with
    the generation that said so. behind: devices that follow an older goal than
    the one signed last. needs: accepted by order; the transfer judges them. touched: rollouts whose devices moved.
    """

    acks: dict[str, Ack] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    behind: set[str] = field(default_factory=set)
    needs: list[tuple[str, Need]] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)


def commit(session: Session, batch: list[Incoming], tallies: Tallies, now_ms: int) -> Outcome:
    """Store what is new in `batch`, in its order."""
    intake = _Intake(session, tallies, now_ms)
    for message in batch:
        intake.take(message)
    return intake.outcome


def _order(row: OrderRow | None) -> Order | None:
    return Order(row.generation, row.boot, row.seq) if row is not None else None


class _Intake:
    """One batch on its way into one transaction."""

    def __init__(self, session: Session, tallies: Tallies, now_ms: int) -> None:
        self._session = session
        self._tallies = tallies
        self._now_ms = now_ms
        self.outcome = Outcome()

    def take(self, message: Incoming) -> None:
        row = self._session.get(DeviceRow, message.device)
        if row is None or row.generation != message.header.generation:
            self._tallies.count(message.device, "enrolment-changed")  # between authentication and now
        elif message.header.is_will:
            self._take_will(row, message.header.order)
        elif isinstance(message.body, Telemetry):
            self._take_windows(row, message.header.order, message.body.windows)
        else:
            self._take_ordered(row, message)

    def _take_will(self, row: DeviceRow, will: Order) -> None:
        held = self._session.get(OrderRow, (row.id, Kind.STATUS))
        if will_counts(_order(held), will):
            row.status, row.status_ms = "offline", self._now_ms
        else:
            self._tallies.count(row.id, "will-late")

    def _take_windows(self, row: DeviceRow, order: Order, windows: list[Window]) -> None:
        row.boot = max(row.boot, order.boot)
        for window in windows:
            _store_window(self._session, row.id, window, self._now_ms)
        self._acknowledge(row, windows=[window.id for window in windows])

    def _take_ordered(self, row: DeviceRow, message: Incoming) -> None:
        order = message.header.order
        row.boot = max(row.boot, order.boot)
        held = self._session.get(OrderRow, (row.id, message.kind))
        verdict = judge(_order(held), order)
        if verdict is Verdict.NEWER:
            row.seen_ms = self._now_ms
            held = self._session.merge(OrderRow(device=row.id, kind=message.kind, **order._asdict()))
            self._apply(row, message.body)
        elif verdict is Verdict.LOWER:
            self._tallies.count(row.id, "stale")
        elif isinstance(message.body, Reported):
            self.outcome.heard[row.id] = row.generation  # as retained by the broker: still its last word
        last = _order(held) or order
        self._acknowledge(row, seen={message.kind: Seen(**last._asdict())})

    def _acknowledge(
        self, row: DeviceRow, *, seen: dict[Kind, Seen] | None = None, windows: list[str] | None = None
    ) -> None:
        last = self.outcome.acks.get(row.id, Ack(boot=0))
        self.outcome.acks[row.id] = Ack(
            boot=row.boot, seen={**last.seen, **(seen or {})}, windows=last.windows + (windows or [])
        )

    def _apply(self, row: DeviceRow, body: Body) -> None:
        match body:
            case Status():
                row.status, row.status_ms = body.state, self._now_ms
            case Info():
                row.info = encode(body).decode()
            case Need():
                self.outcome.needs.append((row.id, body))
            case Reported():
                _take_reported(self._session, row, body, self.outcome)


def _store_window(session: Session, device: str, window: Window, now_ms: int) -> None:
    if session.get(WindowRow, window.id) is not None:
        return
    session.add(
        WindowRow(
            id=window.id,
            device=device,
            model=window.model,
            version=window.version,
            bundle=window.bundle,
            variant=window.variant,
            runtime=window.runtime,
            start_ms=window.start_ms,
            end_ms=window.end_ms,
            failures=window.failures,
            dropped=window.dropped,
            latency=encode(window.latency).decode(),
            received_ms=now_ms,
        )
    )
    session.flush()


def _take_reported(session: Session, row: DeviceRow, body: Reported, outcome: Outcome) -> None:
    outcome.heard[row.id] = row.generation
    row.reported_counter = body.counter
    row.reported = encode(body.refused).decode() if body.refused is not None else None
    row.lost = row.lost or goals.history_is_lost(body.counter, row.counter)
    if body.counter < row.counter:
        outcome.behind.add(row.id)
    session.execute(delete(ReportedModelRow).where(ReportedModelRow.device == row.id))
    for model, report in body.models.items():
        session.add(
            ReportedModelRow(
                device=row.id,
                model=model,
                deployment=report.deployment,
                state=report.state,
                bundle=report.bundle,
                serving=report.serving,
                report=encode(report).decode(),
            )
        )
        outcome.touched |= rollouts.note_report(session, row.id, report)
