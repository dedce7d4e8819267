"""The tables. Times are Unix milliseconds; typed documents are stored as their JSON.

manager          this manager's own boot
device           enrolment, labels, what it said of itself, goal counter
message_order    per device and kind: the last message that was committed
goal_model       per device and model: what the device shall run
goal             per device: the goal signed last, byte for byte
reported_model   per device and model: where the device stands
bundle           published manifests with their signatures (file contents lie in the blob folder)
rollout, rollout_device
latency_window   by its id: merging twice is harmless
need_budget      per device and hour: bytes asked for
counter          what was dropped, refused or attacked
"""

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAME = String(63)
_DIGEST = String(64)


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {int: BigInteger, str: Text, bytes: LargeBinary}


class ManagerRow(Base):
    __tablename__ = "manager"

    id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    boot: Mapped[int]


class DeviceRow(Base):
    """A device.

    key: of the authenticator, base64. boot: the highest known. status_ms: when its status changed.
    counter: of the last goal signed for it. reported_counter: that it follows by its own word.
    lost: it follows a goal that this database does not know; nothing is signed until an operator adopts it.
    """

    __tablename__ = "device"

    id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    generation: Mapped[int]
    key: Mapped[str]
    labels: Mapped[str] = mapped_column(default="{}")
    info: Mapped[str | None]
    status: Mapped[str] = mapped_column(String(16), default="never-seen")
    status_ms: Mapped[int] = mapped_column(default=0)
    seen_ms: Mapped[int] = mapped_column(default=0)
    enrolled_ms: Mapped[int]
    boot: Mapped[int] = mapped_column(default=0)
    counter: Mapped[int] = mapped_column(default=0)
    reported_counter: Mapped[int] = mapped_column(default=0)
    reported: Mapped[str | None]
    lost: Mapped[bool] = mapped_column(default=False)


class OrderRow(Base):
    __tablename__ = "message_order"

    device: Mapped[str] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    generation: Mapped[int]
    boot: Mapped[int]
    seq: Mapped[int]


class BundleRow(Base):
    __tablename__ = "bundle"
    __table_args__ = (UniqueConstraint("name", "version", name="uq_bundle_name_version"),)

    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)
    name: Mapped[str] = mapped_column(_NAME)
    version: Mapped[str] = mapped_column(_NAME)
    manifest: Mapped[bytes]
    signature: Mapped[str]
    published_ms: Mapped[int]


class GoalModelRow(Base):
    """digest: of a bundle; not a foreign key, because an adopted device may run one that is not published here."""

    __tablename__ = "goal_model"

    device: Mapped[str] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(_NAME, primary_key=True)
    deployment: Mapped[str] = mapped_column(_NAME)
    digest: Mapped[str] = mapped_column(_DIGEST)
    limits: Mapped[str]
    probation: Mapped[str]


class GoalRow(Base):
    __tablename__ = "goal"

    device: Mapped[str] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    counter: Mapped[int]
    document: Mapped[bytes]
    payload: Mapped[bytes]
    signed_ms: Mapped[int]


class ReportedModelRow(Base):
    __tablename__ = "reported_model"

    device: Mapped[str] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(_NAME, primary_key=True)
    deployment: Mapped[str] = mapped_column(_NAME)
    state: Mapped[str] = mapped_column(String(16))
    bundle: Mapped[str] = mapped_column(_DIGEST)
    serving: Mapped[str] = mapped_column(_DIGEST)
    report: Mapped[str]


class RolloutRow(Base):
    """state: a word of core.rollout. wave: counted from 1. bytes_published: chunks that went out for it."""

    __tablename__ = "rollout"

    id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST)
    model: Mapped[str] = mapped_column(_NAME)
    version: Mapped[str] = mapped_column(_NAME)
    target: Mapped[str]
    state: Mapped[str] = mapped_column(String(16), index=True)
    wave: Mapped[int] = mapped_column(default=1)
    bytes_published: Mapped[int] = mapped_column(default=0)
    created_ms: Mapped[int]
    ended_ms: Mapped[int] = mapped_column(default=0)


class RolloutDeviceRow(Base):
    """previous: the goal_model that this rollout took the place of, as JSON; empty where there was none."""

    __tablename__ = "rollout_device"
    __table_args__ = (Index("ix_rollout_device_deployment", "device", "deployment"),)

    rollout: Mapped[str] = mapped_column(ForeignKey("rollout.id", ondelete="CASCADE"), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    wave: Mapped[int] = mapped_column(default=1)
    deployment: Mapped[str] = mapped_column(_NAME)
    state: Mapped[str] = mapped_column(String(16))
    code: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    choice: Mapped[str | None]
    previous: Mapped[str] = mapped_column(default="")


class WindowRow(Base):
    __tablename__ = "latency_window"
    __table_args__ = (Index("ix_latency_window_model", "model", "version"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(128))
    bundle: Mapped[str] = mapped_column(String(128))
    variant: Mapped[str] = mapped_column(String(128))
    runtime: Mapped[str] = mapped_column(String(128))
    start_ms: Mapped[int]
    end_ms: Mapped[int]
    failures: Mapped[int]
    dropped: Mapped[int]
    latency: Mapped[str]
    received_ms: Mapped[int]


class NeedBudgetRow(Base):
    """hour: Unix hours."""

    __tablename__ = "need_budget"

    device: Mapped[str] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    bytes_asked: Mapped[int] = mapped_column(default=0)


class CounterRow(Base):
    """device: empty where the message named none that is enrolled."""

    __tablename__ = "counter"

    device: Mapped[str] = mapped_column(_NAME, primary_key=True)
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int] = mapped_column(default=0)
