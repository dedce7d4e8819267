"""The engine: who answers, what counts, and what a swap, a flood or a hang does."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping

import numpy as np
import pytest

from device_agent.serve.engine import Engine, Health
from device_agent.serve.errors import InferenceTimeoutError, OverloadedError, UnknownModelError
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import DataError, SelfTestError
from tests.device_agent.models import plus_one, served

X = {"x": np.zeros((1, 2), np.float32)}


class Gate:
    """A model that waits for `open`, and says when it was entered."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        self.entered.set()
        assert self.open.wait(20)
        return {"y": inputs["x"] + np.float32(self.value)}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(queue_depth=2, timeout_s=10, started_ms=1000)
    yield engine
    await engine.close()


def failing(inputs: Mapping[str, Array]) -> Arrays:
    raise SelfTestError("broken")


async def test_an_installed_model_answers_and_is_named_in_the_answer(engine: Engine) -> None:
    model = served()
    engine.install(model)
    answered, outputs = await engine.infer("model", X)
    assert answered is model
    assert outputs["y"].tolist() == [[1, 1]]
    assert engine.serving("model") is model
    assert engine.names() == ["model"]


async def test_an_unknown_or_removed_model_is_unknown(engine: Engine) -> None:
    engine.install(served())
    engine.remove("model")
    engine.remove("model")
    assert engine.serving("model") is None
    with pytest.raises(UnknownModelError, match="no model 'model'"):
        await engine.infer("model", X)
    with pytest.raises(UnknownModelError):
        engine.health("model")


BAD: dict[str, dict[str, Array]] = {
    "wrong shape": {"x": np.zeros((1, 3), np.float32)},
    "wrong name": {"z": np.zeros((1, 2), np.float32)},
    "wrong type": {"x": np.zeros((1, 2), np.complex64)},
    "empty": {"x": np.zeros((0, 2), np.float32)},
}


@pytest.mark.parametrize("inputs", BAD.values(), ids=BAD)
async def test_a_clients_error_is_neither_a_request_nor_a_failure(engine: Engine, inputs: dict[str, Array]) -> None:
    engine.install(served())
    with pytest.raises(DataError):
        await engine.infer("model", inputs)
    assert engine.health("model") == Health(requests=0, failures=0)
    assert engine.take_windows(2000) == []


def key_error(inputs: Mapping[str, Array]) -> Arrays:
    return {}


@pytest.mark.parametrize(("function", "error"), [(failing, SelfTestError), (key_error, KeyError)])
async def test_a_models_failure_is_counted(
    engine: Engine, function: Callable[[Mapping[str, Array]], Arrays], error: type[Exception]
) -> None:
    engine.install(served(function))
    with pytest.raises(error):
        await engine.infer("model", X)
    assert engine.health("model") == Health(requests=1, failures=1)
    (window,) = engine.take_windows(2000)
    assert (window.latency.count, window.failures) == (0, 1)


async def test_windows_are_cut_per_variant_and_counted_once(engine: Engine) -> None:
    engine.install(served())
    engine.install(served(name="other"))
    for _ in range(3):
        await engine.infer("model", X)
    first, *rest = engine.take_windows(2000)
    assert rest == []
    assert (first.model, first.version, first.variant, first.runtime, first.bundle) == (
        "model", "1", "float-onnx", "onnxruntime", "b" * 64,
    )  # fmt: skip
    assert (first.start_ms, first.end_ms, first.latency.count, first.failures) == (1000, 2000, 3, 0)
    assert engine.take_windows(3000) == []
    await engine.infer("other", X)
    (second,) = engine.take_windows(4000)
    assert (second.start_ms, second.model) == (3000, "other")
    assert second.id != first.id


