"""From goal to committed model, over both brokers."""

from pathlib import Path

import numpy as np

from fleet.broker.process import BrokerProcess
from tests.bundles import GOLDEN_X, answer, make_bundle
from tests.device_agent.manager_twin import ManagerTwin, running_agent

DEVICE = "dev-1"


async def test_a_model_goes_from_goal_to_committed_and_answers(broker: BrokerProcess, tmp_path: Path) -> None:
    twin = ManagerTwin(broker.url)
    bundle = make_bundle(padding=300_000)
    async with twin.connected():
        async with running_agent(twin.enrol(DEVICE), tmp_path) as agent:
            await twin.want(DEVICE, linear=twin.entry(bundle, "d1"))
            report = await twin.until_committed(DEVICE, "linear", "d1")
            assert report.serving == bundle.digest
            assert report.choice is not None
            assert report.choice.variant == "float-onnx"
            assert report.choice.fetched >= 300_000
            got = await agent.infer("linear", GOLDEN_X)
            np.testing.assert_allclose(got, answer("1", GOLDEN_X), rtol=1e-5)
            await twin.until(lambda: twin.windows, "telemetry")
            await twin.until(lambda: twin.infos.get(DEVICE), "info")
        await twin.until(lambda: twin.statuses[DEVICE][-1].state == "offline", "offline")
