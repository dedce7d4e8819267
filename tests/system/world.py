"""A whole fleet of real processes: broker, manager and agents, started through the command line, each of which can be
killed and started again.
"""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fleet.broker.process import BrokerProcess
from lepton_edge.bundle import Bundle
from lepton_edge.demo.stage import Service, Stage
from tests.brokers import running

T = TypeVar("T")
DEADLINE_S = 60.0


def until(claim: Callable[[], T], *, what: str, within_s: float = DEADLINE_S) -> T:
    """The first true value of `claim`; fails by name when it does not come in time."""
    deadline = time.monotonic() + within_s
    while not (value := claim()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)
    return value


class World(Stage):
    """A stage with a fleet on it, whose broker and manager can fall."""

    def __init__(self, folder: Path, broker: BrokerProcess) -> None:
        super().__init__(folder)
        self.broker = broker
        self.manager: Service
        self.agents: dict[str, Service] = {}
        self._tickets: dict[str, Path] = {}

    def start_manager(self, *, init: bool = True) -> None:
        if init:
            self.command("fleet", "init", self.folder / "fleet", "--telemetry", "0.5")
        self.manager = self.service("manager", "fleet", "serve", "--http", "127.0.0.1:0", "--broker", self.broker.url)

    def start_agent(self, device: str) -> Service:
        """Enrol where this device is new, and start its agent on the state folder that it has."""
        if device not in self._tickets:
            self._tickets[device] = self.folder / f"{device}.zip"
            self.command("enroll", device, "-o", self._tickets[device])
        arguments = ("agent", "run", self._tickets[device], "--state", self.state(device), "--http", "127.0.0.1:0")
        self.agents[device] = self.service(device, *arguments)
        return self.agents[device]

    def state(self, device: str) -> Path:
        return self.folder / f"state-{device}"

    def devices(self) -> dict[str, dict]:
        """What `devices` shows, by id; nothing while the manager is away."""
        rows = self.document("devices")["devices"]
        assert isinstance(rows, list)
        return {row["id"]: row for row in rows}

    def telemetry_count(self, model: str) -> int:
        rows = self.document("telemetry", model)["lines"]
        assert isinstance(rows, list)
        return sum(row["count"] for row in rows)


def kill(service: Service) -> None:
    """SIGKILL, as the power or the OOM killer would."""
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()


@contextmanager
def world(folder: Path, broker: str) -> Iterator[World]:
    """A manager on a broker of the kind `broker`."""
    with running(broker) as process, World(folder, process) as stage:
        stage.start_manager()
        yield stage


def get(url: str) -> dict[str, object] | None:
    """A JSON document, or None where the server does not answer with one."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            document: dict[str, object] = json.loads(response.read() or b"{}")
            return document
    except (urllib.error.URLError, OSError):
        return None


def model_file(path: Path, *, seed: int, width: int = 64) -> Path:
    """A small float network of two layers, x (batch, width) -> y (batch, 4), with `width` squared random weights."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 1 / np.sqrt(width), (width, width)).astype(np.float32),
        "w2": rng.normal(0, 1 / np.sqrt(width), (width, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def bundle(folder: Path, name: str, version: str, *, seed: int, width: int = 64) -> tuple[Path, Bundle]:
    """A float-only bundle made by the converter itself, large where `width` is."""
    import lepton_edge as le

    source = model_file(folder / f"{name}-{version}.onnx", seed=seed, width=width)
    target = folder / f"{name}-{version}.lep"
    le.load_model(source).save(target, name=name, version=version)
    return target, Bundle.open(target)
