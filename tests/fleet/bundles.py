"""Small bundles: right in form, with random bytes for models."""

import random

from lepton_edge.bundle import Bundle
from lepton_edge.bundle.manifest import GOLDEN, Binding, Manifest, ModelSignature, TensorSpec, Variant

_TENSOR = TensorSpec(name="x", dtype="float32", shape=[1, 4])
_BINDING = Binding(name="x", tensor="x", dtype="float32")


def make_bundle(name: str = "digits", version: str = "1", *, size: int = 100_000, seed: int = 0) -> Bundle:
    """A bundle with one variant of `size` bytes and a golden.npz that nobody opens."""
    source = random.Random(f"{name}-{version}-{seed}")
    variant = Variant(
        name="int8",
        file="int8.onnx",
        format="onnx",
        precision="int8",
        runtime="onnxruntime",
        profile="any",
        inputs=[_BINDING],
        outputs=[_BINDING],
        rank=0,
        tolerance=0.05,
    )
    manifest = Manifest(
        name=name,
        version=version,
        signature=ModelSignature(inputs=[_TENSOR], outputs=[_TENSOR]),
        files={},
        variants=[variant],
    )
    return Bundle.create(manifest, {"int8.onnx": source.randbytes(size), GOLDEN: source.randbytes(1000)})
