"""Small real bundles: ONNX files made here, golden outputs computed by running them."""

import secrets

import msgspec
import numpy as np
import onnxruntime
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from lepton_edge.bundle import GOLDEN, Binding, Bundle, Golden, Manifest, ModelSignature, TensorSpec, Variant
from lepton_edge.wire.goal import Limits, ModelGoal, Probation
from lepton_edge.wire.signatures import Context, sign

SIGNATURE = ModelSignature(
    inputs=[TensorSpec(name="x", dtype="float32", shape=["n", 4])],
    outputs=[TensorSpec(name="y", dtype="float32", shape=["n", 3])],
)
GOLDEN_X = np.random.default_rng(7).uniform(0, 0.99, size=(16, 4)).astype(np.float32)


def weights(version: str) -> np.ndarray:
    """Each version has its own, so an answer tells which version gave it."""
    return np.random.default_rng(sum(version.encode())).normal(size=(4, 3)).astype(np.float32)


def answer(version: str, x: np.ndarray) -> np.ndarray:
    """What the right model of a version says."""
    return x @ weights(version)


def onnx_bytes(version: str, *, padding: int = 0, fragile: bool = False) -> bytes:
    """y = x @ weights.

    Args:
        padding: random bytes, so that the file has more than one chunk.
        fragile: fails at run time where the first value of a sample is 1 or more.
    """
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0" if fragile else "y"])]
    initializers = [numpy_helper.from_array(weights(version), "w")]
    if fragile:
        initializers += [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in (("zero", 0), ("one", 1))]
        initializers += [numpy_helper.from_array(np.zeros((1, 1), np.float32), "table")]
        nodes += [
            helper.make_node("Gather", ["x", "zero"], ["first"], axis=1),
            helper.make_node("Cast", ["first"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["nought"], axis=0),
            helper.make_node("Add", ["y0", "nought"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if padding:
        model.doc_string = secrets.token_hex(padding // 2)
    return bytes(model.SerializeToString())


def run(file: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def variant(name: str, rank: int, **fields: object) -> Variant:
    return msgspec.structs.replace(
        Variant(
            name=name,
            file=f"{name}.onnx",
            format="onnx",
            precision="float32" if name.startswith("float") else "int8",
            runtime="onnxruntime",
            profile="float",
            inputs=[Binding(name="x", tensor="x", dtype="float32")],
            outputs=[Binding(name="y", tensor="y", dtype="float32")],
            rank=rank,
            tolerance=1e-3,
        ),
        **fields,
    )


def make_bundle(
    name: str = "linear",
    version: str = "1",
    *,
    padding: int = 0,
    fragile: bool = False,
    broken: bool = False,
    variants: tuple[str, ...] = ("float-onnx",),
    failing: tuple[str, ...] = (),
    runtime: str = "onnxruntime",
) -> Bundle:
    """A valid bundle.

    Args:
        broken: every variant computes something else than its golden outputs say.
        variants: names, best first.
        failing: those of them that are broken.
        runtime: that its variants need.
    """
    files = {f"{each}.onnx": onnx_bytes(version, padding=padding, fragile=fragile) for each in variants}
    right = run(files[f"{variants[0]}.onnx"], GOLDEN_X)
    wrong = right[::-1] * 3 + 1
    host = {each: {"y": wrong if broken or each in failing else right} for each in variants}
    files[GOLDEN] = Golden({"x": GOLDEN_X}, {"y": right}, host).to_bytes()
    manifest = Manifest(
        name=name,
        version=version,
        signature=SIGNATURE,
        files={},
        variants=[variant(each, rank, runtime=runtime) for rank, each in enumerate(variants)],
    )
    return Bundle.create(manifest, files)


def entry(
    bundle: Bundle,
    key: Ed25519PrivateKey,
    deployment: str,
    *,
    limits: Limits | None = None,
    probation: Probation | None = None,
) -> ModelGoal:
    """The goal's entry for a bundle, signed by an operator's key."""
    return ModelGoal(
        deployment=deployment,
        manifest=bundle.manifest_ref,
        signature=sign(key, Context.MANIFEST, bundle.manifest_bytes),
        limits=limits or Limits(),
        probation=probation or Probation(probation_s=0.2),
    )


def blobs_of(bundle: Bundle) -> dict[str, bytes]:
    """Digest -> bytes of all that a bundle consists of."""
    found = {bundle.manifest_ref.sha256: bundle.manifest_bytes}
    return found | {ref.sha256: bundle.read(path) for path, ref in bundle.manifest.files.items()}
