"""Devices with LiteRT alone, ONNX Runtime alone, and both: real files, real runtimes, each chooses for itself."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from device_agent.info import probe
from device_agent.local import Agent
from fleet.broker.process import BrokerProcess
from lepton_edge.bundle import GOLDEN, Bundle, Golden, Manifest, ModelSignature
from lepton_edge.errors import UsageError
from lepton_edge.runtimes import installed
from lepton_edge.wire.goal import Limits
from lepton_edge.wire.messages import ModelReport, State
from tests.device_agent.manager_twin import ManagerTwin, running_agent
from tests.device_agent.models import WEIGHTS, tensor, variant_of
from tests.kernel.tflite_files import chained

pytestmark = pytest.mark.skipif("litert" not in installed(), reason="LiteRT is not installed")

WIDE = 20_000
"""Columns in the middle of a slow file: 140,000 multiplications in place of 12, and 560 kB."""
SIGNATURE = ModelSignature(inputs=[tensor("x", "float32", "n", 4)], outputs=[tensor("y", "float32", "n", 3)])
X = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
RUNTIMES = {"int8-onnx": "onnxruntime", "int8-tflite": "litert", "float-onnx": "onnxruntime", "float-tflite": "litert"}
"""Of the variants, best-ranked first."""


def layers(*, slow: bool) -> list[np.ndarray]:
    """Matrices whose product is WEIGHTS."""
    if not slow:
        return [WEIGHTS]
    into, out = np.zeros((4, WIDE), np.float32), np.zeros((WIDE, 3), np.float32)
    into[:, :4], out[:4] = np.eye(4), WEIGHTS
    return [into, out]


def onnx_bytes(matrices: list[np.ndarray]) -> bytes:
    names = ["x", *(f"h{number}" for number in range(1, len(matrices))), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(len(matrices))],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(matrix, f"w{i}") for i, matrix in enumerate(matrices)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def file_of(runtime: str, matrices: list[np.ndarray], folder: Path) -> bytes:
    if runtime == "onnxruntime":
        return onnx_bytes(matrices)
    return chained(folder / "made.tflite", matrices).read_bytes()


def bundle_of(folder: Path, *, slow: str, harm: Mapping[str, str] | None = None) -> Bundle:
    """y = x @ WEIGHTS in both formats, in variants called int8 and float.

    Args:
        folder: to make files in.
        slow: the runtime whose files take longer.
        harm: variant -> "damaged" (its file cannot be loaded) or "wrong" (it computes something else).
    """
    harm = harm or {}
    files: dict[str, bytes] = {}
    variants = []
    for rank, (name, runtime) in enumerate(RUNTIMES.items()):
        kind = "onnx" if runtime == "onnxruntime" else "tflite"
        sign = -1 if harm.get(name) == "wrong" else 1
        first, *others = layers(slow=runtime == slow)
        data = file_of(runtime, [sign * first, *others], folder)
        data = data[: len(data) // 2] if harm.get(name) == "damaged" else data
        precision = "float32" if name.startswith("float") else "int8"
        fields = {"runtime": runtime, "format": kind, "file": f"{name}.{kind}", "precision": precision, "rank": rank}
        variants.append(variant_of(SIGNATURE, name, **fields))
        files[f"{name}.{kind}"] = data
    right = {"y": X @ WEIGHTS}
    files[GOLDEN] = Golden({"x": X}, right, dict.fromkeys(RUNTIMES, right)).to_bytes()
    return Bundle.create(Manifest(name="linear", version="1", signature=SIGNATURE, files={}, variants=variants), files)


DEVICES = {"lite": ["litert"], "ort": ["onnxruntime"], "both": []}


async def deployed(broker: BrokerProcess, bundle: Bundle, folder: Path) -> dict[str, ModelReport]:
    """What each of three devices reports once it has committed; each must also answer rightly."""
    twin = ManagerTwin(broker.url)
    async with twin.connected(), AsyncExitStack() as stack:
        agents = {}
        for device, runtimes in DEVICES.items():
            enrolment = twin.enrol(device)
            agents[device] = await stack.enter_async_context(
                running_agent(enrolment, folder / device, runtimes=runtimes)
            )
            await twin.want(device, linear=twin.entry(bundle, f"d-{device}"))
        reports = {}
        for device, agent in agents.items():
            reports[device] = await twin.until_committed(device, "linear", f"d-{device}")
            np.testing.assert_allclose(await agent.infer("linear", X), X @ WEIGHTS, rtol=1e-4, atol=1e-5)
        infos = {device: {one.name for one in twin.infos[device].runtimes} for device in DEVICES}
    assert infos["lite"] == {"litert"}
    assert infos["ort"] == {"onnxruntime"}
    assert infos["both"] >= {"litert", "onnxruntime"}
    return reports


def needed(bundle: Bundle, *variants: str) -> int:
    """Bytes of the manifest, of golden.npz and of these variants' files."""
    paths = [GOLDEN, *(bundle.manifest.variant(name).file for name in variants)]
    return bundle.manifest_ref.size + sum(bundle.manifest.files[path].size for path in paths)


