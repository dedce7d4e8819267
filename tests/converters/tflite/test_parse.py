"""Reading TFLite files: what is written is read again, and bytes that are no TFLite file do no harm."""

import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.tflite.enums import SCHEMA
from converters.tflite.model import Operator, Quantization, Signature, Subgraph, Tensor, TfliteModel
from converters.tflite.options import pack_options
from converters.tflite.pack import write_file
from converters.tflite.parse import read_bytes, read_file
from lepton_edge.errors import ModelError, NotYetSupportedError

RNG = np.random.default_rng(0)
PER_CHANNEL = Quantization(np.array([0.5, 0.25, 1.0], np.float32), np.zeros(3, np.int64), 0)
STEPS = Quantization(np.array([0.05], np.float32), np.array([-3], np.int64))


def f32(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def net() -> TfliteModel:
    """A file with something of everything: options, scales, open axes, signatures, metadata, several types."""
    rng = np.random.default_rng(0)
    whole_numbers = rng.integers(-9, 9, (3, 3, 3, 2)).astype(np.int8)
    tensors = [
        Tensor("image", (1, 6, 5, 2), "int8", signature=(-1, 6, 5, 2), quantization=STEPS),
        Tensor("w", (3, 3, 3, 2), "int8", quantization=PER_CHANNEL, data=whole_numbers),
        Tensor("b", (3,), "int32", data=np.arange(3, dtype=np.int32)),
        Tensor("y", (1, 6, 5, 3), "int8", signature=(-1, 6, 5, 3), quantization=STEPS),
        Tensor("real", (1, 6, 5, 3), "float32", signature=(-1, 6, 5, 3)),
        Tensor("shape", (2,), "int64", data=np.array([-1, 90], np.int64)),
        Tensor("flat", (1, 90), "float32", signature=(-1, 90)),
        Tensor("state", (1, 4), "float32", variable=True),
        Tensor("words", (2,), "string", data=np.array([b"one", b"\xc3\xa4"], object)),
        Tensor("four", (3,), "int4", data=np.array([-8, 7, 1], np.int8)),
        Tensor("half", (2, 2), "float16", data=rng.normal(size=(2, 2)).astype(np.float16)),
    ]
    operators = [
        Operator("CONV_2D", (0, 1, 2), (3,), {"padding": "SAME", "fused_activation_function": "RELU6"}, 3),
        Operator("DEQUANTIZE", (3,), (4,), {}, 2),
        Operator("RESHAPE", (4, 5), (6,), {"new_shape": (-1, 90)}),
    ]
    main = Subgraph("main", tensors, operators, (0,), (6,))
    return TfliteModel(
        [main],
        description="a net",
        signatures=[Signature("run", {"picture": 0}, {"row": 6})],
        metadata={"note": b"hello"},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tflite") / "net.tflite"
    write_file(net(), path)
    return path.read_bytes()


def same(got: TfliteModel, want: TfliteModel) -> None:
    assert got.description == want.description
    assert list(got.signatures) == list(want.signatures)
    for mine, theirs in zip(got.subgraphs, want.subgraphs, strict=True):
        assert (mine.name, mine.inputs, mine.outputs) == (theirs.name, theirs.inputs, theirs.outputs)
        for a, b in zip(mine.operators, theirs.operators, strict=True):
            assert (a.code, a.inputs, a.outputs, a.version) == (b.code, b.inputs, b.outputs, b.version)
            assert pack_options(a.code, a.options).kind == pack_options(b.code, b.options).kind
            assert {name: a.options[name] for name in b.options} == dict(b.options)
        for one, other in zip(mine.tensors, theirs.tensors, strict=True):
            same_tensor(one, other)


def same_tensor(got: Tensor, want: Tensor) -> None:
    assert (got.name, got.shape, got.dtype) == (want.name, want.shape, want.dtype)
    assert (got.signature, got.variable) == (want.signature, want.variable)
    assert (got.quantization is None) == (want.quantization is None)
    assert got.quantization is None or got.quantization.same(want.quantization)
    assert (got.data is None) == (want.data is None)
    if want.data is not None:
        np.testing.assert_array_equal(np.asarray(got.data), np.asarray(want.data))


def test_what_is_written_is_read_again(whole: bytes) -> None:
    got = read_bytes(whole, where="net")
    same(got, net())
    assert got.metadata["note"] == b"hello"


def test_what_is_read_is_written_as_the_same_bytes(whole: bytes, tmp_path: Path) -> None:
    write_file(read_bytes(whole, where="net"), tmp_path / "again.tflite")
    assert (tmp_path / "again.tflite").read_bytes() == whole


@pytest.mark.parametrize("largest", [0, 1 << 20])
def test_constants_outside_of_the_flatbuffer_are_read_in_place(largest: int, tmp_path: Path) -> None:
    weights = f32(64, 64)
    tensors = [
        Tensor("x", (1, 64), "float32"), Tensor("w", (64, 64), "float32", data=weights),
        Tensor("y", (1, 64), "float32"),
    ]  # fmt: skip
    model = TfliteModel([Subgraph("main", tensors, [Operator("FULLY_CONNECTED", (0, 1, -1), (2,))], (0,), (2,))])
    write_file(model, tmp_path / "net.tflite", largest=largest)
    data = read_file(tmp_path / "net.tflite").main.tensors[1].data
    assert isinstance(data, np.ndarray)
    assert not data.flags.owndata
    np.testing.assert_array_equal(data, weights)


def generated(model: TfliteModel, path: Path) -> object:
    """A file in the schema's generated objects, to be changed."""
    write_file(model, path)
    return SCHEMA.ModelT.InitFromObj(SCHEMA.Model.GetRootAs(path.read_bytes(), 0))


def packed(made: object) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_sparse_constant_becomes_dense_and_its_densify_goes(tmp_path: Path) -> None:
    tensors = [
        Tensor("x", (1, 4), "float32"), Tensor("sparse", (3, 4), "float32", data=np.zeros((3, 4), np.float32)),
        Tensor("w", (3, 4), "float32"), Tensor("y", (1, 3), "float32"),
    ]  # fmt: skip
    operators = [Operator("DENSIFY", (1,), (2,)), Operator("FULLY_CONNECTED", (0, 2, -1), (3,))]
    made = generated(TfliteModel([Subgraph("main", tensors, operators, (0,), (3,))]), tmp_path / "net.tflite")
    sparse = made.subgraphs[0].tensors[1]
    made.buffers[sparse.buffer].data = np.array([5, 7, 9], "<f4").view(np.uint8)
    rows, columns = SCHEMA.DimensionMetadataT(), SCHEMA.DimensionMetadataT()
    rows.denseSize = 3
    columns.format = 1
    for field, values in (("arraySegments", [0, 1, 1, 3]), ("arrayIndices", [2, 0, 3])):
        vector = SCHEMA.Uint8VectorT()
        vector.values = values
        setattr(columns, field, vector)
        setattr(columns, f"{field}Type", 3)
    sparse.sparsity = SCHEMA.SparsityParametersT()
    sparse.sparsity.traversalOrder, sparse.sparsity.dimMetadata = [0, 1], [rows, columns]
    main = read_bytes(packed(made), where="net").main
    assert [one.code for one in main.operators] == ["FULLY_CONNECTED"]
    np.testing.assert_array_equal(np.asarray(main.tensors[2].data), [[0, 0, 5, 0], [0, 0, 0, 0], [7, 0, 0, 9]])


def grown(**fields: object) -> Callable[[object], None]:
    def change(made: object) -> None:
        for name, value in fields.items():
            setattr(made.subgraphs[0].tensors[1], name, value)

    return change


def operator(**fields: object) -> Callable[[object], None]:
    def change(made: object) -> None:
        for name, value in fields.items():
            setattr(made.subgraphs[0].operators[0], name, value)

    return change


def scales(**fields: object) -> Callable[[object], None]:
    def change(made: object) -> None:
        for name, value in fields.items():
            setattr(made.subgraphs[0].tensors[1].quantization, name, value)

    return change


def version(made: object) -> None:
    made.version = 2


def no_subgraph(made: object) -> None:
    made.subgraphs = []


def input_twice(made: object) -> None:
    made.subgraphs[0].inputs = [1]


def same_input_twice(made: object) -> None:
    made.subgraphs[0].inputs = [0, 0]


def unknown_output(made: object) -> None:
    made.subgraphs[0].outputs = [7_000_000]


def never_computed(made: object) -> None:
    made.subgraphs[0].operators.pop(1)


def backwards(made: object) -> None:
    made.subgraphs[0].operators.reverse()


def unknown_code(made: object) -> None:
    made.operatorCodes[0].builtinCode = 9999


def signature(made: object) -> None:
    made.signatureDefs[0].outputs[0].tensorIndex = 4_000_000_000


def circle(made: object) -> None:
    made.operatorCodes[0].builtinCode = made.operatorCodes[0].deprecatedBuiltinCode = 119
    one = made.subgraphs[0].operators[0]
    one.builtinOptionsType, one.builtinOptions = 93, SCHEMA.WhileOptionsT()


def outside(made: object) -> None:
    made.buffers[1].data = None
    made.buffers[1].offset, made.buffers[1].size = 1 << 40, 54


WRONG: dict[str, tuple[Callable[[object], None], str]] = {
    "version": (version, "version 2 of the TFLite format"),
    "no subgraph": (no_subgraph, "no subgraph"),
    "10^12 elements": (grown(shape=[10**6, 10**6]), "1000000000000 elements"),
    "negative sizes": (grown(shape=[-4, 3]), "a tensor of 2 axes"),
    "a product that overflows": (grown(shape=[65536, 65536, 65536, 65536]), "elements of int8"),
    "40 axes": (grown(shape=[1] * 40), "a tensor of 40 axes"),
    "too little data": (grown(shape=[3, 3, 3, 4]), "54 bytes of data where int8"),
    "a buffer that is not there": (grown(buffer=77), "buffer 77 of"),
    "a type that is not there": (grown(type=99), "type 99 is unknown"),
    "constants behind the end": (outside, "constants from byte 1099511627776"),
    "scales of another number": (scales(scale=[0.5, 0.5]), "2 scales and 3 zero points"),
    "scales along no axis": (scales(quantizedDimension=2, scale=[0.5] * 4, zeroPoint=[0] * 4), "4 scales along axis 2"),
    "a scale that is no number": (scales(scale=[0.5, np.nan, 0.5]), "no number"),
    "an input that is not there": (operator(inputs=[0, 1, 99]), "no tensor 99"),
    "a negative input": (operator(inputs=[0, 1, -2]), "no tensor -2"),
    "an operator code that is not there": (operator(opcodeIndex=9), "operator code 9 of 3"),
    "an operator number that is not there": (unknown_code, "operator number 9999"),
    "options of another operator": (operator(builtinOptionsType=9, builtinOptions=SCHEMA.SoftmaxOptionsT()), "CONV_2D"),
    "one input twice": (same_input_twice, "listed twice among its inputs"),
    "a constant as input": (input_twice, "a constant is an input"),
    "an output that is not there": (unknown_output, "no tensor 7000000"),
    "a tensor that nothing computes": (never_computed, "which nothing before it computes"),
    "operators in the wrong order": (backwards, "which nothing before it computes"),
    "computed twice": (operator(outputs=[0]), "computes a tensor that is there already"),
    "a signature of nothing": (signature, "signature 'run'"),
    "a subgraph that calls itself": (circle, "in a circle"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_its_name_and_the_place(name: str, tmp_path: Path) -> None:
    change, says = WRONG[name]
    made = generated(net(), tmp_path / "net.tflite")
    change(made)
    with pytest.raises(ModelError, match=says) as error:
        read_bytes(packed(made), where="wrong.tflite")
    assert str(error.value).startswith("wrong.tflite: ")
    assert "\n" not in str(error.value)


def test_a_type_of_a_later_schema_is_not_yet_supported(tmp_path: Path) -> None:
    made = generated(net(), tmp_path / "net.tflite")
    made.subgraphs[0].tensors[1].type = SCHEMA.TensorType.INT2
    with pytest.raises(NotYetSupportedError, match="int2"):
        read_bytes(packed(made), where="net")


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", b"hello, I am no model\n" * 50, bytes(4) + b"TFL3", b"\xff" * 4 + b"TFL3"]
)
def test_what_is_no_tflite_file_says_so(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"net\.tflite: "):
        read_file(path)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tflite", tmp_path):
        with pytest.raises(ModelError, match=path.name):
            read_file(path)


def one_table_listed(times: int) -> bytes:
    """A model whose vector of subgraphs leads to one and the same table, again and again."""
    vtable = struct.pack("<HHHHH", 10, 12, 4, 0, 8)  # version at 4, operator codes absent, subgraphs at 8
    start = 8 + len(vtable) + 2
    table = struct.pack("<iII", start - 8, 3, 4) + struct.pack("<I", times)
    vector = start + len(table)
    listed = b"".join(struct.pack("<I", vector + 4 * times - (vector + 4 * n)) for n in range(times))
    empty = struct.pack("<iHH", -4, 4, 4)
    return struct.pack("<I", start) + b"TFL3" + vtable + b"\0\0" + table + listed + empty


def test_one_table_listed_again_and_again_costs_little() -> None:
    data = one_table_listed(300_000)
    assert len(read_bytes(one_table_listed(1), where="x").subgraphs) == 1
    began = time.perf_counter()
    with pytest.raises(ModelError, match=r"more than \d+ tables"):
        read_bytes(data, where="x")
    assert time.perf_counter() - began < 20


def judge(data: bytes) -> None:
    """Reading ends in a model or in one of our errors."""
    with suppress(ModelError):
        read_bytes(data, where="x")


def test_a_truncated_file_is_refused(whole: bytes) -> None:
    lengths = range(0, len(whole) - 80, 7)
    for length in lengths:
        judge(whole[:length])
    with pytest.raises(ModelError):
        read_bytes(whole[: len(whole) // 4], where="x")


EXTREMES = [0, 1, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1_000_000_000, 0xFFFFFFF0]


@pytest.mark.parametrize("value", EXTREMES)
def test_every_word_may_be_anything(value: int, whole: bytes) -> None:
    word = struct.pack("<I", value)
    for at in range(0, len(whole) - 80, 4):
        judge(whole[:at] + word + whole[at + 4 :])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)), max_size=6),
       cut=st.integers(0, 12))  # fmt: skip
def test_damage_ends_in_our_error_or_in_a_model(changes: list[tuple[float, bytes]], cut: int, whole: bytes) -> None:
    data = bytearray(whole)
    for place, put in changes:
        at = int(place * len(data))
        data[at : at + len(put)] = put
    judge(bytes(data[: len(data) - cut]))


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=12))
def test_much_damage_ends_in_our_error_or_in_a_model(changes: list[tuple[float, bytes]], whole: bytes) -> None:
    data = bytearray(whole)
    for place, put in changes:
        at = int(place * len(data))
        data[at : at + len(put)] = put
    judge(bytes(data))
