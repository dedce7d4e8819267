"""What the agent and its test process say to each other: one request, one verdict."""

import io

import numpy as np

from lepton_edge.bundle.golden import Golden, read_golden
from lepton_edge.bundle.manifest import ModelSignature, Variant
from lepton_edge.errors import SelfTestError
from lepton_edge.typed import Record, decode, encode

_MAX_REQUEST = 8 * 1024 * 1024
MAX_VERDICT = 64 * 1024


class Request(Record, frozen=True, kw_only=True):
    """What to examine. file: an absolute path."""

    file: str
    signature: ModelSignature
    variant: Variant
    threads: int


class Verdict(Record, frozen=True, kw_only=True):
    """What came of it.

    code, reason: of the error, empty where the variant passed. memory_bytes: what loading and running took, 0 where
    the system does not tell.
    """

    code: str = ""
    reason: str = ""
    golden_ratio: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    memory_bytes: int = 0


def write_request(request: Request, golden: Golden) -> bytes:
    """The request as a line of JSON, then the golden arrays that it needs, not compressed: speed counts here."""
    arrays = {f"input/{name}": array for name, array in golden.inputs.items()}
    expected = golden.host_outputs.get(request.variant.name, {})
    arrays |= {f"host/{request.variant.name}/{name}": array for name, array in expected.items()}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return encode(request) + b"\n" + out.getvalue()


def read_request(data: bytes) -> tuple[Request, Golden]:
    line, _, arrays = data.partition(b"\n")
    request = decode(line, Request, what="self-test request", limit=_MAX_REQUEST, error=SelfTestError)
    return request, read_golden(arrays)


def read_verdict(data: bytes) -> Verdict:
    """Raises SelfTestError where the process left none that makes sense."""
    return decode(data, Verdict, what="self-test", limit=MAX_VERDICT, error=SelfTestError)
