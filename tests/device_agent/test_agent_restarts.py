"""An agent that stops, crashes or loses power in the middle, and a disk that refuses the journal."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from device_agent.store.journal import Journal, JournalFile
from device_agent.updater.parts import os_boot_id
from fleet.broker.process import BrokerProcess
from lepton_edge.errors import DiskFullError
from lepton_edge.wire.goal import Probation
from lepton_edge.wire.messages import State
from tests.bundles import GOLDEN_X, answer, make_bundle
from tests.device_agent.manager_twin import ManagerTwin, running_agent

DEVICE = "dev-1"
V1 = make_bundle(version="1")
V2 = make_bundle(version="2")


async def stop_on_probation(twin: ManagerTwin, state: Path) -> None:
    """Version 1 is committed; the agent stops while version 2 is on probation."""
    async with running_agent(twin.enrolments[DEVICE], state):
        await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
        await twin.until_committed(DEVICE, "linear", "d1")
        await twin.want(DEVICE, linear=twin.entry(V2, "d2", probation=Probation(probation_s=1.0)))
        await twin.until_state(DEVICE, "linear", "d2", State.PROBATION)
    twin.reports.clear()


def rewrite(folder: Path, /, **changes: object) -> None:
    """Change the journal's current deployment, as if the process had ended otherwise."""
    file = JournalFile(folder / "models" / "linear", "linear")
    journal = file.read()
    assert journal is not None
    current = msgspec.structs.replace(journal.current, **changes)
    file.write(msgspec.structs.replace(journal, current=current))


async def test_an_orderly_stop_on_probation_is_no_crash(one_broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(one_broker.url)
    twin.enrol(DEVICE)
    async with twin.connected():
        await stop_on_probation(twin, tmp_path)
        async with running_agent(twin.enrolments[DEVICE], tmp_path) as agent:
            np.testing.assert_allclose(await agent.infer("linear", GOLDEN_X), answer("2", GOLDEN_X), rtol=1e-5)
            await twin.until_committed(DEVICE, "linear", "d2")


ENDS = {
    "the power was lost on probation": ({"boot_id": "of another boot"}, State.COMMITTED, "", "2"),
    "a crash on probation": ({"boot_id": os_boot_id()}, State.FAILED, "crash", "1"),
    "a first crash in the self-test": (
        {"boot_id": os_boot_id(), "state": State.SELF_TESTING},
        State.COMMITTED,
        "",
        "2",
    ),
    "a second crash in the self-test": (
        {"boot_id": os_boot_id(), "state": State.SELF_TESTING, "crashes": 1},
        State.FAILED,
        "crash",
        "1",
    ),
    "a crash while rolling back": (
        {"boot_id": os_boot_id(), "state": State.ROLLING_BACK, "code": "self-test"},
        State.FAILED,
        "self-test",
        "1",
    ),
    "a wait that was over": (
        {"state": State.WAITING, "returns_to": State.STAGING, "until_ms": 1},
        State.COMMITTED,
        "",
        "2",
    ),
    "too many moves": ({"state": State.DOWNLOADING, "moves": 80}, State.FAILED, "too-many-moves", "1"),
}


@pytest.mark.parametrize(("changes", "ends", "code", "version"), ENDS.values(), ids=ENDS)
async def test_a_restart_ends_as_the_table_says(
    one_broker: BrokerProcess,
    tmp_path: Path,
    *,
    changes: dict[str, object],
    ends: State,
    code: str,
    version: str,
) -> None:
    twin = ManagerTwin(one_broker.url)
    twin.enrol(DEVICE)
    async with twin.connected():
        await stop_on_probation(twin, tmp_path)
        rewrite(tmp_path, **changes)
        async with running_agent(twin.enrolments[DEVICE], tmp_path) as agent:
            report = await twin.until_state(DEVICE, "linear", "d2", ends)
            assert (report.code, report.serving) == (code, {"1": V1, "2": V2}[version].digest)
            np.testing.assert_allclose(await agent.infer("linear", GOLDEN_X), answer(version, GOLDEN_X), rtol=1e-5)


async def test_without_a_journal_entry_no_move_is_made(
    one_broker: BrokerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = ManagerTwin(one_broker.url)
    twin.enrol(DEVICE)
    real = JournalFile.write
    full = True

    def write(self: JournalFile, journal: Journal) -> None:
        if full and journal.current is not None and journal.current.state is State.ACTIVATING:
            raise DiskFullError("no space left")
        real(self, journal)

    monkeypatch.setattr(JournalFile, "write", write)
    async with twin.connected(), running_agent(twin.enrolments[DEVICE], tmp_path) as agent:
        await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
        report = await twin.until_state(DEVICE, "linear", "d1", State.WAITING)
        assert (report.code, report.returns_to, report.serving) == ("disk-full", State.SELF_TESTING, "")
        assert await agent.status_of("linear", GOLDEN_X) == 404
        full = False
        await twin.until_committed(DEVICE, "linear", "d1")


async def test_a_journal_that_makes_no_sense_costs_a_deployment_and_no_crash(
    one_broker: BrokerProcess, tmp_path: Path
) -> None:
    twin = ManagerTwin(one_broker.url)
    twin.enrol(DEVICE)
    async with twin.connected():
        await stop_on_probation(twin, tmp_path)
        path = tmp_path / "models" / "linear" / "journal.json"
        document = msgspec.json.decode(path.read_bytes())
        document["current"]["state"] = "waiting"
        path.write_bytes(msgspec.json.encode(document))
        async with running_agent(twin.enrolments[DEVICE], tmp_path) as agent:
            await twin.until_committed(DEVICE, "linear", "d2")
            np.testing.assert_allclose(await agent.infer("linear", GOLDEN_X), answer("2", GOLDEN_X), rtol=1e-5)
