"""manifest.json: what a bundle holds. The SHA-256 of its bytes is the bundle's identity, and what is signed.

Manifest
+-- signature   the model's own names, types, shapes: what golden.npz, `predict` and the V2 endpoint speak
+-- files       path -> blob reference
+-- variants    each a file, a runtime, a profile, what it needs, how its tensors bind to the signature,
                and what was measured
"""

import re
from typing import Annotated, Literal

import msgspec

from lepton_edge.errors import BundleError
from lepton_edge.names import PATTERN
from lepton_edge.preprocess.spec import Step, files_of
from lepton_edge.typed import Record, decode
from lepton_edge.wire.chunks import BlobRef, sha256

MAX_MANIFEST = 8 * 1024 * 1024
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"

Name = Annotated[str, msgspec.Meta(pattern=f"^{PATTERN}$")]
DataType = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
]
Precision = Literal["float32", "float16", "int8", "int8-dynamic", "int16"]

_PATH = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
MAX_PATH = 200


def is_safe_path(path: str) -> bool:
    """Whether `path` stays inside the bundle's folder on every system."""
    return len(path) <= MAX_PATH and _PATH.fullmatch(path) is not None


class TensorSpec(Record, frozen=True, kw_only=True):
    """One input or output of the source model.

    shape: sizes, or a name where the size may vary (the batch, say). layout: "NCHW" and the like where known.
    """

    name: str
    dtype: DataType
    shape: list[int | str]
    layout: str = ""


class ModelSignature(Record, frozen=True, kw_only=True):
    """The source model's inputs and outputs, in its order."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class Binding(Record, frozen=True, kw_only=True):
    """How a tensor of a variant's file stands for one of the signature.

    name: in the signature. tensor: in the file. dtype: the file's.
    permutation: axis i of the file's tensor is axis permutation[i] of the signature's; None: the same order.
    scale, zero_point: real = scale * (file - zero_point); None where the file holds real values.
    """

    name: str
    tensor: str
    dtype: DataType
    permutation: list[int] | None = None
    scale: float | None = None
    zero_point: int = 0


class Metric(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A metric's value with its 95 % interval over n samples.

    unit: "fraction" of 1, whose drops are in points (100 x fraction), or the metric's "own", in which its drops are.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    unit: Literal["fraction", "own"] = "fraction"


class Latency(Record, frozen=True, kw_only=True):
    """A measured latency in milliseconds, and the float model's in the same run.

    place: where it was measured. p90_ms: None where a device or an older version did not tell.
    """

    runtime: str
    version: str
    provider: str
    threads: int
    p50_ms: float
    p99_ms: float
    float_p50_ms: float
    place: str = ""
    p90_ms: float | None = None


class Variant(Record, frozen=True, kw_only=True):
    """One artifact.

    isa: CPU flags (as /proc/cpuinfo names them) of which the device needs one of each inner list.
    machines: platform.machine() values that it is for; empty: any.
    memory: bytes that a loaded model needs, as measured on the host.
    provider: of the runtime, that the variant was made for and runs with; empty: the one that the runtime prefers.
    rank: per profile, 0 is the best; a device fetches in this order.
    tolerance: of the golden test. int8_macs: share of multiply-accumulates done in int8.
    speed: "measured", or "unmeasured" where no host of this profile was at hand: the device decides.
    judged_with: the runtime and version that gave golden outputs and accuracy where `runtime` was not on the host; else
    "".
    drop, drop_low, drop_high: in the metric's points, paired with the source model; None where nothing was evaluated.
    """

    name: Name
    file: str
    format: Literal["onnx", "tflite"]
    precision: Precision
    runtime: str
    profile: str
    inputs: list[Binding]
    outputs: list[Binding]
    rank: int
    tolerance: float
    isa: list[list[str]] = []
    machines: list[str] = []
    memory: int = 0
    min_runtime: str = ""
    provider: str = ""
    speed: Literal["measured", "unmeasured"] = "unmeasured"
    judged_with: str = ""
    metric: Metric | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    agreement: float | None = None
    int8_macs: float | None = None
    latency: list[Latency] = []


class Manifest(Record, frozen=True, kw_only=True):
    """The whole manifest. task: "classification" or "" where unknown; labels: by class index."""

    name: Name
    version: Name
    signature: ModelSignature
    files: dict[str, BlobRef]
    variants: list[Variant]
    task: str = ""
    preprocess: list[Step] = []
    postprocess: list[Step] = []
    labels: list[str] = []
    source: dict[str, str] = {}
    v: int = 1

    def variant(self, name: str) -> Variant:
        """Raises BundleError where there is none of this name."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise BundleError(f"{self.name}: no variant {name!r}; there are {[v.name for v in self.variants]}")


def read_manifest(data: bytes) -> Manifest:
    """Parse and check a manifest.

    Raises:
        BundleError: malformed, an unknown version, an unsafe path, a blob reference out of bounds, a variant whose
            file is not listed, or bindings that do not cover the signature.
    """
    manifest = decode(data, Manifest, what=MANIFEST, limit=MAX_MANIFEST, error=BundleError)
    for path, ref in manifest.files.items():
        if not is_safe_path(path) or path == MANIFEST:
            raise BundleError(f"{MANIFEST}: file path {path!r} is not allowed")
        ref.check(what=f"{MANIFEST}: {path}")
    if GOLDEN not in manifest.files:
        raise BundleError(f"{MANIFEST}: {GOLDEN} is missing from its files")
    for name in files_of(manifest.preprocess):
        if name not in manifest.files:
            raise BundleError(f"{MANIFEST}: preprocessing needs {name!r}, which is not listed")
    if not manifest.variants or len({v.name for v in manifest.variants}) != len(manifest.variants):
        raise BundleError(f"{MANIFEST}: variants must be one or more, each with its own name")
    for variant in manifest.variants:
        _check_variant(manifest, variant)
    return manifest


def _check_variant(manifest: Manifest, variant: Variant) -> None:
    where = f"{MANIFEST}: variant {variant.name}"
    if variant.file not in manifest.files:
        raise BundleError(f"{where}: its file {variant.file!r} is not listed")
    if not 0 < variant.tolerance <= 1:
        raise BundleError(f"{where}: tolerance {variant.tolerance} is not within 0..1")
    _check_bindings(where, manifest.signature.inputs, variant.inputs)
    _check_bindings(where, manifest.signature.outputs, variant.outputs)


def _check_bindings(where: str, specs: list[TensorSpec], bindings: list[Binding]) -> None:
    if sorted(spec.name for spec in specs) != sorted(binding.name for binding in bindings):
        raise BundleError(f"{where}: its bindings do not name the signature's tensors once each")
    ranks = {spec.name: len(spec.shape) for spec in specs}
    for binding in bindings:
        order = binding.permutation
        if order is not None and sorted(order) != list(range(ranks[binding.name])):
            raise BundleError(f"{where}: {binding.name}: {order} is no permutation of its axes")
        if binding.scale is not None and not binding.scale > 0:
            raise BundleError(f"{where}: {binding.name}: scale {binding.scale} is not positive")


def identity(manifest_bytes: bytes) -> str:
    """The bundle's digest."""
    return sha256(manifest_bytes)
