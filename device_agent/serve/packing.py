"""Unpacking of request bodies, with a limit that holds while it runs. Pure."""

import zlib

from device_agent.serve.errors import PayloadTooLargeError
from lepton_edge.errors import DataError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def unpack(data: bytes, encoding: str, *, limit: int) -> bytes:
    """Undo the Content-Encoding of a body.

    Args:
        data: as it came.
        encoding: gzip, deflate (the zlib format, as RFC 9110 has it), identity or nothing.
        limit: most bytes of the result.

    Raises:
        DataError: an unknown encoding, or not what it claims to be.
        PayloadTooLargeError: the result would be larger than `limit`.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding not in _WINDOW_BITS:
        raise DataError(f"request: Content-Encoding is {encoding[:40]!r}, expected gzip or deflate")
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        result = unpacker.decompress(data, limit + 1)
    except zlib.error as cause:
        raise DataError(f"request: its body is no {encoding} ({cause})") from cause
    if len(result) > limit:
        raise PayloadTooLargeError(f"request: unpacks to more than {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise DataError(f"request: its {encoding} body is cut off, or more follows it")
    return result
