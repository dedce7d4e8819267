"""SIGKILL of a real agent at every journalled move, before and after the entry is written, and the restart.

Whenever it dies: a model that works answers again, the deployment ends committed, or failed with the old model
serving, and no request ever got an answer that is neither the old model's nor the new one's.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from fleet.broker.process import BrokerProcess, free_port
from lepton_edge.bundle import Bundle
from lepton_edge.wire.enrolment import save_enrolment
from lepton_edge.wire.goal import Probation
from lepton_edge.wire.messages import ModelReport, State
from tests.bundles import GOLDEN_X, answer, make_bundle
from tests.device_agent.manager_twin import ManagerTwin, becomes_true

DEVICE = "dev-1"
ROOT = Path(__file__).parents[2]
V1 = make_bundle(version="1", padding=70_000)
BOTH = ("int8-onnx", "float-onnx")


@dataclass(frozen=True)
class Case:
    """A deployment, and the journal entries that it makes when nobody disturbs it.

    live: the entry of `probation`; a crash there is held against the model. x: what the client asks.
    """

    bundle: Bundle
    entries: int
    ends: State
    live: int = 0
    x: np.ndarray = field(default_factory=lambda: GOLDEN_X)


CASES: Mapping[str, Case] = {
    "good": Case(make_bundle(version="2", padding=70_000), 10, State.COMMITTED, live=9),
    "fails its self-test": Case(make_bundle(version="2", padding=70_000, broken=True), 9, State.FAILED),
    "its second variant passes": Case(
        make_bundle(version="2", padding=70_000, variants=BOTH, failing=BOTH[:1]), 14, State.COMMITTED, live=13
    ),
    "fails on probation": Case(make_bundle(version="2", fragile=True), 11, State.FAILED, live=9, x=GOLDEN_X + 5),
}


@dataclass(frozen=True)
class Kill:
    """When the agent dies."""

    name: str
    number: int
    moment: str

    def __str__(self) -> str:
        return f"{self.name}, {self.moment} entry {self.number}"

    @property
    def case(self) -> Case:
        return CASES[self.name]

    @property
    def is_on_probation(self) -> bool:
        live = self.case.live
        return live > 0 and (self.number, self.moment) in {(live, "after"), (live + 1, "before")}

    @property
    def ends(self) -> State:
        return State.FAILED if self.is_on_probation else self.case.ends


ALL = [
    Kill(name, number, moment)
    for name, case in CASES.items()
    for number in range(1, case.entries + 1)
    for moment in ("before", "after")
]
SHORT = [Kill("good", number, "after") for number in (1, 4, 6, 7, 8, 9, 10)]
SHORT += [Kill("fails on probation", 10, "after")]


class Process:
    """An agent in its own process."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.process: asyncio.subprocess.Process

    async def start(self, *, kill_at: int = 0, moment: str = "after") -> None:
        launcher = ["-m", "tests.device_agent.kill_launcher", str(kill_at), moment, str(self.folder / "moves.log")]
        arguments = ["run", str(self.folder / "device.zip"), "--state", str(self.folder / "state")]
        with (self.folder / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *launcher,
                *arguments,
                "--http",
                f"127.0.0.1:{self.port}",
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def ready(self) -> dict[str, object]:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            document = json.loads(await self.process.stdout.readline())
        assert document["pid"] == self.process.pid
        return document

    async def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            os.kill(self.process.pid, number)
        async with asyncio.timeout(30):
            return await self.process.wait()

    def moves(self) -> list[str]:
        return (self.folder / "moves.log").read_text().splitlines()


class Poller:
    """A client that asks the endpoint all the time and keeps each distinct answer."""

    def __init__(self, port: int, x: np.ndarray) -> None:
        self._url = f"http://127.0.0.1:{port}/v2/models/linear/infer"
        self._x = x
        self.answers: list[np.ndarray] = []
        self.refused: set[int] = set()

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):  # nobody listens while the agent is dead
                    await self._ask(session)
                await asyncio.sleep(0.005)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        body = {"inputs": [{"name": "x", "shape": [16, 4], "datatype": "FP32", "data": self._x.ravel().tolist()}]}
        async with session.post(self._url, json=body) as response:
            if response.status != 200:
                self.refused.add(response.status)
                return
            output = (await response.json())["outputs"][0]
            self.answers.append(np.array(output["data"], np.float32).reshape(16, 3))

    def versions(self) -> set[str]:
        """Which versions answered; fails where an answer is no version's."""
        found = set()
        for got in self.answers:
            matching = [version for version in ("1", "2") if np.allclose(got, answer(version, self._x), rtol=1e-3)]
            assert matching, "an answer is neither the old model's nor the new one's"
            found.update(matching)
        return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@asynccontextmanager
