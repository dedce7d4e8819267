"""A version broken on purpose: one block of weights with its signs inverted, and every hash made right again.

Nothing but running it shows that such a file is wrong: it is what a bad disk, a bad conversion or a bad training run
looks like from outside.
"""

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle import GOLDEN, Bundle

BLOCK = 64 * 1024
"""Bytes whose signs are inverted; all of the weights where they are fewer."""


def break_bundle(bundle: Bundle, *, version: str) -> Bundle:
    """A copy of `bundle`, of another version, in which every ONNX variant is broken."""
    import msgspec  # noqa: PLC0415 - only the demo and tests break things

    files = {GOLDEN: bundle.read(GOLDEN)}
    for path in bundle.manifest.files:
        if path != GOLDEN:
            content = bundle.read(path)
            files[path] = invert_block(content) if path.endswith(".onnx") else content
    return Bundle.create(msgspec.structs.replace(bundle.manifest, version=version), files)


def invert_block(model: bytes) -> bytes:
    """Invert the sign of one block of weights: the first 64 KiB of the largest weight tensors, in order of size."""
    import onnx  # noqa: PLC0415 - host only
    from onnx import numpy_helper  # noqa: PLC0415

    proto = onnx.load_model_from_string(model)
    left = BLOCK
    for tensor in sorted(proto.graph.initializer, key=lambda tensor: -numpy_helper.to_array(tensor).nbytes):
        weights = numpy_helper.to_array(tensor)
        if left <= 0 or weights.ndim < 2:  # scales, zero points and biases are vectors
            continue
        flat = weights.reshape(-1).copy()
        count = min(flat.size, max(1, left // flat.itemsize))
        flat[:count] = _negated(flat[:count])
        tensor.CopyFrom(numpy_helper.from_array(flat.reshape(weights.shape), tensor.name))
        left -= count * flat.itemsize
    return bytes(proto.SerializeToString())


def _negated(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """-values; unsigned weights are centred on 128, and the lowest int8 has no positive twin."""
    if values.dtype == np.uint8:
        return np.clip(256 - values.astype(np.int16), 0, 255).astype(np.uint8)
    if values.dtype == np.int8:
        return np.clip(-values.astype(np.int16), -128, 127).astype(np.int8)
    return np.asarray(np.negative(values))
