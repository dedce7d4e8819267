"""Types that ONNX Runtime 1.32 lacks kernels for, and those in which operators on them are made instead."""

from collections.abc import Mapping

_SMALL = {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "int32", "uint16": "int32", "uint32": "int64"}
_LONG = dict.fromkeys((*_SMALL, "int32"), "int64")
_REAL = dict.fromkeys((*_LONG, "int64"), "float64")


def _rows(types: Mapping[str, str], codes: str) -> dict[str, Mapping[str, str]]:
    return dict.fromkeys(codes.split(), types)


WIDE: Mapping[str, Mapping[str, str]] = {
    **_rows(_SMALL, "ABS ADD ARG_MAX ARG_MIN CUMSUM DIV DYNAMIC_UPDATE_SLICE FLOOR_DIV FLOOR_MOD MATRIX_DIAG"),
    **_rows(_SMALL, "MATRIX_SET_DIAG MAXIMUM MEAN MINIMUM MIRROR_PAD MUL ONE_HOT PAD PADV2 POW REDUCE_MAX REDUCE_MIN"),
    **_rows(_SMALL, "REDUCE_PROD SCATTER_ND SELECT SELECT_V2 SIGN SPACE_TO_BATCH_ND SPARSE_TO_DENSE SQUARE"),
    **_rows(_SMALL, "SQUARED_DIFFERENCE SUB SUM TOPK_V2"),
    **_rows(_LONG, "RIGHT_SHIFT SEGMENT_SUM UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD"),
    **_rows(_LONG, "UNSORTED_SEGMENT_SUM"),
    **_rows(_REAL, "DEPTH_TO_SPACE SPACE_TO_DEPTH"),
}
"""Operator -> type of its plain numbers (no steps of a scale) -> the type that it is made in.

Casts back keep the low bits, as the kernels do where a result does not fit.
"""