async def world(broker: BrokerProcess, prepared: Path, folder: Path) -> AsyncIterator[tuple[ManagerTwin, Process]]:
    """A device whose state folder has version 1 committed as d1; made once and copied."""
    twin = ManagerTwin(broker.url)
    twin.enrol(DEVICE)
    # The folder is reused with other keys: same device, new goal key, so the goal on disk does not count.
    save_enrolment(twin.enrolments[DEVICE], folder / "device.zip")
    async with twin.connected():
        process = Process(folder, free_port())
        if (prepared / "state").exists():
            shutil.copytree(prepared / "state", folder / "state")
        else:
            await twin.want(DEVICE, linear=twin.entry(V1, "d1"))
            await process.start()
            await twin.until_committed(DEVICE, "linear", "d1")
            assert await process.end() == 0
            shutil.copytree(folder / "state", prepared / "state")
            (folder / "moves.log").unlink()
        twin.reports.clear()
        yield twin, process
        if process.process.returncode is None:
            await process.end(signal.SIGKILL)


async def deploy_and_die(twin: ManagerTwin, process: Process, kill: Kill) -> tuple[ModelReport, Poller]:
    """Deploy with a kill at one entry, start again, and wait for the end."""
    case = kill.case
    poller = Poller(process.port, case.x)
    polling = asyncio.create_task(poller.run(), name="poller")
    try:
        await process.start(kill_at=kill.number, moment=kill.moment)
        await process.ready()
        await twin.want(DEVICE, linear=twin.entry(case.bundle, "d2", probation=Probation(probation_s=0.2)))
        async with asyncio.timeout(60):
            assert await process.process.wait() == -signal.SIGKILL
        twin.reports.clear()
        await process.start()
        await process.ready()
        ended = await twin.until_state(DEVICE, "linear", "d2", State.COMMITTED, State.FAILED)
        seen = len(poller.answers)
        await becomes_true(lambda: len(poller.answers) >= seen + 3, "answers after the end")
    finally:
        polling.cancel()
        await asyncio.wait([polling])
    assert await process.end() == 0
    return ended, poller


async def check(broker: BrokerProcess, prepared: Path, folder: Path, kill: Kill) -> None:
    async with world(broker, prepared, folder) as (twin, process):
        ended, poller = await deploy_and_die(twin, process, kill)
    versions = poller.versions()
    assert ended.state is kill.ends
    assert ended.serving == (kill.case.bundle if ended.state is State.COMMITTED else V1).digest
    serving = "2" if ended.state is State.COMMITTED else "1"
    np.testing.assert_allclose(poller.answers[-1], answer(serving, kill.case.x), rtol=1e-3)
    if kill.case.x is GOLDEN_X:
        assert poller.refused == set(), "a request was refused while an agent answered"
        assert not kill.is_on_probation or ended.code == "crash"
    if not kill.case.live:
        assert versions == {"1"}


@pytest.mark.parametrize("name", CASES)
async def test_the_cases_make_as_many_entries_as_are_swept(
    one_broker: BrokerProcess, prepared: Path, tmp_path: Path, name: str
) -> None:
    async with world(one_broker, prepared, tmp_path) as (twin, process):
        poller = Poller(process.port, CASES[name].x)
        polling = asyncio.create_task(poller.run(), name="poller")
        await process.start()
        await process.ready()
        await twin.want(DEVICE, linear=twin.entry(CASES[name].bundle, "d2", probation=Probation(probation_s=0.5)))
        await twin.until_state(DEVICE, "linear", "d2", CASES[name].ends)
        polling.cancel()
        await asyncio.wait([polling])
        await process.end()
        assert len(process.moves()) == CASES[name].entries, process.moves()


@pytest.mark.parametrize("kill", SHORT, ids=str)
async def test_killed_at_a_move_the_device_comes_back(
    one_broker: BrokerProcess, prepared: Path, tmp_path: Path, kill: Kill
) -> None:
    await check(one_broker, prepared, tmp_path, kill)


@pytest.mark.slow
@pytest.mark.parametrize("kill", ALL, ids=str)
async def test_killed_at_any_move_the_device_comes_back(
    one_broker: BrokerProcess, prepared: Path, tmp_path: Path, kill: Kill
) -> None:
    await check(one_broker, prepared, tmp_path, kill)
