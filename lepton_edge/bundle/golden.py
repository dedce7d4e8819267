"""golden.npz: inputs and outputs that prove on a device that a variant computes what it computed on the host.

Keys: `input/NAME` and `float/NAME` (the float model's outputs), and `host/VARIANT/NAME`: what this very file gave on
the host. First axis: the inputs, GOLDEN_COUNT of them. A device passes when, per output over all inputs, the RMS of
(device - host) over the standard deviation of the host's values is at most the variant's tolerance.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.errors import BundleError

GOLDEN_COUNT = 16
MAX_UNPACKED = 512 * 1024 * 1024
"""Most bytes that golden.npz may unpack to; checked before anything is unpacked."""
MAX_RATIO = 1100
"""deflate cannot do better than 1032:1; a header that claims more lies."""


class Golden:
    """The arrays of golden.npz."""

    def __init__(self, inputs: Arrays, float_outputs: Arrays, host_outputs: Mapping[str, Arrays]) -> None:
        self.inputs = inputs
        self.float_outputs = float_outputs
        self.host_outputs = dict(host_outputs)

    def to_bytes(self) -> bytes:
        """The same arrays give the same bytes: keys sorted, dates fixed (numpy writes 1980)."""
        arrays = {f"input/{name}": array for name, array in self.inputs.items()}
        arrays |= {f"float/{name}": array for name, array in self.float_outputs.items()}
        for variant, outputs in self.host_outputs.items():
            arrays |= {f"host/{variant}/{name}": array for name, array in outputs.items()}
        out = io.BytesIO()
        np.savez_compressed(out, allow_pickle=False, **dict(sorted(arrays.items())))
        return out.getvalue()

    def expected(self, variant: str) -> Arrays:
        """Raises BundleError where golden.npz lacks the variant."""
        if variant not in self.host_outputs:
            raise BundleError(f"golden.npz has no outputs of variant {variant!r}")
        return self.host_outputs[variant]


def read_golden(data: bytes) -> Golden:
    """Parse golden.npz from bytes that nobody trusts.

    Raises:
        BundleError: no .npz, too large when unpacked, pickled objects inside, or unknown keys.
    """
    try:
        _check_sizes(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays: dict[str, Array] = {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, zlib.error, NotImplementedError) as cause:
        raise BundleError(f"golden.npz: {cause}") from cause
    return _sort(arrays)


def _check_sizes(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if total > MAX_UNPACKED or packed > len(data) or total > MAX_RATIO * max(packed, 1):
        raise BundleError(f"golden.npz: would unpack to {total} bytes, at most {MAX_UNPACKED} are accepted")


def _sort(arrays: dict[str, Array]) -> Golden:
    golden = Golden({}, {}, {})
    for key, array in arrays.items():
        match key.split("/"):
            case ["input", *name] if name:
                golden.inputs["/".join(name)] = array
            case ["float", *name] if name:
                golden.float_outputs["/".join(name)] = array
            case ["host", variant, *name] if name:
                golden.host_outputs.setdefault(variant, {})["/".join(name)] = array
            case _:
                raise BundleError(f"golden.npz: unknown array {key[:80]!r}")
    if not golden.inputs:
        raise BundleError("golden.npz: no inputs")
    return golden


def distance(host: Mapping[str, Array], device: Mapping[str, Array]) -> float:
    """How far a device's outputs are from the host's: the largest ratio over the outputs, infinite where an output
    is missing, misshapen, NaN or Inf.
    """
    if sorted(host) != sorted(device):
        return float("inf")
    return max((_distance_of_one(host[name], device[name]) for name in host), default=float("inf"))


def _distance_of_one(host: Array, device: Array) -> float:
    if host.shape != device.shape:
        return float("inf")
    if not np.issubdtype(host.dtype, np.floating):
        return float(np.mean(host != device)) if host.size else 0.0
    want, got = host.astype(np.float64), device.astype(np.float64)
    if not (np.isfinite(want).all() and np.isfinite(got).all()):
        return float("inf")
    if not want.size:
        return 0.0
    error, spread = float(np.sqrt(np.mean((got - want) ** 2))), float(np.std(want))
    if spread == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return error / spread
