"""Which release of ONNX Runtime loads which file.

Source: the version table in docs/reference/compatibility.md of the onnxruntime project (its gh-pages branch): a
release runs every opset and IR version up to the ones that it was built with. Where its column for the IR version
lags behind its column for the opset (1.15), the later release counts.
"""

from collections.abc import Iterable, Mapping

_OPSETS: Mapping[int, str] = {
    11: "1.0",
    12: "1.3",
    13: "1.6",
    14: "1.8",
    15: "1.9",
    16: "1.11",
    17: "1.12",
    18: "1.14",
    19: "1.15",
    20: "1.17",
    21: "1.18",
}
_IR_VERSIONS: Mapping[int, str] = {3: "1.0", 4: "1.0", 5: "1.0", 6: "1.0", 7: "1.3", 8: "1.9", 9: "1.16", 10: "1.18"}
_NEWEST = "1.21"
"""What is asked for, at least, where the table ends."""
_DOMAINS: Mapping[str, str] = {"": "1.0", "ai.onnx": "1.0", "ai.onnx.ml": "1.0"}
_CONTRIB = "1.17"
"""com.microsoft has one version for ever, and no table of what came when: the release of opset 20 has all that is
written here."""


_OPERATORS: Mapping[str, str] = {
    "CumSum": "1.2",
    "DequantizeLinear": "1.7",
    "MatMulInteger": "1.8",
    "QuantizeLinear": "1.7",
}
"""Operators that releases of their opset lack or get wrong. Measured with the files that are written here, run by the
releases themselves: 1.0 fails in CumSum; 1.6 has no DequantizeLinear of opset 13; with one scale a column, 1.4 computes
wrongly behind MatMulInteger, and 1.5 to 1.7 fail. AveragePool with ceil_mode = 1 differs up to 1.20 in some sizes where
the last window hangs over the edge, at whatever opset; no release is named for it, as most sizes are right."""


def min_runtime(*, opset: int, ir_version: int, operators: Iterable[tuple[str, str]]) -> str:
    """The oldest release of ONNX Runtime, such as "1.12", that runs such a file.

    Args:
        opset: of the standard operators.
        ir_version: of the file.
        operators: domain and type of those in it.
    """
    needed = [_OPSETS.get(max(opset, min(_OPSETS)), _NEWEST), _IR_VERSIONS.get(ir_version, _NEWEST)]
    for domain, op_type in operators:
        needed.append(_DOMAINS.get(domain, _CONTRIB))
        needed += [_OPERATORS[op_type]] if op_type in _OPERATORS else []
    return max(needed, key=_order)


def _order(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