@pytest.mark.parametrize(("slow", "fast"), [("onnxruntime", "int8-tflite"), ("litert", "int8-onnx")])
async def test_each_device_fetches_what_it_can_run_and_keeps_the_fastest(
    one_broker: BrokerProcess, tmp_path: Path, slow: str, fast: str
) -> None:
    bundle = bundle_of(tmp_path, slow=slow)
    reports = await deployed(one_broker, bundle, tmp_path)
    alone = {"lite": "int8-tflite", "ort": "int8-onnx"}
    for device, variant in alone.items():
        choice = reports[device].choice
        assert choice is not None
        assert (choice.variant, choice.fetched) == (variant, needed(bundle, variant))
        assert [one.variant for one in reports[device].measured] == [variant]
        assert choice.reason.startswith(f"the best-ranked that passes here: {variant} ")
    choice, measured = reports["both"].choice, {one.variant: one for one in reports["both"].measured}
    assert choice is not None
    assert set(measured) == {"int8-onnx", "int8-tflite"}
    assert choice.variant == fast
    assert choice.fetched == needed(bundle, *measured)
    assert choice.p50_ms == min(one.p50_ms for one in measured.values())
    assert choice.reason.startswith(f"the fastest of 2: {fast} {choice.p50_ms:.3g} ms, ")


async def test_what_fails_is_replaced_by_the_next_of_its_kind(one_broker: BrokerProcess, tmp_path: Path) -> None:
    """ONNX Runtime has a float file left; of LiteRT's int8 one everything is right but its numbers."""
    bundle = bundle_of(tmp_path, slow="", harm={"int8-onnx": "damaged", "int8-tflite": "wrong"})
    reports = await deployed(one_broker, bundle, tmp_path)
    chosen = {device: report.choice for device, report in reports.items()}
    assert all(chosen.values())
    assert {device: choice.variant for device, choice in chosen.items() if choice} == {
        "lite": "float-tflite",
        "ort": "float-onnx",
        "both": "float-onnx",
    }
    assert chosen["lite"] is not None
    assert "; int8-tflite failed: the golden test gave" in chosen["lite"].reason
    assert chosen["ort"] is not None
    assert "; int8-onnx failed: int8-onnx.onnx: ONNX Runtime cannot load it" in chosen["ort"].reason
    assert chosen["both"] is not None
    assert "int8-onnx failed" in chosen["both"].reason
    assert "int8-tflite failed" in chosen["both"].reason
    assert chosen["lite"].fetched == needed(bundle, "int8-tflite", "float-tflite")


async def test_a_device_without_a_runtime_for_any_variant_says_what_it_lacks(
    one_broker: BrokerProcess, tmp_path: Path
) -> None:
    whole = bundle_of(tmp_path, slow="").manifest
    alone = [variant for variant in whole.variants if variant.runtime == "litert"]
    files = {variant.file: file_of("litert", layers(slow=False), tmp_path) for variant in alone}
    right = {"y": X @ WEIGHTS}
    files[GOLDEN] = Golden({"x": X}, right, {variant.name: right for variant in alone}).to_bytes()
    bundle = Bundle.create(Manifest(name="linear", version="1", signature=SIGNATURE, files={}, variants=alone), files)
    twin = ManagerTwin(one_broker.url)
    async with twin.connected(), running_agent(twin.enrol("ort"), tmp_path / "ort", runtimes=["onnxruntime"]):
        await twin.want("ort", linear=twin.entry(bundle, "d1"))
        report = await twin.until_state("ort", "linear", "d1", State.FAILED)
    assert "needs the runtime litert, not installed here" in report.reason


def test_in_one_process_both_are_measured_and_the_fastest_answers(tmp_path: Path) -> None:
    path = bundle_of(tmp_path, slow="onnxruntime").save(tmp_path / "linear.lep")
    with Agent(path, limits=Limits(max_candidates=2)) as agent:
        choice = agent.models["linear"].choice
        assert choice.variant == "int8-tflite"
        assert choice.reason.startswith("the fastest of 2: int8-tflite ")
        np.testing.assert_allclose(agent.predict(X), X @ WEIGHTS, rtol=1e-4, atol=1e-5)


def test_a_runtime_that_nobody_knows_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no runtime is called abacus; there are litert, onnxruntime"):
        probe(tmp_path, {}, only=["litert", "abacus"])