async def test_a_swap_lets_the_request_under_way_finish_on_the_old_model(engine: Engine) -> None:
    gate = Gate(10)
    engine.install(served(gate, version="1"))
    under_way = asyncio.create_task(engine.infer("model", X))
    queued = asyncio.create_task(engine.infer("model", X))
    await asyncio.to_thread(gate.entered.wait, 10)
    engine.install(served(plus_one, version="2"))
    model, outputs = await engine.infer("model", X)
    assert (model.manifest.version, outputs["y"][0, 0]) == ("2", 1)
    gate.open.set()
    for task in (under_way, queued):
        model, outputs = await task
        assert (model.manifest.version, outputs["y"][0, 0]) == ("1", 10)
    assert engine.health("model") == Health(requests=1, failures=0)
    assert [(w.version, w.latency.count) for w in engine.take_windows(2000)] == [("1", 2), ("2", 1)]


async def test_a_slow_model_holds_up_no_other(engine: Engine) -> None:
    gate = Gate(0)
    engine.install(served(gate, name="slow"))
    engine.install(served(name="quick"))
    slow = asyncio.create_task(engine.infer("slow", X))
    await asyncio.to_thread(gate.entered.wait, 10)
    await engine.infer("quick", X)
    assert not slow.done()
    gate.open.set()
    await slow


async def test_more_requests_than_the_queue_holds_are_turned_away(engine: Engine) -> None:
    gate = Gate(0)
    engine.install(served(gate))
    first = asyncio.create_task(engine.infer("model", X))
    await asyncio.to_thread(gate.entered.wait, 10)
    waiting = [asyncio.create_task(engine.infer("model", X)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="try again later"):
        await engine.infer("model", X)
    gate.open.set()
    await asyncio.gather(first, *waiting)
    assert engine.health("model") == Health(requests=3, failures=0)


async def test_a_hanging_runtime_fails_its_request_once_and_not_those_that_wait() -> None:
    engine = Engine(timeout_s=0.05, started_ms=0)
    gate = Gate(0)
    engine.install(served(gate))
    hanging = asyncio.create_task(engine.infer("model", X))
    await asyncio.to_thread(gate.entered.wait, 10)
    results = await asyncio.gather(hanging, engine.infer("model", X), return_exceptions=True)
    assert [type(result) for result in results] == [InferenceTimeoutError] * 2
    assert engine.health("model") == Health(requests=1, failures=1)
    gate.open.set()
    await engine.close()
    (window,) = engine.take_windows(1)
    assert (window.latency.count, window.failures) == (0, 1)


async def test_an_abandoned_request_leaves_the_engine_working(engine: Engine) -> None:
    gate = Gate(0)
    engine.install(served(gate))
    tasks = [asyncio.create_task(engine.infer("model", X)) for _ in range(2)]
    await asyncio.to_thread(gate.entered.wait, 10)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gate.open.set()
    await engine.infer("model", X)
    assert engine.health("model").requests == 2  # the one that ran and this one; the queued one never began


async def test_a_closed_engine_refuses_and_has_finished_what_it_took() -> None:
    engine = Engine()
    gate = Gate(0)
    engine.install(served(gate))
    task = asyncio.create_task(engine.infer("model", X))
    await asyncio.to_thread(gate.entered.wait, 10)
    gate.open.set()
    await engine.close()
    await task
    assert not engine.is_open
    with pytest.raises(OverloadedError, match="stopping"):
        await engine.infer("model", X)
    with pytest.raises(OverloadedError, match="stopping"):
        engine.install(served())


async def test_swaps_under_load_lose_no_request(engine: Engine) -> None:
    engine.install(served(version="0"))
    stop = threading.Event()

    def swap() -> None:
        version = 0
        while not stop.is_set() and version < 500:
            version += 1
            engine.install(served(version=str(version)))

    swapping = asyncio.create_task(asyncio.to_thread(swap))
    for _ in range(200):
        _, outputs = await engine.infer("model", X)
        assert outputs["y"].tolist() == [[1, 1]]
    stop.set()
    await swapping
    assert sum(w.latency.count for w in engine.take_windows(2000)) == 200
