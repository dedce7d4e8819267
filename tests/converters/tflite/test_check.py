"""The check refuses what kernels would compute wrongly, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from converters.tflite.check import check_model
from converters.tflite.check_scales import FIXED, SAME_SCALE
from converters.tflite.check_shapes import _EXPECTED
from converters.tflite.model import DType, Operator, Options, Quantization, Subgraph, Tensor, TfliteModel
from converters.tflite.options import defaults
from converters.tflite.pack import write_file
from converters.tflite.parse import read_file
from lepton_edge.errors import ModelError
from tests.converters.tflite.one_operator import constant, fed, model, run, scales

DATA = Path(__file__).parents[4] / "shared" / "data"
IMAGE = (1, 6, 6, 8)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.integers(-127, 128, (4, 3, 3, 8)).astype(np.int8)
CHANNELS = [0.01, 0.02, 0.04, 0.03]


def refused(made: TfliteModel, runtime: str = "litert") -> str:
    with pytest.raises(ModelError) as caught:
        check_model(made, where="made.tflite", runtime=runtime)
    return str(caught.value)


def conv(
    weights: Quantization | None = None,
    bias: Quantization | None = None,
    *,
    bias_data: np.ndarray | None = None,
    out: tuple[int, ...] = (1, 6, 6, 4),
    padding: str = "SAME",
    channels: int = 8,
) -> TfliteModel:
    """An int8 convolution that is right where nothing is given."""
    steps = np.int32([100, -200, 300, 0]) if bias_data is None else bias_data
    tensors = [
        fed("x", (1, 6, 6, channels), "int8", scales(0.5, 3)),
        constant("w", WEIGHTS, weights or scales(CHANNELS)),
        constant("b", steps, bias or scales(0.5 * np.float32(CHANNELS))),
    ]
    return model("CONV_2D", tensors, [fed("y", out, "int8", scales(2.0, -5))], {"padding": padding})


def test_a_right_convolution_passes_and_runs_right(tmp_path: Path) -> None:
    made = conv()
    check_model(made, where="made.tflite")
    write_file(made, tmp_path / "conv.tflite")
    x = RNG.integers(-128, 128, IMAGE).astype(np.int8)
    real = (x.astype(float) - 3) * 0.5
    padded = np.pad(real, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    w = WEIGHTS * np.array(CHANNELS)[:, None, None, None]
    b = np.array([100, -200, 300, 0]) * 0.5 * np.array(CHANNELS)
    want = np.clip(np.rint((np.einsum("nhwcij,oijc->nhwo", windows, w) + b) / 2) - 5, -128, 127)
    for builtin in (True, False):
        (got,) = run(tmp_path / "conv.tflite", x, builtin=builtin)
        assert np.abs(got - want).max() <= 1


def product(*values: float) -> Quantization:
    return scales(np.float32(0.5) * np.float32(values))


CONVOLUTIONS: dict[str, tuple[TfliteModel, str]] = {
    "bias scale 1.5 x too large": (conv(bias=scales(0.75 * np.float32(CHANNELS))), "the bias 'b' has the scale 0.0075"),
    "two channels' bias scales swapped": (conv(bias=product(0.02, 0.01, 0.04, 0.03)), "in channel 0"),
    "one bias scale a thousandth off": (conv(bias=product(0.01, 0.02, 0.04004, 0.03)), "in channel 2"),
    "bias zero point": (conv(bias=Quantization(product(*CHANNELS).scale, np.int64([0, 0, 1, 0]))), "bias 'b' has zero"),
    "bias with fewer scales": (conv(bias=product(0.01, 0.02)), "has 2 scales"),
    "weight zero point": (conv(weights=scales(CHANNELS, 2)), "weights 'w' have zero points"),
    "scales along another axis": (conv(weights=scales([0.01] * 8, 0, 3), bias=product(0.01)), "along axis 3"),
    "fewer scales than channels": (conv(weights=scales([0.01] * 3), bias=product(*[0.01] * 3)), "3 scales along axis"),
    "bias of three": (conv(bias_data=np.int32([1, 2, 3]), weights=scales(0.01), bias=product(0.01)), r"shape \(3,\)"),
    "output too small": (conv(out=(1, 4, 4, 4)), r"has the shape \[1, 4, 4, 4\], and becomes \[1, 6, 6, 4\]"),
    "padding not told": (conv(padding="VALID"), r"becomes \[1, 4, 4, 4\]"),
    "weights for other channels": (conv(channels=6), "weights for 8 channels, given 6"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_that_are_refused(case: tuple[TfliteModel, str]) -> None:
    made, message = case
    with pytest.raises(ModelError, match=message):
        check_model(made, where="made.tflite")


def test_rounding_of_float32_is_no_wrong_bias_scale() -> None:
    for factor in (np.nextafter(np.float32(1), np.float32(2)), np.float32(1 - 3e-6)):
        check_model(conv(bias=scales(product(*CHANNELS).scale * factor)), where="made.tflite")


def test_the_message_says_where_what_and_which() -> None:
    text = refused(conv(bias=scales(0.75 * np.float32(CHANNELS))))
    assert text.startswith("made.tflite: litert would")
    assert "operator 0 (CONV_2D that makes 'y')" in text
    assert "0.005" in text


class Move(NamedTuple):
    """inputs: shapes of int8 inputs, and constants; outputs: shapes."""

    inputs: Sequence[tuple[int, ...] | np.ndarray]
    outputs: Sequence[tuple[int, ...]]
    options: Options = {}


HALF = {"padding": "VALID", "stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
PADS = np.int32([[0, 0], [1, 1], [1, 1], [0, 0]])
WHICH = np.arange(288).reshape(IMAGE) % 2 == 0
MOVES: dict[str, Move] = {
    "AVERAGE_POOL_2D": Move([IMAGE], [(1, 3, 3, 8)], HALF),
    "BATCH_TO_SPACE_ND": Move([(4, 3, 3, 8), np.int32([2, 2]), np.zeros((2, 2), np.int32)], [IMAGE]),
    "BROADCAST_TO": Move([(1, 1, 1, 8), np.int32(IMAGE)], [IMAGE]),
    "CONCATENATION": Move([IMAGE, IMAGE], [(1, 6, 6, 16)], {"axis": 3}),
    "DEPTH_TO_SPACE": Move([IMAGE], [(1, 12, 12, 2)], {"block_size": 2}),
    "DYNAMIC_UPDATE_SLICE": Move([IMAGE, (1, 2, 2, 8), np.int32([0, 1, 1, 0])], [IMAGE]),
    "EXPAND_DIMS": Move([(6, 8), np.int32(0)], [(1, 6, 8)]),
    "FILL": Move([np.int32([2, 3]), ()], [(2, 3)]),
    "GATHER": Move([IMAGE, np.int32([0, 2, 4])], [(1, 6, 6, 3)], {"axis": 3}),
    "GATHER_ND": Move([IMAGE, np.int32([[0, 2], [0, 3]])], [(2, 6, 8)]),
    "MAXIMUM": Move([IMAGE, IMAGE], [IMAGE]),
    "MAX_POOL_2D": Move([IMAGE], [(1, 3, 3, 8)], HALF),
    "MINIMUM": Move([IMAGE, IMAGE], [IMAGE]),
    "MIRROR_PAD": Move([IMAGE, PADS], [(1, 8, 8, 8)], {"mode": "REFLECT"}),
    "NEG": Move([IMAGE], [IMAGE]),
    "PACK": Move([(6, 8), (6, 8)], [(2, 6, 8)], {"values_count": 2}),
    "PAD": Move([IMAGE, PADS], [(1, 8, 8, 8)]),
    "PADV2": Move([IMAGE, PADS, ()], [(1, 8, 8, 8)]),
    "REDUCE_MAX": Move([IMAGE, np.int32([1, 2])], [(1, 8)]),
    "REDUCE_MIN": Move([IMAGE, np.int32([1, 2])], [(1, 8)]),
    "RESHAPE": Move([IMAGE, np.int32([1, 36, 8])], [(1, 36, 8)], {"new_shape": (1, 36, 8)}),
    "RESIZE_BILINEAR": Move([IMAGE, np.int32([12, 12])], [(1, 12, 12, 8)], {"half_pixel_centers": True}),
    "RESIZE_NEAREST_NEIGHBOR": Move([IMAGE, np.int32([12, 12])], [(1, 12, 12, 8)], {"half_pixel_centers": True}),
    "REVERSE_SEQUENCE": Move([(2, 6, 8), np.int32([3, 5])], [(2, 6, 8)], {"seq_dim": 1}),
    "REVERSE_V2": Move([IMAGE, np.int32([1])], [IMAGE]),
    "SCATTER_ND": Move([np.int32([[1], [3]]), (2, 8), np.int32([6, 8])], [(6, 8)]),
    "SELECT": Move([WHICH, IMAGE, IMAGE], [IMAGE]),
    "SELECT_V2": Move([WHICH, IMAGE, IMAGE], [IMAGE]),
    "SLICE": Move([IMAGE, np.int32([0, 1, 1, 0]), np.int32([1, 4, 4, 8])], [(1, 4, 4, 8)]),
    "SPACE_TO_BATCH_ND": Move([IMAGE, np.int32([2, 2]), np.zeros((2, 2), np.int32)], [(4, 3, 3, 8)]),
    "SPACE_TO_DEPTH": Move([IMAGE], [(1, 3, 3, 32)], {"block_size": 2}),
    "SPLIT": Move([np.int32(3), IMAGE], [(1, 6, 6, 4)] * 2, {"num_splits": 2}),
    "SPLIT_V": Move([IMAGE, np.int32([3, 5]), np.int32(3)], [(1, 6, 6, 3), (1, 6, 6, 5)], {"num_splits": 2}),
    "SQUEEZE": Move([(1, 6, 8)], [(6, 8)], {"squeeze_dims": (0,)}),
    "STRIDED_SLICE": Move([IMAGE, *np.int32([[0] * 4, [1, 6, 6, 8], [1, 2, 2, 1]])], [(1, 3, 3, 8)]),
    "TILE": Move([(1, 6, 8), np.int32([1, 2, 1])], [(1, 12, 8)]),
    "TOPK_V2": Move([(1, 8), np.int32(3)], [(1, 3)]),
    "TRANSPOSE": Move([IMAGE, np.int32([0, 3, 1, 2])], [(1, 8, 6, 6)]),
    "UNPACK": Move([(2, 6, 8)], [(6, 8)] * 2, {"num": 2}),
}  # fmt: skip
"""One of each operator that hands steps on."""

ONLY_UINT8 = {"REVERSE_SEQUENCE"}


def moved(code: str, out: Quantization | None, dtype: DType = "int8") -> tuple[TfliteModel, list[np.ndarray]]:
    """The operator on inputs of scale 0.5, zero point 0, and the steps to feed it."""
    move, inputs, feeds = MOVES[code], list[Tensor](), list[np.ndarray]()
    for index, one in enumerate(move.inputs):
        if isinstance(one, tuple):
            inputs.append(fed(f"x{index}", one, dtype, scales(0.5)))
            low = 0 if dtype == "uint8" else -100
            feeds.append(RNG.integers(low, 101, one).astype(dtype))
        else:
            inputs.append(constant(f"c{index}", one))
    outputs = [fed(f"y{index}", shape, dtype, out) for index, shape in enumerate(move.outputs)]
    outputs += [fed("places", (1, 3), "int32")] if code == "TOPK_V2" else []
    return model(code, inputs, outputs, move.options), feeds


def test_every_operator_that_hands_steps_on_has_a_case() -> None:
    assert set(MOVES) == SAME_SCALE


@pytest.mark.parametrize("code", MOVES)
def test_operators_that_hand_steps_on_need_one_scale(code: str, tmp_path: Path) -> None:
    right, _ = moved(code, scales(0.5))
    check_model(right, where="made.tflite")
    for out in (scales(0.25), scales(0.5, 7), None):
        assert "must have one scale and zero point" in refused(moved(code, out)[0])


@pytest.mark.parametrize("code", sorted(set(MOVES) - ONLY_UINT8))
def test_such_an_operator_gives_the_same_steps_whatever_the_scales(code: str, tmp_path: Path) -> None:
    """The reason for the rule: a kernel that read the scales would give others. Some refuse instead."""
    right, feeds = moved(code, scales(0.5))
    wrong, _ = moved(code, scales(0.25))
    write_file(right, tmp_path / "right.tflite")
    write_file(wrong, tmp_path / "wrong.tflite")
    want = run(tmp_path / "right.tflite", *feeds, builtin=True)
    try:
        got = run(tmp_path / "wrong.tflite", *feeds, builtin=True)
    except RuntimeError:
        return
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(one, other)


def test_uint8_concatenation_takes_any_scales(tmp_path: Path) -> None:
    made, feeds = moved("CONCATENATION", scales(1.0), "uint8")
    check_model(made, where="made.tflite")
    write_file(made, tmp_path / "concat.tflite")
    (got,) = run(tmp_path / "concat.tflite", *feeds, builtin=True)
    assert np.abs(got - np.concatenate(feeds, 3) / 2).max() <= 1


@pytest.mark.parametrize("code", ["NEG", "SCATTER_ND"])
def test_operators_that_take_step_0_for_0(code: str) -> None:
    made, _ = moved(code, scales(0.5, 3))
    three = scales(0.5, 3)
    tensors = [replace(one, quantization=three) if one.quantization else one for one in made.main.tensors]
    assert "must have the zero point 0" in refused(replace(made, subgraphs=[replace(made.main, tensors=tensors)]))


@pytest.mark.parametrize(("code", "dtype"), [(code, dtype) for code, fixed in FIXED.items() for dtype in fixed])
def test_outputs_with_fixed_scales(code: str, dtype: DType) -> None:
    scale, zero_point = FIXED[code][dtype]
    x = fed("x", (1, 8), dtype, scales(0.1))
    check_model(model(code, [x], [fed("y", (1, 8), dtype, scales(scale, zero_point))]), where="made.tflite")
    for wrong in (scales(scale * 1.01, zero_point), scales(scale, zero_point + (1 if zero_point < 100 else -1))):
        assert "which the kernel computes in" in refused(model(code, [x], [fed("y", (1, 8), dtype, wrong)]))


@pytest.mark.parametrize("code", ["ADD", "MUL"])
def test_int8_arithmetic_without_scales(code: str) -> None:
    one = scales(0.5)
    right = model(code, [fed("a", (2,), "int8", one), fed("b", (2,), "int8", one)], [fed("y", (2,), "int8", one)])
    check_model(right, where="made.tflite")
    wrong = model(code, [fed("a", (2,), "int8", one), fed("b", (2,), "int8")], [fed("y", (2,), "int8", one)])
    assert "'b' is int8 without a scale" in refused(wrong)


def test_int16_numbers_need_no_scales() -> None:
    numbers = [fed("a", (2,), "int16"), fed("b", (2,), "int16")]
    check_model(model("ADD", numbers, [fed("y", (2,), "int16")]), where="made.tflite")


def test_scales_for_each_channel_where_one_is_read() -> None:
    x, w = (
        fed("x", (1, 4), "int8", scales(0.5)),
        constant("w", np.int8([[1, 2, 3, 4]]), scales([0.1, 0.2, 0.3, 0.4], 0, 1)),
    )
    text = refused(model("ADD", [x, w], [fed("y", (1, 4), "int8", scales(0.5))]))
    assert "'w' has 4 scales where the kernel reads the first alone" in text
    check_model(model("DEQUANTIZE", [w], [fed("y", (1, 4))]), where="made.tflite")


BAD_SCALES = {
    "zero": (scales(0.0), "no positive number"),
    "negative": (scales(-0.5), "no positive number"),
    "infinite": (scales(np.inf), "no positive number"),
    "nan": (scales(np.nan), "no positive number"),
    "zero point above int8": (scales(0.5, 128), "zero point outside of int8"),
    "zero points missing": (Quantization(np.float32([1, 2]), np.int64([0]), 1), "2 scales and 1 zero points"),
    "axis that is not there": (scales([1, 2], 0, 2), "2 scales along axis 2"),
}


@pytest.mark.parametrize("case", BAD_SCALES.values(), ids=BAD_SCALES)
def test_scales_that_no_tensor_can_have(case: tuple[Quantization, str]) -> None:
    made, message = case
    assert message in refused(model("QUANTIZE", [fed("x", (1, 2))], [fed("y", (1, 2), "int8", made)]))


def chain(*operators: Operator, count: int = 4, outputs: tuple[int, ...] = (3,)) -> TfliteModel:
    return TfliteModel([Subgraph("main", [fed(f"t{index}", (2,)) for index in range(count)], operators, (0,), outputs)])


def unary(source: int, target: int) -> Operator:
    return Operator("ABS", (source,), (target,))


WIRINGS = {
    "read before it is written": (chain(unary(0, 1), unary(2, 3), unary(1, 2)), "reads 't2' before"),
    "written by nobody": (chain(unary(0, 1), unary(2, 3)), "reads 't2' before"),
    "written twice": (chain(unary(0, 1), unary(0, 1), unary(1, 3)), "writes 't1', which is"),
    "an input written": (chain(unary(0, 0), unary(0, 3)), "writes 't0', which is"),
    "an output that nobody writes": (chain(unary(0, 1)), "nothing writes the output 't3'"),
    "no such tensor": (chain(unary(0, 9), unary(0, 3)), r"names the tensors \[9\] of 4"),
    "no such output": (chain(unary(0, 1), outputs=(7,)), "output 7 is no tensor"),
    "no such branch": (
        chain(Operator("IF", (0, 0), (3,), {"then_subgraph_index": 1, "else_subgraph_index": 0})),
        "has then_subgraph_index 1, of 1 subgraphs",
    ),
}


@pytest.mark.parametrize("case", WIRINGS.values(), ids=WIRINGS)
def test_wirings_that_are_refused(case: tuple[TfliteModel, str]) -> None:
    made, message = case
    with pytest.raises(ModelError, match=message):
        check_model(made, where="made.tflite")


def test_a_right_wiring_passes() -> None:
    check_model(chain(unary(0, 1), unary(1, 2), unary(2, 3)), where="made.tflite")


def test_branches_take_and_give_what_their_operator_does() -> None:
    options = {"then_subgraph_index": 1, "else_subgraph_index": 1}
    tensors = [fed("which", (1,), "bool"), fed("x", (2,)), fed("y", (2,))]
    main = Subgraph("main", tensors, [Operator("IF", (0, 1), (2,), options)], (0, 1), (2,))
    body = Subgraph("body", [fed("a", (2,)), fed("b", (2,))], [unary(0, 1)], (0,), (1,))
    check_model(TfliteModel([main, body]), where="made.tflite")
    assert "gives 1 inputs to subgraph 1, which has 0" in refused(TfliteModel([main, replace(body, inputs=())]))
    assert "takes 1 outputs of subgraph 1, which has 2" in refused(TfliteModel([main, replace(body, outputs=(1, 0))]))
    assert "subgraph 1 ('body'), nothing writes" in refused(TfliteModel([main, replace(body, operators=[])]))


SHAPES: dict[str, tuple[str, list[Tensor | None], tuple[int, ...], Options, str]] = {
    "sizes that do not broadcast": ("ADD", [fed("a", (2, 3)), fed("b", (2,))], (2, 3), {}, "do not broadcast"),
    "concatenation beyond its axes": ("CONCATENATION", [fed("a", (2,))] * 1, (2,), {"axis": 1}, "axis 1 of 1 axes"),
    "concatenation of unlike inputs": (
        "CONCATENATION", [fed("a", (2, 3)), fed("b", (3, 3))], (2, 6), {"axis": 1}, "differ beside axis 1",
    ),
    "reshape that loses elements": ("RESHAPE", [fed("x", (2, 3))], (5,), {}, "not as many elements"),
    "transpose with one axis twice": (
        "TRANSPOSE", [fed("x", (2, 3)), constant("p", np.int32([0, 0]))], (2, 2), {}, "is no order of 2 axes",
    ),
    "mean over floats": (
        "MEAN", [fed("x", (2, 3)), constant("a", np.float32([1]))], (2,), {}, "1 elements of float32",
    ),
    "mean over no axis": ("MEAN", [fed("x", (2, 3)), constant("a", np.int32([2]))], (2,), {}, "axis 2 of 2 axes"),
    "mean that keeps its axes": (
        "MEAN", [fed("x", (2, 3)), constant("a", np.int32([1]))], (2,), {"keep_dims": True}, r"becomes \[2, 1\]",
    ),
    "argmax of no axis": (
        "ARG_MAX", [fed("x", (2, 3)), constant("a", np.int32(3))], (2,), {"output_type": "int32"}, "axis 3",
    ),
    "pool of nothing": ("MAX_POOL_2D", [fed("x", IMAGE)], IMAGE, {**HALF, "stride_w": 0}, "options {'stride_w': 0}"),
    "rows of another length": (
        "FULLY_CONNECTED", [fed("x", (1, 5)), constant("w", np.ones((3, 4), np.float32)), None], (1, 3), {},
        "weights for rows of 4",
    ),
    "matrices that do not fit": ("BATCH_MATMUL", [fed("a", (2, 3)), fed("b", (4, 5))], (2, 5), {}, "3 by columns of 4"),
    "matrices turned": (
        "BATCH_MATMUL", [fed("a", (2, 3)), fed("b", (5, 3))], (2, 3), {"adj_y": True}, r"becomes \[2, 5\]",
    ),
    "split in unequal parts": (
        "SPLIT", [constant("a", np.int32(0)), fed("x", (5,))], (2,), {"num_splits": 2}, "2 equal parts of 5",
    ),
    "gather beyond its axes": (
        "GATHER", [fed("x", (2, 3)), constant("i", np.int32([0]))], (1,), {"axis": 2}, "axis 2 of 2 axes",
    ),
    "pads for other axes": ("PAD", [fed("x", (2, 3)), constant("p", PADS)], (2, 3), {}, "8 paddings for 2 axes"),
    "slice beyond the end": (
        "SLICE", [fed("x", (4,)), constant("b", np.int32([2])), constant("s", np.int32([3]))], (3,), {},
        "a slice of 3 from 2 of 4",
    ),
    "squeeze of a size": ("SQUEEZE", [fed("x", (2, 3))], (3,), {"squeeze_dims": (0,)}, "axis of size 2 cannot go"),
    "blocks that do not fit": ("DEPTH_TO_SPACE", [fed("x", (1, 2, 2, 6))], (1, 4, 4, 1), {"block_size": 2}, "blocks"),
    "resize to another size": (
        "RESIZE_BILINEAR", [fed("x", IMAGE), constant("s", np.int32([12, 12]))], (1, 6, 6, 8), {}, "12, 12",
    ),
    "tiles for other axes": ("TILE", [fed("x", (2,)), constant("t", np.int32([1, 2]))], (4,), {}, "2 repeats for 1"),
    "a number beside a list": (
        "CONCATENATION", [fed("x", (0,)), constant("c", np.int32(0))], (1,), {}, "differ beside axis 0",
    ),
    "three axes of an image": ("AVERAGE_POOL_2D", [fed("x", (6, 6, 8))], (3, 3, 8), HALF, "has 3 axes"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_shapes_and_axes_that_are_refused(case: tuple[str, list[Tensor | None], tuple[int, ...], Options, str]) -> None:
    code, inputs, shape, options, message = case
    with pytest.raises(ModelError, match=message):
        check_model(model(code, inputs, [fed("y", shape)], options), where="made.tflite")


def test_open_axes_agree_with_every_size() -> None:
    x = Tensor("x", (1, 3), "float32", signature=(-1, 3))
    check_model(model("ADD", [x, fed("b", (3,))], [Tensor("y", (1, 3), "float32", signature=(-1, 3))]), where="m")
    check_model(model("RESHAPE", [x], [fed("y", (3, 7))]), where="m")


@st.composite
def hostile_uses(draw: st.DrawFn) -> TfliteModel:
    """An operator on tensors that fit nothing."""
    size = st.integers(0, 5)
    shapes = draw(st.lists(st.lists(size, max_size=5).map(tuple), min_size=1, max_size=4))
    data = arrays.arrays(st.sampled_from(["int32", "int64", "float32"]), st.lists(size, max_size=2).map(tuple))
    inputs = [
        constant(f"c{index}", draw(data)) if draw(st.booleans()) else fed(f"x{index}", shape)
        for index, shape in enumerate(shapes)
    ]
    code = draw(st.sampled_from(sorted(_EXPECTED)))
    numbers = [name for name, value in defaults(code).items() if isinstance(value, int)]
    options = {name: draw(st.integers(-9, 9)) for name in numbers if draw(st.booleans())}
    output = fed("y", draw(st.lists(size, max_size=5).map(tuple)))
    return model(code, inputs, [output], options)


@settings(max_examples=400, deadline=None)
@given(hostile_uses())
def test_operators_that_fit_nothing_are_refused_or_pass(made: TfliteModel) -> None:
    try:
        check_model(made, where="made.tflite")
    except ModelError as error:
        assert "made.tflite" in str(error)  # noqa: PT017 - it may pass as well


def test_weights_in_the_place_of_axes_are_not_read() -> None:
    def never() -> ir.TensorProtocol:
        raise AssertionError("read")

    lazy = ir.LazyTensor(never, dtype=ir.DataType.INT32, shape=ir.Shape([10**6]), name="w")
    weights = Tensor("w", (10**6,), "int32", data=lazy)
    assert "'w' has 1000000 elements" in refused(model("MEAN", [fed("x", (2, 3)), weights], [fed("y", (2,))]))


def test_versions_above_the_runtimes() -> None:
    made = model("ADD", [fed("a", (2,), "float16"), fed("b", (2,), "float16")], [fed("y", (2,), "float16")])
    check_model(made, where="made.tflite")
    assert "tflite-runtime has versions up to 5, not 6" in refused(made, "tflite-runtime")
    dilated = model("DILATE", [fed("x", (2,)), fed("d", (1,), "int32"), fed("p", ())], [fed("y", (3,))])
    assert "tflite-runtime has none" in refused(dilated, "tflite-runtime")


def test_many_problems_are_counted() -> None:
    made = chain(*(unary(0, 9) for _ in range(20)), unary(0, 3))
    assert "; and 12 more" in refused(made)


FILES = sorted(DATA.glob("**/*.tflite")) if DATA.is_dir() else []


@pytest.mark.skipif(not FILES, reason="no data shared with the checkout")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_of_tensorflow_pass(path: Path) -> None:
    check_model(read_file(path), where=path.name)


@pytest.mark.skipif(not FILES, reason="no data shared with the checkout")
def test_files_of_tensorflow_are_right_after_writing_them_again(tmp_path: Path) -> None:
    for path in FILES:
        write_file(read_file(path), tmp_path / path.name)
        feeds = feed_for(path)
        for before, after in zip(run(path, *feeds), run(tmp_path / path.name, *feeds), strict=True):
            np.testing.assert_array_equal(before, after)


def feed_for(path: Path) -> list[np.ndarray]:
    main = read_file(path).main
    rng = np.random.default_rng(0)
    return [(rng.random(main.tensors[index].shape) * 100).astype(main.tensors[index].dtype) for index in main.inputs]
