"""A version broken on purpose: one block of weights with its signs inverted, and every hash made right again.

Nothing but running it shows that such a file is wrong: it is what a bad disk, a bad conversion or a bad training run
looks like from outside.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_edge.bundle import GOLDEN, Bundle

BLOCK = 64 * 1024
"""Bytes whose signs are inverted; all of the weights where they are fewer."""


def break_bundle(bundle: Bundle, *, version: str) -> Bundle:
    """A copy of `bundle`, of another version, in which every variant is broken."""
    import msgspec  # noqa: PLC0415 - only the demo and tests break things

    invert = {"onnx": invert_onnx, "tflite": invert_tflite}
    formats = {variant.file: variant.format for variant in bundle.manifest.variants}
    files = {GOLDEN: bundle.read(GOLDEN)}
    for path in bundle.manifest.files:
        if path != GOLDEN:
            content = bundle.read(path)
            files[path] = invert[formats[path]](content) if path in formats else content
    return Bundle.create(msgspec.structs.replace(bundle.manifest, version=version), files)


def invert_onnx(model: bytes) -> bytes:
    """Invert the sign of one block of an ONNX model's weights."""
    import onnx  # noqa: PLC0415 - host only
    from onnx import numpy_helper  # noqa: PLC0415

    proto = onnx.load_model_from_string(model)
    arrays = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    for tensor, weights in zip(proto.graph.initializer, invert_block(arrays), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return bytes(proto.SerializeToString())


def invert_tflite(model: bytes) -> bytes:
    """Invert the sign of one block of a TFLite model's weights."""
    from converters.tflite.pack import write_file  # noqa: PLC0415 - host only
    from converters.tflite.parse import read_bytes  # noqa: PLC0415

    parsed = read_bytes(model, where="the variant to break")
    tensors = list(parsed.main.tensors)
    constant = [index for index, tensor in enumerate(tensors) if tensor.data is not None]
    inverted = invert_block([np.asarray(tensors[index].data) for index in constant])
    for index, weights in zip(constant, inverted, strict=True):
        tensors[index] = replace(tensors[index], data=weights)
    broken = replace(parsed, subgraphs=[replace(parsed.main, tensors=tensors), *parsed.subgraphs[1:]])
    with tempfile.TemporaryDirectory() as folder:
        write_file(broken, Path(folder) / "broken.tflite")
        return (Path(folder) / "broken.tflite").read_bytes()


def invert_block(constants: Sequence[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
    """Invert the sign of the first 64 KiB of the largest weights, in order of size; all else stays."""
    inverted = list(constants)
    left = BLOCK
    for index in sorted(range(len(inverted)), key=lambda index: -inverted[index].nbytes):
        weights = inverted[index]
        if left <= 0 or not _is_weight(weights):
            continue
        flat = weights.reshape(-1).copy()
        count = min(flat.size, max(1, left // flat.itemsize))
        flat[:count] = _negated(flat[:count])
        inverted[index] = flat.reshape(weights.shape)
        left -= count * flat.itemsize
    return inverted


def _is_weight(constant: npt.NDArray[np.generic]) -> bool:
    """Scales, zero points and biases are vectors; wide integers are shapes, axes and paddings."""
    return constant.ndim >= 2 and (constant.dtype.kind == "f" or constant.dtype.itemsize == 1)


def _negated(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """-values; unsigned weights are centred on 128, and the lowest int8 has no positive twin."""
    if values.dtype == np.uint8:
        return np.clip(256 - values.astype(np.int16), 0, 255).astype(np.uint8)
    if values.dtype == np.int8:
        return np.clip(-values.astype(np.int16), -128, 127).astype(np.int8)
    return np.asarray(np.negative(values))
