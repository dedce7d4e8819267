"""A disk that is really full: a file system of 2 MiB."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fleet.broker.process import BrokerProcess
from lepton_edge.wire.messages import State
from tests.bundles import GOLDEN_X, answer, make_bundle
from tests.device_agent.manager_twin import ManagerTwin, running_agent

DEVICE = "dev-1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("lies", [False, True], ids=["seen before the download", "met in the download"])
async def test_a_full_disk_costs_no_answer_and_a_new_goal_frees_it(
    one_broker: BrokerProcess, small_disk: Path, monkeypatch: pytest.MonkeyPatch, *, lies: bool
) -> None:
    twin = ManagerTwin(one_broker.url)
    v1, v2 = make_bundle(version="1", padding=100_000), make_bundle(version="2", padding=4_000_000)
    async with twin.connected(), running_agent(twin.enrol(DEVICE), small_disk) as agent:
        await twin.want(DEVICE, linear=twin.entry(v1, "d1"))
        await twin.until_committed(DEVICE, "linear", "d1")
        if lies:  # somebody else takes the space after the agent looked
            real = shutil.disk_usage
            monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=10**9))
        await twin.want(DEVICE, linear=twin.entry(v2, "d2"))
        report = await twin.until_state(DEVICE, "linear", "d2", State.WAITING)
        assert (report.code, report.serving) == ("disk-full", v1.digest)
        assert report.returns_to is (State.DOWNLOADING if lies else State.PREFLIGHT)
        np.testing.assert_allclose(await agent.infer("linear", GOLDEN_X), answer("1", GOLDEN_X), rtol=1e-5)
        await twin.want(DEVICE, linear=twin.entry(v1, "d1"), other=twin.entry(make_bundle("other"), "o1"))
        await twin.until_committed(DEVICE, "linear", "d1")
        await twin.until_committed(DEVICE, "other", "o1")
    assert leftovers(small_disk) == []
