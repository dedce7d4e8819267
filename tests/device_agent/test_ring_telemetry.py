"""The ring neither loses nor invents a window, whatever happens to it."""

import itertools
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from device_agent.telemetry.ring import Ring
from lepton_edge import durable
from lepton_edge.errors import DiskFullError
from lepton_edge.telemetry.histogram import Histogram
from lepton_edge.telemetry.window import Window


class Killed(BaseException):
    """The process ended here."""


def window(number: int) -> Window:
    return Window(
        id=f"{number:032x}",
        model="m",
        version="1",
        bundle="b",
        variant="v",
        runtime="r",
        start_ms=0,
        end_ms=number,
        latency=Histogram(buckets=[(0, 1)]),
    )


def numbers(ring: Ring) -> list[int]:
    return [int(w.id, 16) for w in ring.pending(1000)]


def test_windows_come_back_oldest_first_until_acknowledged(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring")
    for number in range(5):
        ring.add(window(number))
    assert [w.end_ms for w in ring.pending(3)] == [0, 1, 2]
    ring.acknowledge([f"{0:032x}", f"{2:032x}", "f" * 32])
    assert numbers(Ring(tmp_path / "ring")) == [1, 3, 4]


def test_a_window_added_twice_is_kept_once(tmp_path: Path) -> None:
    ring = Ring(tmp_path)
    ring.add(window(1))
    ring.add(window(1))
    assert numbers(ring) == [1]


def test_a_full_ring_drops_the_oldest_and_says_how_many(tmp_path: Path) -> None:
    ring = Ring(tmp_path, capacity=2)
    for number in range(10):
        ring.add(window(number))
    assert numbers(ring) == [8, 9]
    assert sum(w.dropped for w in ring.pending(9)) == 8


def test_a_damaged_file_is_skipped_and_counted(tmp_path: Path) -> None:
    ring = Ring(tmp_path)
    for number in range(3):
        ring.add(window(number))
    sorted(tmp_path.iterdir())[1].write_bytes(b'{"v": 1, "win')
    ring = Ring(tmp_path)
    assert numbers(ring) == [0, 2]
    ring.add(window(3))
    assert [w.dropped for w in ring.pending(9)] == [0, 0, 1]
    assert len(list(tmp_path.iterdir())) == 3


def test_foreign_files_and_leftovers_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("not ours")
    (tmp_path / ".x.tmp").write_text("half")
    ring = Ring(tmp_path)
    ring.add(window(1))
    assert numbers(ring) == [1]
    assert (tmp_path / "README").exists()
    assert not (tmp_path / ".x.tmp").exists()


def test_a_full_disk_costs_windows_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(tmp_path)

    def full(path: Path, data: bytes) -> None:
        raise DiskFullError(str(path))

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        ring.add(window(1))
        ring.add(window(2))
    ring.add(window(3))
    assert [(w.end_ms, w.dropped) for w in ring.pending(9)] == [(3, 2)]


class RingMachine(RuleBasedStateMachine):
    """Adds, acknowledgements, restarts, damage and kills at any step.

    Claim: every window is at any time exactly one of pending, acknowledged or counted as dropped, apart from those
    that a kill caught before `add` had written them.
    """

    CAPACITY = 3

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.ring = Ring(self.folder, capacity=self.CAPACITY)
        self.counter = itertools.count(1)
        self.added: set[int] = set()
        self.acknowledged: set[int] = set()
        self.acknowledged_drops = 0

    @rule()
    def add(self) -> None:
        number = next(self.counter)
        self.ring.add(window(number))
        self.added.add(number)

    @rule(pick=st.integers(0, 5))
    def acknowledge(self, pick: int) -> None:
        for w in self.ring.pending(pick):
            self.acknowledged.add(int(w.id, 16))
            self.acknowledged_drops += w.dropped
            self.ring.acknowledge([w.id])

    @rule()
    def restart(self) -> None:
        self.ring = Ring(self.folder, capacity=self.CAPACITY)

    @rule(step=st.integers(0, 4))
    def killed_while_adding(self, step: int) -> None:
        """Die before the given step of writing and deleting."""
        number = next(self.counter)
        steps = itertools.count()
        real_write, real_remove = durable.write, durable.remove

        def write(path: Path, data: bytes) -> None:
            if next(steps) == step:
                raise Killed
            real_write(path, data)
            self.added.add(number)

        def remove(path: Path) -> None:
            if next(steps) == step:
                raise Killed
            real_remove(path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable, "write", write)
            patch.setattr(durable, "remove", remove)
            with suppress(Killed):
                self.ring.add(window(number))
        self.restart()

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        pending = self.ring.pending(100)
        here = {int(w.id, 16) for w in pending}
        assert len(pending) == len(here) <= self.CAPACITY
        assert here <= self.added - self.acknowledged
        dropped = self.acknowledged_drops + sum(w.dropped for w in pending)
        assert len(here) + len(self.acknowledged) + dropped == len(self.added)

    def teardown(self) -> None:
        self.place.cleanup()


RingMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRingMachine = RingMachine.TestCase
