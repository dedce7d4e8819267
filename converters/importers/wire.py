"""A look at a model's bytes before anything parses them: how deep they nest, and how many messages they hold.

A parser makes an object of some hundred bytes of each message, and an empty message is two bytes on the wire: measured,
10 MB of empty nodes become 790 MB. Graphs within graphs end on the parser's stack, or on the checker's.

Source: protobuf encoding, "Message structure"; field numbers of onnx.proto.
"""

from collections.abc import Iterator, Mapping

from lepton_edge.errors import ModelError

MAX_MESSAGES = 2_000_000
"""A network of 100,000 nodes holds about half of these."""
MAX_DEPTH = 64
"""Messages within messages. A nested graph is three of them: this allows 20 graphs within each other."""

_BYTES, _VARINT, _FIXED64, _FIXED32 = 2, 0, 1, 5

_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 8: "leaf", 14: "leaf", 20: "training", 25: "function", 26: "leaf"},
    "training": {1: "graph", 2: "graph", 3: "leaf", 4: "leaf"},
    "graph": {
        1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 14: "annotation", 15: "sparse", 16: "leaf",
    },
    "node": {5: "attribute", 9: "leaf", 10: "leaf"},
    "function": {7: "node", 9: "leaf", 11: "attribute", 12: "value", 14: "leaf"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 14: "type", 15: "type", 22: "sparse", 23: "sparse",
    },
    "tensor": {3: "leaf", 13: "leaf", 16: "leaf"},
    "sparse": {1: "tensor", 2: "tensor"},
    "annotation": {2: "leaf"},
    "value": {2: "type", 4: "leaf"},
    "type": {1: "shaped", 4: "wrapped", 5: "wrapped", 8: "shaped", 9: "wrapped"},
    "wrapped": {1: "type", 2: "type"},
    "shaped": {2: "shape"},
    "shape": {1: "leaf"},
    "leaf": {},
}  # fmt: skip
"""Message fields, by kind of message; "leaf" holds no messages of its own."""


def check_wire(data: bytes, *, where: str) -> None:
    """Refuse what would exhaust memory or stack when it is parsed.

    Raises:
        ModelError: truncated, nested too deeply, or too many messages.
    """
    stack: list[Iterator[tuple[str, int, int]]] = [_messages(data, "model", 0, len(data), where)]
    count = 0
    while stack:
        inner = next(stack[-1], None)
        if inner is None:
            stack.pop()
            continue
        count += 1
        if count > MAX_MESSAGES:
            raise ModelError(f"{where}: damaged or hostile: more than {MAX_MESSAGES} messages in {len(data)} bytes")
        if len(stack) >= MAX_DEPTH:
            raise ModelError(f"{where}: graphs or types within each other, deeper than {MAX_DEPTH // 3} of them")
        kind, start, end = inner
        stack.append(_messages(data, kind, start, end, where))


def _messages(data: bytes, kind: str, start: int, end: int, where: str) -> Iterator[tuple[str, int, int]]:
    """The messages that one message holds: kind, first byte, end."""
    fields = _FIELDS[kind]
    position = start
    while position < end:
        key, position = _varint(data, position, end, where)
        wire, number = key & 7, key >> 3
        if wire == _VARINT:
            _, position = _varint(data, position, end, where)
        elif wire == _BYTES:
            size, position = _varint(data, position, end, where)
            if position + size > end:
                raise _broken(data, where)
            if number in fields:
                yield fields[number], position, position + size
            elif kind == "tensor" and number in _STRINGS:
                yield "leaf", position, position
            position += size
        elif wire in _WIDTHS:
            position += _WIDTHS[wire]
        else:
            raise _broken(data, where)
    if position > end:
        raise _broken(data, where)


_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_STRINGS = {6}
"""string_data of a tensor: each entry is an object too."""


def _varint(data: bytes, position: int, end: int, where: str) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _broken(data, where)


def _broken(data: bytes, where: str) -> ModelError:
    return ModelError(f"{where}: not an ONNX file, or a truncated one ({len(data)} bytes)")
