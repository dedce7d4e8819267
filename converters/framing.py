"""How protobuf frames a field of bytes: a tag, a length, the contents.

Source: Protocol Buffers, Encoding (base 128 varints; length-delimited records).
"""

_LENGTH_DELIMITED = 2


def frame(number: int, length: int) -> bytes:
    """What stands before `length` bytes of field `number`."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, the top bit set on all but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
