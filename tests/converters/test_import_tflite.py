"""Operators of TFLite, read and run by ONNX Runtime, against LiteRT on the file."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from converters.graph.canonical import canonicalise
from converters.importers import import_model
from converters.importers.tflite.convert import to_onnx
from converters.importers.tflite.ops.recurrent import RECURRENT
from converters.importers.tflite.table import RULES
from converters.measure.teacher import teacher_force
from converters.ort import options
from converters.tflite.model import Operator, Quantization, Signature, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file
from lepton_edge.errors import ModelError, UnsupportedOperatorError
from tests.converters.tflite_ops import SCALE, Case, build, run_litert

RNG = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def i32(*values: object) -> np.ndarray:
    return np.array(values, np.int32)


def scalar(value: float, dtype: str = "float32") -> np.ndarray:
    return np.array(value, dtype)


X = (1, 6, 5, 4)
WINDOW = {"padding": "VALID", "filter_width": 2, "filter_height": 3, "stride_w": 2, "stride_h": 1}
SAME = WINDOW | {"padding": "SAME"}
INT = RNG.integers(-9, 9, (2, 3)).astype(np.int32)
SOME = np.where(INT == 0, 3, INT).astype(np.int32)
BOOL = RNG.random((2, 3)) > 0.5

BOXES = RNG.random((9, 4)).astype(np.float32)
UNARY = ["ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOGISTIC", "NEG", "RELU", "RELU6", "RELU_0_TO_1",
         "RELU_N1_TO_1", "ROUND", "SIGN", "SIN", "SQUARE", "TANH", "LOG_SOFTMAX", "ZEROS_LIKE",
         "L2_NORMALIZATION"]  # fmt: skip
ABOVE = ["LOG", "SQRT", "RSQRT"]
BINARY = ["ADD", "DIV", "FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"]
COMPARE = ["EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"]

CASES: dict[str, Case] = {
    **{code: Case(code, [X], [X]) for code in UNARY},
    **{code: Case(code, [X], [X], positive=True) for code in ABOVE},
    **{code: Case(code, [X, (4,)], [X]) for code in BINARY},
    **{f"{code}, whole": Case(code, [INT, SOME], [(2, 3)], dtypes=["int32"], feeds={0: INT, 1: SOME}) for code in BINARY
       if code != "DIV"},
    **{code: Case(code, [(2, 3), (2, 3)], [(2, 3)], dtypes=["bool"]) for code in COMPARE},
    **{f"ADD with {act}": Case("ADD", [X, X], [X], {"fused_activation_function": act})
       for act in ("RELU", "RELU6", "RELU_N1_TO_1")},
    "ADD_N": Case("ADD_N", [X, X, X], [X]),
    "POW": Case("POW", [X, X], [X], positive=True),
    "LOGICAL_AND": Case("LOGICAL_AND", [BOOL, BOOL], [(2, 3)], dtypes=["bool"], feeds={0: BOOL, 1: ~BOOL}),
    "LOGICAL_OR": Case("LOGICAL_OR", [BOOL, BOOL], [(2, 3)], dtypes=["bool"], feeds={0: BOOL, 1: ~BOOL}),
    "LOGICAL_NOT": Case("LOGICAL_NOT", [BOOL], [(2, 3)], dtypes=["bool"], feeds={0: BOOL}),
    "BITWISE_XOR": Case("BITWISE_XOR", [INT, INT], [(2, 3)], dtypes=["int32"], feeds={0: INT, 1: SOME}),
    "PRELU": Case("PRELU", [X, f32(1, 1, 4)], [X]),
    "LEAKY_RELU": Case("LEAKY_RELU", [X], [X], {"alpha": 0.2}),
    "GELU": Case("GELU", [X], [X]),
    "GELU, approximate": Case("GELU", [X], [X], {"approximate": True}),
    "SOFTMAX": Case("SOFTMAX", [X], [X], {"beta": 0.5}),
    "LOCAL_RESPONSE_NORMALIZATION": Case(
        "LOCAL_RESPONSE_NORMALIZATION", [(1, 3, 3, 8)], [(1, 3, 3, 8)],
        {"radius": 2, "bias": 1.5, "alpha": 0.3, "beta": 0.7},
    ),
    "CAST": Case("CAST", [X], [X], {"in_data_type": "float32", "out_data_type": "int32"}, dtypes=["int32"]),
    "CAST to bool": Case("CAST", [INT], [(2, 3)], {"in_data_type": "int32", "out_data_type": "bool"}, dtypes=["bool"],
                         feeds={0: INT}),
    "SELECT": Case("SELECT", [BOOL, (2, 3), (2, 3)], [(2, 3)], feeds={0: BOOL}),
    "SELECT by rows": Case("SELECT", [BOOL[0], (3, 2), (3, 2)], [(3, 2)], feeds={0: BOOL[0]}),
    "SELECT_V2": Case("SELECT_V2", [BOOL, (2, 3), (3,)], [(2, 3)], feeds={0: BOOL}),
    "CONV_2D": Case("CONV_2D", [X, f32(7, 3, 2, 4), f32(7)], [(1, 3, 5, 7)],
                    {"padding": "SAME", "stride_h": 2, "stride_w": 1, "fused_activation_function": "RELU6"}),
    "CONV_2D, valid": Case("CONV_2D", [X, f32(7, 3, 2, 4), f32(7)], [(1, 4, 4, 7)], {"padding": "VALID"}),
    "CONV_2D, dilated": Case("CONV_2D", [X, f32(2, 3, 3, 4), f32(2)], [(1, 6, 5, 2)],
                             {"padding": "SAME", "dilation_h_factor": 2, "dilation_w_factor": 1}),
    "CONV_2D, grouped": Case("CONV_2D", [X, f32(6, 3, 3, 2), f32(6)], [(1, 6, 5, 6)], {"padding": "SAME"}),
    "DEPTHWISE_CONV_2D": Case("DEPTHWISE_CONV_2D", [X, f32(1, 3, 3, 4), f32(4)], [(1, 3, 3, 4)],
                              {"padding": "SAME", "stride_h": 2, "stride_w": 2, "depth_multiplier": 1}),
    "DEPTHWISE_CONV_2D, multiplied": Case("DEPTHWISE_CONV_2D", [X, f32(1, 3, 3, 8), f32(8)], [(1, 4, 3, 8)],
                                          {"padding": "VALID", "depth_multiplier": 2}),
    "TRANSPOSE_CONV": Case("TRANSPOSE_CONV", [i32(1, 12, 10, 3), f32(3, 3, 3, 4), X, f32(3)], [(1, 12, 10, 3)],
                           {"padding": "SAME", "stride_h": 2, "stride_w": 2}),
    "TRANSPOSE_CONV, valid": Case("TRANSPOSE_CONV", [i32(1, 13, 11, 3), f32(3, 3, 3, 4), X], [(1, 13, 11, 3)],
                                  {"padding": "VALID", "stride_h": 2, "stride_w": 2}),
    "TRANSPOSE_CONV, longer": Case("TRANSPOSE_CONV", [i32(1, 14, 12, 3), f32(3, 3, 3, 4), X], [(1, 14, 12, 3)],
                                   {"padding": "VALID", "stride_h": 2, "stride_w": 2}),
    **{f"TRANSPOSE_CONV of a computed shape, {padding}, {size}": Case(
        "TRANSPOSE_CONV", [i32(1, *size, 3), f32(3, 3, 3, 4), X, f32(3)], [(1, *size, 3)],
        {"padding": padding, "stride_h": 2, "stride_w": 2}, feeds={0: i32(1, *size, 3)})
       for padding, size in (("SAME", (12, 10)), ("SAME", (11, 9)), ("VALID", (13, 11)), ("VALID", (14, 12)))},
    "CONV_3D_TRANSPOSE": Case(
        "CONV_3D_TRANSPOSE", [i32(1, 8, 6, 5, 5), f32(3, 3, 2, 5, 2), (1, 4, 3, 5, 2), f32(5)], [(1, 8, 6, 5, 5)],
        {"padding": "SAME", "stride_d": 2, "stride_h": 2, "stride_w": 1}),
    "CONV_3D": Case("CONV_3D", [(1, 4, 6, 5, 2), f32(3, 3, 2, 2, 5), f32(5)], [(1, 2, 3, 5, 5)],
                    {"padding": "SAME", "stride_d": 2, "stride_h": 2, "stride_w": 1}),
    "FULLY_CONNECTED": Case("FULLY_CONNECTED", [(2, 6), f32(5, 6), f32(5)], [(2, 5)],
                            {"fused_activation_function": "RELU"}),
    "FULLY_CONNECTED, flattening": Case("FULLY_CONNECTED", [(2, 3, 6), f32(5, 6), None], [(6, 5)]),
    "FULLY_CONNECTED, keeping axes": Case("FULLY_CONNECTED", [(2, 3, 6), f32(5, 6), f32(5)], [(2, 3, 5)],
                                          {"keep_num_dims": True}),
    "BATCH_MATMUL": Case("BATCH_MATMUL", [(2, 3, 4), (2, 4, 5)], [(2, 3, 5)]),
    "BATCH_MATMUL, turned": Case("BATCH_MATMUL", [(2, 4, 3), (2, 5, 4)], [(2, 3, 5)], {"adj_x": True, "adj_y": True}),
    "MAX_POOL_2D": Case("MAX_POOL_2D", [X], [(1, 4, 2, 4)], WINDOW),
    "MAX_POOL_2D, same": Case("MAX_POOL_2D", [X], [(1, 6, 3, 4)], SAME),
    "AVERAGE_POOL_2D": Case("AVERAGE_POOL_2D", [X], [(1, 4, 2, 4)], WINDOW),
    "AVERAGE_POOL_2D, same": Case("AVERAGE_POOL_2D", [X], [(1, 6, 3, 4)], SAME),
    "L2_POOL_2D": Case("L2_POOL_2D", [X], [(1, 4, 2, 4)], WINDOW),
    "RESHAPE": Case("RESHAPE", [X, i32(1, -1, 8)], [(1, 15, 8)]),
    "SQUEEZE": Case("SQUEEZE", [(1, 3, 1, 4)], [(1, 3, 4)], {"squeeze_dims": [2]}),
    "EXPAND_DIMS": Case("EXPAND_DIMS", [(2, 3), i32(-1)], [(2, 3, 1)]),
    "TRANSPOSE": Case("TRANSPOSE", [X, i32(2, 0, 3, 1)], [(5, 1, 4, 6)]),
    "CONCATENATION": Case("CONCATENATION", [X, (1, 6, 5, 2)], [(1, 6, 5, 6)], {"axis": -1}),
    "PACK": Case("PACK", [(2, 3), (2, 3)], [(2, 2, 3)], {"axis": 1, "values_count": 2}),
    "UNPACK": Case("UNPACK", [(2, 3)], [(2,)] * 3, {"axis": 1, "num": 3}),
    "SPLIT": Case("SPLIT", [scalar(2, "int32"), (2, 3, 4)], [(2, 3, 2)] * 2, {"num_splits": 2}),
    "SPLIT_V": Case("SPLIT_V", [(2, 6), i32(1, -1, 2), scalar(1, "int32")], [(2, 1), (2, 3), (2, 2)],
                    {"num_splits": 3}),
    "SLICE": Case("SLICE", [X, i32(0, 1, 2, 0), i32(1, 3, -1, 2)], [(1, 3, 3, 2)]),
    "SLICE at a computed place": Case("SLICE", [(4, 6), i32(1, 2), i32(2, -1)], [(2, 4)], feeds={1: i32(1, 2)}),
    "STRIDED_SLICE": Case("STRIDED_SLICE", [X, i32(0, 1, 0, 3), i32(1, 6, 0, 0), i32(1, 2, 1, -1)], [(1, 3, 5, 3)],
                          {"end_mask": 4, "begin_mask": 4}),
    "STRIDED_SLICE, shrinking": Case("STRIDED_SLICE", [X, i32(0, -1), i32(1, 0), i32(1, 1)], [(1, 5, 4)],
                                     {"shrink_axis_mask": 2}),
    "STRIDED_SLICE at a computed place": Case(
        "STRIDED_SLICE", [X, i32(0, -1), i32(1, 0), i32(1, 1)], [(1, 5, 4)], {"shrink_axis_mask": 2},
        feeds={1: i32(0, -1), 2: i32(1, 0)}),
    "STRIDED_SLICE from the begin on": Case("STRIDED_SLICE", [(5,), i32(1), i32(3), i32(1)], [(3,)], {"offset": True}),
    "STRIDED_SLICE with an ellipsis": Case(
        "STRIDED_SLICE", [X, i32(0, 0, 1), i32(0, 0, 3), i32(1, 1, 1)], [(1, 1, 6, 5, 2)],
        {"new_axis_mask": 1, "ellipsis_mask": 2}),
    "PAD": Case("PAD", [X, i32((0, 0), (1, 2), (0, 3), (1, 0))], [(1, 9, 8, 5)]),
    "PADV2": Case("PADV2", [X, i32((0, 0), (1, 2), (0, 3), (1, 0)), scalar(2.5)], [(1, 9, 8, 5)]),
    "MIRROR_PAD, reflect": Case("MIRROR_PAD", [X, i32((0, 0), (1, 2), (0, 3), (1, 0))], [(1, 9, 8, 5)],
                                {"mode": "REFLECT"}),
    "MIRROR_PAD, symmetric": Case("MIRROR_PAD", [X, i32((0, 0), (1, 2), (0, 3), (1, 0))], [(1, 9, 8, 5)],
                                  {"mode": "SYMMETRIC"}),
    "TILE": Case("TILE", [(2, 3), i32(2, 3)], [(4, 9)]),
    "BROADCAST_TO": Case("BROADCAST_TO", [(1, 3), i32(4, 2, 3)], [(4, 2, 3)]),
    "FILL": Case("FILL", [i32(2, 3), scalar(0)], [(2, 3)], feeds={1: scalar(1.5)}),
    "SHAPE": Case("SHAPE", [X], [(4,)], {"out_type": "int32"}, dtypes=["int32"]),
    "RANK": Case("RANK", [X], [()], dtypes=["int32"]),
    "RANGE": Case("RANGE", [scalar(1, "int32"), scalar(9, "int32"), scalar(3, "int32")], [(3,)], dtypes=["int32"],
                  feeds={0: scalar(1, "int32")}),
    "REVERSE_V2": Case("REVERSE_V2", [X, i32(2)], [X]),
    "REVERSE_SEQUENCE": Case("REVERSE_SEQUENCE", [(3, 4, 2), i32(2, 4, 1)], [(3, 4, 2)], {"seq_dim": 1}),
    "DEPTH_TO_SPACE": Case("DEPTH_TO_SPACE", [(1, 2, 3, 8)], [(1, 4, 6, 2)], {"block_size": 2}),
    "SPACE_TO_DEPTH": Case("SPACE_TO_DEPTH", [(1, 4, 6, 2)], [(1, 2, 3, 8)], {"block_size": 2}),
    "SPACE_TO_BATCH_ND": Case("SPACE_TO_BATCH_ND", [(1, 5, 4, 3), i32(2, 3), i32((0, 1), (1, 1))], [(6, 3, 2, 3)]),
    "BATCH_TO_SPACE_ND": Case("BATCH_TO_SPACE_ND", [(6, 3, 2, 3), i32(2, 3), i32((0, 1), (1, 1))], [(1, 5, 4, 3)]),
    "MEAN": Case("MEAN", [X, i32(1, 2)], [(1, 4)]),
    "MEAN, keeping": Case("MEAN", [X, i32(1, 2)], [(1, 1, 1, 4)], {"keep_dims": True}),
    "SUM": Case("SUM", [X, i32(-1)], [(1, 6, 5)]),
    "REDUCE_MAX": Case("REDUCE_MAX", [X, i32(2)], [(1, 6, 4)]),
    "REDUCE_MIN": Case("REDUCE_MIN", [X, i32(2)], [(1, 6, 4)]),
    "REDUCE_PROD": Case("REDUCE_PROD", [X, i32(2)], [(1, 6, 4)]),
    "REDUCE_ANY": Case("REDUCE_ANY", [BOOL, i32(1)], [(2,)], dtypes=["bool"], feeds={0: BOOL}),
    "REDUCE_ALL": Case("REDUCE_ALL", [BOOL, i32(1)], [(2,)], dtypes=["bool"], feeds={0: BOOL}),
    "ARG_MAX": Case("ARG_MAX", [X, i32(3)], [(1, 6, 5)], {"output_type": "int32"}, dtypes=["int32"]),
    "ARG_MIN": Case("ARG_MIN", [X, i32(1)], [(1, 5, 4)], {"output_type": "int64"}, dtypes=["int64"]),
    "TOPK_V2": Case("TOPK_V2", [(2, 7), scalar(3, "int32")], [(2, 3), (2, 3)], dtypes=["float32", "int32"]),
    "GATHER": Case("GATHER", [(4, 5), i32(3, 0, 1)], [(4, 3)], {"axis": 1}),
    "GATHER, batches": Case("GATHER", [(2, 5, 3), i32((3, 0), (1, 4))], [(2, 2, 3)], {"axis": 1, "batch_dims": 1}),
    "EMBEDDING_LOOKUP": Case("EMBEDDING_LOOKUP", [i32(3, 0, 1), f32(4, 5)], [(3, 5)], feeds={0: i32(3, 0, 1)}),
    "GATHER_ND": Case("GATHER_ND", [(4, 5), i32((3, 0), (1, 1))], [(2,)]),
    "SCATTER_ND": Case("SCATTER_ND", [i32((3,), (0,), (3,)), (3, 2), i32(5, 2)], [(5, 2)]),
    "WHERE": Case("WHERE", [BOOL], [(2, 2)], dtypes=["int64"], feeds={0: BOOL}),
    "ONE_HOT": Case("ONE_HOT", [i32(2, 0, 7, -1), scalar(3, "int32"), scalar(5.0), scalar(-1.0)], [(4, 3)],
                    {"axis": -1}, feeds={0: i32(2, 0, 7, -1)}),
    "CUMSUM": Case("CUMSUM", [(2, 5), scalar(1, "int32")], [(2, 5)], {"exclusive": True, "reverse": True}),
    "DYNAMIC_UPDATE_SLICE": Case("DYNAMIC_UPDATE_SLICE", [(4, 5), (2, 3), i32(1, 4)], [(4, 5)], feeds={2: i32(1, 4)}),
    "ATAN2": Case("ATAN2", [X, X], [X]),
    "BROADCAST_ARGS": Case("BROADCAST_ARGS", [i32(3, 1), i32(2, 1, 4)], [(3,)], dtypes=["int32"],
                           feeds={0: i32(3, 1), 1: i32(2, 1, 4)}),
    "BUCKETIZE": Case("BUCKETIZE", [(20,)], [(20,)], {"boundaries": [-1.0, 0.0, 0.5]}, dtypes=["int32"]),
    "FAKE_QUANT": Case("FAKE_QUANT", [X], [X], {"min": -1.0, "max": 2.0, "num_bits": 4}),
    "MATRIX_DIAG": Case("MATRIX_DIAG", [(2, 4)], [(2, 4, 4)]),
    "MATRIX_SET_DIAG": Case("MATRIX_SET_DIAG", [(5, 3), (3,)], [(5, 3)]),
    "NON_MAX_SUPPRESSION_V4": Case(
        "NON_MAX_SUPPRESSION_V4", [BOXES, (9,), scalar(6, "int32"), scalar(0.4), scalar(0.1)], [(6,), ()],
        dtypes=["int32", "int32"], feeds={0: BOXES}, positive=True),
    "NON_MAX_SUPPRESSION_V5": Case(
        "NON_MAX_SUPPRESSION_V5", [BOXES, (9,), scalar(6, "int32"), scalar(0.4), scalar(0.1), scalar(0.0)],
        [(6,), (6,), ()], dtypes=["int32", "float32", "int32"], feeds={0: BOXES}, positive=True),
    "RESHAPE to a scalar": Case("RESHAPE", [(1,), np.zeros(0, np.int32)], [()]),
    "REVERSE_SEQUENCE along the last": Case("REVERSE_SEQUENCE", [(2, 4, 3), i32(2, 4, 1)], [(2, 4, 3)],
                                            {"seq_dim": 1, "batch_dim": 2}),
    "RIGHT_SHIFT": Case("RIGHT_SHIFT", [INT, np.abs(INT) % 3], [(2, 3)], dtypes=["int32"],
                        feeds={0: INT, 1: np.abs(INT) % 3}),
    "SEGMENT_SUM": Case("SEGMENT_SUM", [(5, 3), i32(0, 0, 1, 2, 2)], [(3, 3)]),
    **{f"UNSORTED_SEGMENT_{how}": Case(f"UNSORTED_SEGMENT_{how}", [(5, 3), i32(2, 0, 1, 0, -1), scalar(4, "int32")],
                                       [(4, 3)]) for how in ("MAX", "MIN", "PROD", "SUM")},
    "SELECT_V2 of what is true": Case("SELECT_V2", [BOOL, BOOL, ~BOOL], [(2, 3)], dtypes=["bool"],
                                      feeds={0: BOOL, 1: BOOL, 2: ~BOOL}),
    "SPARSE_TO_DENSE": Case("SPARSE_TO_DENSE", [i32((0, 1), (2, 3)), i32(3, 4), (2,), scalar(0.5)], [(3, 4)]),
    **{f"STABLEHLO_{how}": Case(f"STABLEHLO_{how}", [X, X], [X]) for how in ("ADD", "MAXIMUM", "MINIMUM", "MULTIPLY")},
    "STABLEHLO_AND": Case("STABLEHLO_AND", [BOOL, BOOL], [(2, 3)], dtypes=["bool"], feeds={0: BOOL, 1: ~BOOL}),
    "UNIQUE": Case("UNIQUE", [i32(3, 1, 3, 2, 1)], [(3,), (5,)], {"idx_out_type": "int32"}, dtypes=["int32", "int32"],
                   feeds={0: i32(3, 1, 3, 2, 1)}),
    **{f"RESIZE_BILINEAR {how}": Case("RESIZE_BILINEAR", [X, i32(11, 8)], [(1, 11, 8, 4)], {how: True} if how else {})
       for how in ("", "align_corners", "half_pixel_centers")},
    **{f"RESIZE_NEAREST_NEIGHBOR {how} to {size}": Case(
        "RESIZE_NEAREST_NEIGHBOR", [X, i32(*size)], [(1, *size, 4)], {how: True} if how else {})
       for how in ("", "align_corners", "half_pixel_centers") for size in ((11, 8), (12, 10), (3, 5))},
}  # fmt: skip


def run_onnx(model: onnx.ModelProto, feeds: dict[str, np.ndarray], *, optimise: bool = True) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    how = options(threads=1, optimise=optimise)
    session = onnxruntime.InferenceSession(model.SerializeToString(), how, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: array for name, array in feeds.items() if name in wanted})


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_litert_computes(name: str, tmp_path: Path) -> None:
    model, feeds = build(CASES[name])
    want = run_litert(model, feeds, tmp_path)
    got = run_onnx(to_onnx(model, where=name), feeds)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6)


STEPS = ["ABS", "ADD", "ADD with RELU6", "AVERAGE_POOL_2D", "AVERAGE_POOL_2D, same", "BATCH_MATMUL", "CONCATENATION",
         "DEPTH_TO_SPACE", "ELU", "GATHER", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D",
         "MAX_POOL_2D, same", "MEAN", "MEAN, keeping", "MUL", "PACK", "PAD", "RELU", "RESHAPE",
         "RESIZE_BILINEAR half_pixel_centers", "RESIZE_NEAREST_NEIGHBOR  to (12, 10)", "SLICE", "SPACE_TO_DEPTH",
         "SPLIT", "SPLIT_V", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE",
         "UNPACK"]  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_an_operator_on_int8_is_within_a_step_of_litert(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, feeds = build(case, steps=True)
    if case.code in {"LOGISTIC", "TANH"}:
        fixed = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}[case.code]
        model = rescaled(model, *fixed)
    if case.code == "SUM":
        model = rescaled(model, 0.3, 5)
    (want, *_), (got, *_) = run_litert(model, feeds, tmp_path), run_onnx(to_onnx(model, where=name), feeds)
    assert got.dtype == np.int8
    assert np.max(np.abs(want.astype(int) - got)) <= 1
    assert np.mean(want == got) > 0.9


def rescaled(model: TfliteModel, scale: float, point: int) -> TfliteModel:
    """With other steps for the output."""
    main = model.main
    quantization = Quantization(np.array([scale], np.float32), np.array([point], np.int64))
    tensors = list(main.tensors)
    last = main.outputs[0]
    tensors[last] = Tensor(tensors[last].name, tensors[last].shape, "int8", quantization=quantization)
    return TfliteModel([Subgraph("main", tensors, main.operators, main.inputs, main.outputs)])


def test_every_operator_that_is_read_is_tested() -> None:
    tested = {case.code for case in CASES.values()}
    elsewhere = {"DEQUANTIZE", "QUANTIZE", "IF", "WHILE", "STABLEHLO_COMPOSITE", *RECURRENT}
    assert set(RULES) - tested - elsewhere == set()


FLOAT = [name for name, case in CASES.items() if "RANGE" not in name]


@pytest.mark.parametrize("name", FLOAT)
def test_the_canonical_form_computes_the_same(name: str) -> None:
    model, feeds = build(CASES[name])
    plain = to_onnx(model, where=name)
    want, got = run_onnx(plain, feeds), run_onnx(ir.to_proto(canonicalise(plain, where=name)), feeds)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6)


def whole(
    operators: list[Operator], tensors: list[Tensor], inputs: tuple[int, ...] = (0,), **more: object
) -> TfliteModel:
    """A file whose output is its last tensor."""
    return TfliteModel([Subgraph("main", tensors, operators, inputs, (len(tensors) - 1,))], **more)


def conv_net(*, batch: int | None = None, half: bool = False) -> TfliteModel:
    """Three convolutions with what lies between them in nets: an activation, a sum, padding, a slope a channel."""
    opened = None if batch else -1
    kind = "float16" if half else "float32"

    def seen(name: str, *shape: int) -> Tensor:
        return Tensor(name, (1, *shape), "float32", signature=opened and (opened, *shape))

    tensors = [
        seen("image", 8, 8, 4), Tensor("w", (4, 3, 3, 4), kind, data=f32(4, 3, 3, 4).astype(kind)),
        Tensor("b", (4,), "float32", data=f32(4)), seen("first", 8, 8, 4), seen("slope", 8, 8, 4),
        Tensor("alpha", (1, 1, 4), "float32", data=f32(1, 1, 4)), seen("second", 8, 8, 4), seen("sum", 8, 8, 4),
        Tensor("pads", (4, 2), "int32", data=i32((0, 0), (1, 1), (1, 1), (0, 0))), seen("padded", 10, 10, 4),
        seen("third", 8, 8, 4), Tensor("axes", (2,), "int32", data=i32(1, 2)), seen("mean", 4),
    ]  # fmt: skip
    weights = 1
    operators = []
    if half:
        tensors.insert(0, Tensor("wide", (4, 3, 3, 4), "float32"))
        operators.append(Operator("DEQUANTIZE", (2,), (0,)))
    at = int(half)
    weights = 0 if half else 1
    operators += [
        Operator("CONV_2D", (at, weights, at + 2), (at + 3,), {"padding": "SAME"}),
        Operator("PRELU", (at + 3, at + 5), (at + 4,)),
        Operator("CONV_2D", (at + 4, weights, at + 2), (at + 6,), {"padding": "SAME"}),
        Operator("ADD", (at + 4, at + 6), (at + 7,), {"fused_activation_function": "RELU"}),
        Operator("PAD", (at + 7, at + 8), (at + 9,)),
        Operator("CONV_2D", (at + 9, weights, at + 2), (at + 10,), {"padding": "VALID"}),
        Operator("MEAN", (at + 10, at + 11), (at + 12,)),
    ]
    return whole(operators, tensors, (at,))


def saved(model: TfliteModel, path: Path) -> Path:
    write_file(model, path)
    return path


def test_a_net_has_no_transposes_between_its_layers(tmp_path: Path) -> None:
    source = import_model(saved(conv_net(), tmp_path / "net.tflite"))
    kinds = [node.op_type for node in source.model.graph.node]
    assert kinds == ["Transpose", "Conv", "PRelu", "Conv", "Add", "Relu", "Pad", "Conv", "ReduceMean"]
    (given,) = source.signature.inputs
    assert (given.name, given.shape, given.layout, given.dtype) == ("image", ["batch", 8, 8, 4], "NHWC", "float32")
    assert source.format == "tflite"
    assert source.original == tmp_path / "net.tflite"
    assert source.reference is not None


def test_float16_weights_are_held_as_float32(tmp_path: Path) -> None:
    source = import_model(saved(conv_net(half=True), tmp_path / "net.tflite"))
    assert [note for note in source.notes if "float16" in note]
    assert {tensor.data_type for tensor in source.model.graph.initializer} <= {1, 7}
    assert "Cast" not in {node.op_type for node in source.model.graph.node}


def test_a_file_that_takes_one_sample_says_so(tmp_path: Path) -> None:
    tensors = [
        Tensor("x", (1, 2, 3), "float32", signature=(-1, 2, 3)),
        Tensor("shape", (2,), "int32", data=i32(1, 6)),
        Tensor("y", (1, 6), "float32", signature=(-1, 6)),
    ]
    model = whole([Operator("RESHAPE", (0, 1), (2,))], tensors)
    source = import_model(saved(model, tmp_path / "net.tflite"))
    assert source.signature.inputs[0].shape == [1, 2, 3]
    assert [note for note in source.notes if "read with the sizes that it holds" in note]


def test_names_are_those_of_the_signature(tmp_path: Path) -> None:
    model, _ = build(CASES["ADD"])
    named = TfliteModel(model.subgraphs, signatures=[Signature("run", {"a": 0, "b": 1}, {"sum": 2})])
    source = import_model(saved(named, tmp_path / "net.tflite"))
    assert [spec.name for spec in source.signature.inputs] == ["a", "b"]
    assert [spec.name for spec in source.signature.outputs] == ["sum"]


def test_int8_stays_int8_with_the_scales_of_the_file(tmp_path: Path) -> None:
    model, _ = build(CASES["ADD"], steps=True)
    source = import_model(saved(model, tmp_path / "net.tflite"))
    assert [spec.dtype for spec in (*source.signature.inputs, *source.signature.outputs)] == ["int8"] * 3
    assert [node.op_type for node in source.model.graph.node] == ["DequantizeLinear"] * 2 + ["Add", "QuantizeLinear"]
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in source.model.graph.initializer}
    for node in source.model.graph.node:
        if node.op_type.endswith("Linear"):
            assert (values[node.input[1]], values[node.input[2]]) == (SCALE.scale[0], SCALE.zero_point[0])


def int8_layer(
    code: str, shape: tuple[int, ...], weights: tuple[int, ...], out: tuple[int, ...], axis: int
) -> TfliteModel:
    """int8 in and out, weights with a scale for each channel, an int32 bias at input x weight scale."""
    count = weights[axis]
    scales = (0.01 + 0.02 * RNG.random(count)).astype(np.float32)
    steps = Quantization(np.array([0.4], np.float32), np.array([3], np.int64))
    per_channel = Quantization(scales, np.zeros(count, np.int64), axis)
    bias = Quantization(scales * np.float32(0.05), np.zeros(count, np.int64))
    whole_numbers = RNG.integers(-127, 128, weights).astype(np.int8)
    tensors = [
        Tensor("x", shape, "int8", quantization=SCALE),
        Tensor("w", weights, "int8", quantization=per_channel, data=whole_numbers),
        Tensor("b", (count,), "int32", quantization=bias, data=RNG.integers(-900, 900, count).astype(np.int32)),
        Tensor("y", out, "int8", quantization=steps),
    ]
    options = {"padding": "SAME"} if "CONV" in code else {}
    version = 12 if code == "FULLY_CONNECTED" else 3
    return whole([Operator(code, (0, 1, 2), (3,), options, version)], tensors)


LAYERS = {
    "CONV_2D": int8_layer("CONV_2D", X, (7, 3, 3, 4), (1, 6, 5, 7), 0),
    "DEPTHWISE_CONV_2D": int8_layer("DEPTHWISE_CONV_2D", X, (1, 3, 3, 4), X, 3),
    "FULLY_CONNECTED": int8_layer("FULLY_CONNECTED", (3, 9), (5, 9), (3, 5), 0),
}


@pytest.mark.parametrize("code", LAYERS)
def test_int8_layers_equal_xnnpack_in_every_step(code: str) -> None:
    model = LAYERS[code]
    inputs = [{"x": RNG.integers(-128, 128, model.main.tensors[0].shape).astype(np.int8)} for _ in range(4)]
    (taught,) = teacher_force(model, inputs)
    assert (taught.code, taught.steps) == (code, 0)
    (builtin,) = teacher_force(model, inputs, kernels="builtin")
    assert builtin.steps <= 1


def test_a_wrong_scale_is_seen_by_the_teacher() -> None:
    model = LAYERS["CONV_2D"]
    inputs = [{"x": RNG.integers(-128, 128, X).astype(np.int8)}]
    (right,) = teacher_force(model, inputs)
    wrong = rescaled(model, 0.41, 3)
    assert right.steps < teacher_against(model, wrong, inputs)


def teacher_against(model: TfliteModel, other: TfliteModel, inputs: list[dict[str, np.ndarray]]) -> int:
    """Steps between what one file computes and what is read from another."""
    got = [run_onnx(to_onnx(one, where="net"), inputs[0])[0].astype(int) for one in (model, other)]
    return int(np.max(np.abs(got[0] - got[1])))


def test_dequantised_there_are_no_steps_left() -> None:
    graph = to_onnx(LAYERS["CONV_2D"], where="net", real=True)
    assert not {node.op_type for node in graph.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    assert {tensor.data_type for tensor in graph.graph.initializer} == {1}
    steps = RNG.integers(-128, 128, X).astype(np.int8)
    real = ((steps.astype(np.float32) + 7) * np.float32(0.05)).astype(np.float32)
    (want,), (got,) = run_onnx(to_onnx(LAYERS["CONV_2D"], where="net"), {"x": steps}), run_onnx(graph, {"x": real})
    inside = np.abs(want.astype(int)) < 120
    np.testing.assert_allclose(got[inside], (want[inside].astype(np.float32) - 3) * 0.4, atol=0.21)


def test_weights_of_int8_beside_float_activations_are_what_they_say(tmp_path: Path) -> None:
    weights = RNG.integers(-127, 128, (5, 40)).astype(np.int8)
    scale = Quantization(np.array([0.02], np.float32), np.zeros(1, np.int64))
    tensors = [
        Tensor("x", (1, 40), "float32"), Tensor("w", (5, 40), "int8", quantization=scale, data=weights),
        Tensor("b", (5,), "float32", data=f32(5)), Tensor("y", (1, 5), "float32"),
    ]  # fmt: skip
    model = whole([Operator("FULLY_CONNECTED", (0, 1, 2), (3,), {}, 3)], tensors)
    source = import_model(saved(model, tmp_path / "net.tflite"))
    x = f32(1, 40)
    (got,) = run_onnx(source.model, {"x": x}, optimise=False)
    np.testing.assert_allclose(got, x @ (weights.T * np.float32(0.02)) + tensors[2].data, rtol=1e-4, atol=1e-5)
    assert [note for note in source.notes if "int8" in note]


def body(code: str, value: float) -> Subgraph:
    tensors = [
        Tensor("x", (2,), "float32"), Tensor("c", (), "float32", data=scalar(value)), Tensor("y", (2,), "float32"),
    ]  # fmt: skip
    return Subgraph(code, tensors, [Operator(code, (0, 1), (2,))], (0,), (2,))


def test_if_runs_one_of_two_subgraphs(tmp_path: Path) -> None:
    tensors = [Tensor("c", (1,), "bool"), Tensor("x", (2,), "float32"), Tensor("y", (2,), "float32")]
    choose = Operator("IF", (0, 1), (2,), {"then_subgraph_index": 1, "else_subgraph_index": 2})
    model = TfliteModel([Subgraph("main", tensors, [choose], (0, 1), (2,)), body("ADD", 3.0), body("MUL", 5.0)])
    for condition in (True, False):
        feeds = {"c": np.array([condition]), "x": f32(2)}
        (want,), (got,) = run_litert(model, feeds, tmp_path), run_onnx(to_onnx(model, where="net"), feeds)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_while_runs_as_often_as_its_condition_says(tmp_path: Path) -> None:
    tensors = [Tensor("x", (2,), "float32"), Tensor("y", (2,), "float32")]
    loop = Operator("WHILE", (0,), (1,), {"cond_subgraph_index": 1, "body_subgraph_index": 2})
    condition = Subgraph(
        "cond",
        [Tensor("x", (2,), "float32"), Tensor("axis", (1,), "int32", data=i32(0)), Tensor("sum", (), "float32"),
         Tensor("c", (), "float32", data=scalar(100.0)), Tensor("less", (), "bool")],
        [Operator("SUM", (0, 1), (2,)), Operator("LESS", (2, 3), (4,))], (0,), (4,),
    )  # fmt: skip
    model = TfliteModel([Subgraph("main", tensors, [loop], (0,), (1,)), condition, body("ADD", 7.0)])
    for start in (0.0, 90.0, 200.0):
        feeds = {"x": np.full(2, start, np.float32)}
        (want,), (got,) = run_litert(model, feeds, tmp_path), run_onnx(to_onnx(model, where="net"), feeds)
        np.testing.assert_allclose(got, want)


def test_a_composite_is_read_by_its_parts() -> None:
    tensors = [Tensor("x", (2,), "float32"), Tensor("y", (2,), "float32")]
    named = Operator("STABLEHLO_COMPOSITE", (0,), (1,), {"name": "three.more", "decomposition_subgraph_index": 1})
    model = TfliteModel([Subgraph("main", tensors, [named], (0,), (1,)), body("ADD", 3.0)])
    (got,) = run_onnx(to_onnx(model, where="net"), {"x": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(got, [3.0, 3.0])


def test_all_that_cannot_be_read_is_named_at_once(tmp_path: Path) -> None:
    tensors = [Tensor(name, (2,), "float32") for name in ("x", "first", "second", "third")]
    tensors.insert(3, Tensor("handle", (), "resource"))
    operators = [
        Operator("CUSTOM", (0,), (1,), custom="MyOwn"),
        Operator("VAR_HANDLE", (), (3,), {"container": "", "shared_name": "s"}),
        Operator("READ_VARIABLE", (3,), (2,)),
        Operator("ADD", (1, 2), (4,)),
    ]
    with pytest.raises(UnsupportedOperatorError, match="3 operators cannot be read") as error:
        import_model(saved(whole(operators, tensors), tmp_path / "net.tflite"))
    for words in ("net.tflite", "operator 0 (MyOwn, gives 'first')", "operator 1 (VAR_HANDLE", "operator 2 (READ_VAR"):
        assert words in str(error.value)
    assert error.value.operator == "MyOwn"


def test_uses_of_operators_that_cannot_be_read_are_named_at_once(tmp_path: Path) -> None:
    tensors = [
        Tensor("x", (2, 3), "float32"), Tensor("perm", (2,), "int32"), Tensor("a", (3, 2), "float32"),
        Tensor("b", (3, 2), "float32"),
    ]  # fmt: skip
    operators = [Operator("TRANSPOSE", (0, 1), (2,)), Operator("TRANSPOSE", (0, 1), (3,))]
    with pytest.raises(UnsupportedOperatorError, match=r"2 operators cannot be read.*gives 'a'.*computed.*gives 'b'"):
        import_model(saved(whole(operators, tensors, (0, 1)), tmp_path / "net.tflite"))


def test_a_graph_that_is_not_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "ADD", RULES["SUB"])
    with pytest.raises(ModelError, match=r"net.tflite: the graph is not the model: output 'y0' differs"):
        import_model(saved(build(CASES["ADD"])[0], tmp_path / "net.tflite"))


def test_an_int8_graph_that_is_not_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "ADD", RULES["SUB"])
    with pytest.raises(ModelError, match=r"net.tflite: the graph is not the model: output 'y0' differs"):
        import_model(saved(build(CASES["ADD"], steps=True)[0], tmp_path / "net.tflite"))
