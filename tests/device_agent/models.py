"""Models for the agent's tests: fakes that compute what a test says, and small real ONNX files."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from device_agent.serve.engine import ServedModel
from lepton_edge.bundle import GOLDEN, Binding, Bundle, Golden, Manifest, ModelSignature, TensorSpec, Variant
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.runtimes import Session
from lepton_edge.wire.messages import Choice


class FakeExecutor:
    """A runtime's session that calls a function."""

    def __init__(self, function: Callable[[Mapping[str, Array]], Arrays]) -> None:
        self.execute = function


def tensor(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=list(shape))


def bindings(specs: list[TensorSpec]) -> list[Binding]:
    return [Binding(name=spec.name, tensor=spec.name, dtype=spec.dtype) for spec in specs]


def variant_of(signature: ModelSignature, name: str = "float-onnx", **fields: object) -> Variant:
    defaults: dict[str, object] = {
        "file": f"{name}.onnx",
        "format": "onnx",
        "precision": "float32",
        "runtime": "onnxruntime",
        "profile": "float",
        "inputs": bindings(signature.inputs),
        "outputs": bindings(signature.outputs),
        "rank": 0,
        "tolerance": 1e-3,
    }
    return Variant(name=name, **{**defaults, **fields})


PLUS_ONE = ModelSignature(inputs=[tensor("x", "float32", "n", 2)], outputs=[tensor("y", "float32", "n", 2)])


def plus_one(inputs: Mapping[str, Array]) -> Arrays:
    return {"y": inputs["x"] + np.float32(1)}


def served(
    function: Callable[[Mapping[str, Array]], Arrays] = plus_one,
    signature: ModelSignature = PLUS_ONE,
    *,
    name: str = "model",
    version: str = "1",
    bundle: str = "b" * 64,
) -> ServedModel:
    """A model that answers with `function`."""
    variant = variant_of(signature)
    manifest = Manifest(name=name, version=version, signature=signature, files={}, variants=[variant])
    choice = Choice(variant=variant.name, runtime=variant.runtime, p50_ms=1, p99_ms=2, golden_ratio=0)
    return ServedModel(manifest, bundle, variant, Session(FakeExecutor(function), signature, variant), choice)


def linear_onnx(weights: Array, *, batch: int | str = "n") -> bytes:
    """y = x @ weights, float32."""
    rows, columns = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, columns])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def linear_bundle(
    files: Mapping[str, bytes] | None = None, *, batch: int | str = "n", version: str = "1", **fields: object
) -> Bundle:
    """A bundle `linear` with one variant per file (name -> bytes); golden is what the right weights give.

    The first variant has rank 0, the next 1 and so on; all claim to be int8 but `float-onnx`.
    """
    files = {"float-onnx": linear_onnx(WEIGHTS, batch=batch)} if files is None else files
    signature = ModelSignature(inputs=[tensor("x", "float32", batch, 4)], outputs=[tensor("y", "float32", batch, 3)])
    variants = [
        variant_of(signature, name, rank=rank, precision="float32" if name == "float-onnx" else "int8", **fields)
        for rank, name in enumerate(files)
    ]
    x = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
    golden = Golden({"x": x}, {"y": x @ WEIGHTS}, {name: {"y": x @ WEIGHTS} for name in files})
    manifest = Manifest(name="linear", version=version, signature=signature, files={}, variants=variants)
    contents = {variant.file: files[variant.name] for variant in variants} | {GOLDEN: golden.to_bytes()}
    return Bundle.create(manifest, contents)


def unpack(bundle: Bundle, folder: Path) -> Path:
    """The bundle's folder on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in bundle.manifest.files:
        (folder / name).write_bytes(bundle.read(name))
    (folder / "manifest.json").write_bytes(bundle.manifest_bytes)
    return folder
