"""Files as the writer makes them: right in both runtimes, the same bytes each time, one constant in memory at once."""

import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from converters.tflite.enums import OPERATORS, SCHEMA
from converters.tflite.model import DType, Operator, Signature, Subgraph, Tensor, TfliteModel
from converters.tflite.options import TABLES, defaults, options_of, pack_options
from converters.tflite.pack import write_file
from tests.converters.tflite.one_operator import constant, fed, model, needs_tflite_runtime, run, run_other, scales

RNG = np.random.default_rng(0)
EVERYWHERE = {"inside": 2**30, "outside": 0}
"""Where large constants lie: the number of bytes up to which they lie in the flatbuffer."""


def sum_with(data: np.ndarray, dtype: DType = "float32") -> TfliteModel:
    x, w, y = fed("x", data.shape, dtype), constant("w", data), fed("y", data.shape, dtype)
    return model("ADD", [x, w], [y])


def read_back(path: Path) -> object:
    return SCHEMA.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


@pytest.mark.parametrize("largest", EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize("builtin", [True, False], ids=["builtin", "xnnpack"])
def test_litert_runs_what_was_written(tmp_path: Path, largest: int, builtin: bool) -> None:
    path = tmp_path / "sum.tflite"
    weights = RNG.random((1, 3000), np.float32)
    write_file(sum_with(weights), path, largest=largest)
    x = RNG.random((1, 3000), np.float32)
    np.testing.assert_array_equal(run(path, x, builtin=builtin)[0], x + weights)


@needs_tflite_runtime
@pytest.mark.parametrize("largest", EVERYWHERE.values(), ids=EVERYWHERE)
def test_tflite_runtime_runs_what_was_written(tmp_path: Path, largest: int) -> None:
    path = tmp_path / "sum.tflite"
    weights = RNG.random((1, 3000), np.float32)
    write_file(sum_with(weights), path, largest=largest)
    x = RNG.random((1, 3000), np.float32)
    ((answer,),) = run_other([(path, {"x": x})])
    np.testing.assert_array_equal(np.float32(answer), x + weights)


def test_constants_outside_of_the_flatbuffer_have_64_bit_places(tmp_path: Path) -> None:
    path = tmp_path / "sum.tflite"
    write_file(sum_with(np.ones((1, 3000), np.float32)), path, largest=0)
    buffer = read_back(path).buffers[1]  # type: ignore[attr-defined]
    assert buffer.data is None
    assert buffer.offset % 16 == 0
    assert buffer.size == 12000
    raw = path.read_bytes()
    assert np.frombuffer(raw[buffer.offset : buffer.offset + buffer.size], np.float32).tolist() == [1.0] * 3000
    places = (np.uint64(buffer.offset).tobytes(), np.uint64(buffer.size).tobytes())
    assert all(place in raw for place in places)


def test_a_place_above_4_gib_is_patched_whole(tmp_path: Path) -> None:
    from converters.tflite.pack import _flatbuffer, _patch

    head = _flatbuffer(sum_with(np.ones((1, 3000), np.float32)), [True])
    _patch(head, [True], [5 * 2**30], [12000])
    buffer = SCHEMA.ModelT.InitFromPackedBuf(bytes(head), 0).buffers[1]
    assert (buffer.offset, buffer.size) == (5 * 2**30, 12000)


def test_constants_start_at_multiples_of_16(tmp_path: Path) -> None:
    path = tmp_path / "many.tflite"
    tensors = [fed("x", (1,)), *(constant(f"c{size}", np.full(size, size, np.int8)) for size in range(1, 40))]
    operator = Operator("ABS", (0,), (0,))
    write_file(TfliteModel([Subgraph("main", tensors, [operator], (0,), (0,))]), path)
    raw = path.read_bytes()
    flat = SCHEMA.Model.GetRootAs(raw)
    starts = [flat.Buffers(index)._tab.Vector(flat.Buffers(index)._tab.Offset(4)) for index in range(1, 40)]
    assert [start % 16 for start in starts] == [0] * 39
    assert [raw[start] for start in starts] == list(range(1, 40))


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "one.tflite", tmp_path / "two.tflite"]
    for path in files:
        write_file(sum_with(np.arange(3000, dtype=np.float32)), path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_equal_constants_are_stored_once(tmp_path: Path) -> None:
    def chain(data: list[np.ndarray], path: Path) -> int:
        tensors, operators = [fed("x0", (1, 5000))], []
        for index, one in enumerate(data, start=1):
            tensors += [constant(f"w{index}", one), fed(f"x{index}", (1, 5000))]
            operators.append(Operator("ADD", (2 * index - 2, 2 * index - 1), (2 * index,)))
        write_file(TfliteModel([Subgraph("main", tensors, operators, (0,), (len(tensors) - 1,))]), path)
        return path.stat().st_size

    same, other = np.ones((1, 5000), np.float32), np.full((1, 5000), 2, np.float32)
    once = chain([same, same.copy(), same.copy()], tmp_path / "same.tflite")
    twice = chain([same, other, same.copy()], tmp_path / "other.tflite")
    assert once < 1.2 * same.nbytes
    assert 2 * same.nbytes < twice < 2.2 * same.nbytes
    (made,) = run(tmp_path / "other.tflite", np.zeros((1, 5000), np.float32))
    assert (made == 4).all()


def test_an_operator_that_cannot_be_said_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    write_file(sum_with(np.ones((1, 3), np.float32)), path)
    before = path.read_bytes()
    good = sum_with(np.ones((1, 3), np.float32))
    lazy = ir.LazyTensor(lambda: ir.tensor(np.ones(3, np.int32)), dtype=ir.DataType.FLOAT, shape=ir.Shape([1, 3]))
    broken = replace(
        good.main, tensors=[*good.main.tensors[:1], replace(good.main.tensors[1], data=lazy), fed("y", (3,))]
    )
    with pytest.raises(ValueError, match="its data"):
        write_file(replace(good, subgraphs=[broken]), path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.tflite"]


def test_lazy_constants_are_read_when_they_are_written(tmp_path: Path) -> None:
    data = RNG.random((1, 64), np.float32)
    lazy = ir.LazyTensor(lambda: ir.tensor(data), dtype=ir.DataType.FLOAT, shape=ir.Shape([1, 64]), name="w")
    made = sum_with(data)
    tensors = [replace(one, data=lazy) if one.data is not None else one for one in made.main.tensors]
    write_file(replace(made, subgraphs=[replace(made.main, tensors=tensors)]), tmp_path / "lazy.tflite")
    write_file(made, tmp_path / "eager.tflite")
    assert (tmp_path / "lazy.tflite").read_bytes() == (tmp_path / "eager.tflite").read_bytes()


_PEAK = """
import sys
from pathlib import Path
import numpy as np, onnx_ir as ir
from tests.converters.tflite.test_pack import large_model, peak
before = peak()
write = __import__("converters.tflite.pack", fromlist=["write_file"]).write_file
write(large_model(), Path(sys.argv[1]))
print(peak() - before)
"""


def peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def large_model(count: int = 24, each: int = 8 << 20) -> TfliteModel:
    def weights(seed: int) -> Callable[[], ir.TensorProtocol]:
        return lambda: ir.tensor(np.full((1, each // 4), seed, np.float32))

    tensors, operators = [fed("x0", (1, each // 4))], []
    for index in range(1, count + 1):
        lazy = ir.LazyTensor(weights(index), dtype=ir.DataType.FLOAT, shape=ir.Shape([1, each // 4]))
        tensors += [Tensor(f"w{index}", (1, each // 4), "float32", data=lazy), fed(f"x{index}", (1, each // 4))]
        operators.append(Operator("ADD", (2 * index - 2, 2 * index - 1), (2 * index,)))
    return TfliteModel([Subgraph("main", tensors, operators, (0,), (len(tensors) - 1,))])


def test_memory_stays_at_a_few_constants(tmp_path: Path) -> None:
    path = tmp_path / "large.tflite"
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert path.stat().st_size > 24 * (8 << 20)
    assert int(done.stdout) < 4 * (8 << 20)


def test_short_and_long_operator_codes_are_both_there(tmp_path: Path) -> None:
    path = tmp_path / "sum.tflite"
    write_file(
        model("CUMSUM", [fed("x", (1, 4)), constant("axis", np.int32(1))], [fed("y", (1, 4))], {"reverse": True}), path
    )
    (code,) = read_back(path).operatorCodes  # type: ignore[attr-defined]
    assert (code.deprecatedBuiltinCode, code.builtinCode) == (127, OPERATORS["CUMSUM"])
    assert run(path, np.float32([[1, 2, 3, 4]]))[0].tolist() == [[10, 9, 7, 4]]


def test_open_axes_signatures_and_metadata_are_there(tmp_path: Path) -> None:
    path = tmp_path / "open.tflite"
    x = Tensor("x", (1, 4), "float32", signature=(-1, 4))
    made = model("ABS", [x], [replace(x, name="y")])
    made = replace(
        made,
        description="a test",
        signatures=[Signature("serving_default", {"given": 0}, {"made": 1})],
        metadata={"notes": b"kept", "min_runtime_version": b"old"},
    )
    write_file(made, path)
    interpreter = Interpreter(model_path=str(path))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["given"], "outputs": ["made"]}}
    (entry,) = interpreter.get_input_details()
    assert entry["shape_signature"].tolist() == [-1, 4]
    interpreter.resize_tensor_input(0, (3, 4))
    interpreter.allocate_tensors()
    back = read_back(path)
    data = {one.name: bytes(back.buffers[one.buffer].data) for one in back.metadata}  # type: ignore[attr-defined]
    assert data == {b"notes": b"kept", b"min_runtime_version": b"1.13.0".ljust(16, b"\0")}
    assert (back.version, back.description) == (3, b"a test")  # type: ignore[attr-defined]
    assert path.read_bytes()[4:8] == b"TFL3"


def test_scales_reach_the_runtime(tmp_path: Path) -> None:
    path = tmp_path / "quantise.tflite"
    quantised = fed("y", (2, 3), "int8", scales([0.5, 0.25, 0.125], 0, 1))
    write_file(model("QUANTIZE", [fed("x", (2, 3))], [quantised]), path)
    (entry,) = Interpreter(model_path=str(path)).get_output_details()
    found = entry["quantization_parameters"]
    assert found["scales"].tolist() == [0.5, 0.25, 0.125]
    assert found["zero_points"].tolist() == [0, 0, 0]
    assert found["quantized_dimension"] == 1


def test_branches_are_subgraphs(tmp_path: Path) -> None:
    def branch(name: str, code: str) -> Subgraph:
        return Subgraph(name, [fed("a", (2,)), fed("b", (2,))], [Operator(code, (0,), (1,))], (0,), (1,))

    main = Subgraph(
        "main",
        [fed("which", (1,), "bool"), fed("x", (2,)), fed("y", (2,))],
        [Operator("IF", (0, 1), (2,), {"then_subgraph_index": 1, "else_subgraph_index": 2})],
        (0, 1),
        (2,),
    )
    path = tmp_path / "if.tflite"
    write_file(TfliteModel([main, branch("then", "ABS"), branch("else", "NEG")]), path)
    x = np.float32([-1, 2])
    assert run(path, np.array([True]), x)[0].tolist() == [1, 2]
    assert run(path, np.array([False]), x)[0].tolist() == [1, -2]


def test_strings_are_stored_as_tflite_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "text.tflite"
    words = np.array(["a", "", "déf"], object)
    text = Tensor("words", (3,), "string", data=words)
    write_file(model("GATHER", [text, fed("i", (3,), "int32")], [fed("y", (3,), "string")]), path)
    assert run(path, np.int32([2, 1, 0]))[0].tolist() == ["déf".encode(), b"", b"a"]


@pytest.mark.parametrize("data", [np.int8([[-8, 7, 3]]), np.int8([[-8, 7, 3]]).astype(ml_dtypes.int4)], ids=["8", "4"])
def test_int4_is_packed_as_litert_reads_it(tmp_path: Path, data: np.ndarray) -> None:
    path = tmp_path / "int4.tflite"
    packed = Tensor("w", (1, 3), "int4", quantization=scales(0.5), data=data)
    tensors = [fed("x", (1, 3)), packed, fed("real", (1, 3)), fed("y", (1, 3))]
    operators = [Operator("DEQUANTIZE", (1,), (2,), version=6), Operator("ADD", (0, 2), (3,))]
    write_file(TfliteModel([Subgraph("main", tensors, operators, (0,), (3,))]), path)
    assert run(path, np.zeros((1, 3), np.float32), builtin=True)[0].tolist() == [[-4, 3.5, 1.5]]


def test_int4_beyond_its_range_is_refused(tmp_path: Path) -> None:
    packed = Tensor("w", (1, 3), "int4", data=np.int8([[-9, 7, 3]]))
    with pytest.raises(ValueError, match="go from -9 to 7"):
        write_file(model("DEQUANTIZE", [packed], [fed("y", (1, 3))]), tmp_path / "int4.tflite")


SIMPLE = st.sampled_from(["float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        SIMPLE.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0))),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 2**30]),
)
def test_any_array_comes_back(tmp_path_factory: pytest.TempPathFactory, data: list[np.ndarray], largest: int) -> None:
    path = tmp_path_factory.mktemp("any") / "any.tflite"
    tensors = [constant(f"c{index}", one.T) for index, one in enumerate(data)]
    write_file(TfliteModel([Subgraph("main", tensors, [], (), ())]), path, largest=largest)
    raw, back = path.read_bytes(), read_back(path)
    for tensor, one in zip(back.subgraphs[0].tensors, data, strict=True):  # type: ignore[attr-defined]
        buffer = back.buffers[tensor.buffer]  # type: ignore[attr-defined]
        stored = raw[buffer.offset : buffer.offset + buffer.size] if buffer.offset else bytes(buffer.data)
        assert stored == np.ascontiguousarray(one.T).tobytes()


@pytest.mark.parametrize("code", TABLES)
def test_options_of_every_operator_come_back(code: str) -> None:
    packed = pack_options(code, defaults(code))
    assert options_of(code, packed.table) == defaults(code)
    assert packed.kind > 0


WRONG_OPTIONS = {
    "unknown": ("ADD", {"activation": "RELU"}, "do not know"),
    "no table": ("RELU", {"alpha": 1.0}, "has no options"),
    "missing": ("LEAKY_RELU", {}, "lack"),
    "no such name": ("CONV_2D", {"padding": "FULL"}, "none of"),
    "a list for a number": ("CONCATENATION", {"axis": (1,)}, "of type int"),
    "half a number": ("CONCATENATION", {"axis": 1.5}, "of type int"),
    "a number for a list": ("RESHAPE", {"new_shape": 3}, "is a list"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_options_that_an_operator_has_not_are_mistakes(case: tuple[str, dict, str]) -> None:
    code, options, message = case
    with pytest.raises(ValueError, match=message):
        pack_options(code, options)


def test_options_of_another_operator_are_refused() -> None:
    with pytest.raises(ValueError, match="with the options SoftmaxOptions"):
        options_of("ADD", SCHEMA.SoftmaxOptionsT())


def test_defaults_that_would_bite_are_not_the_schemas() -> None:
    assert defaults("SOFTMAX")["beta"] == 1
    assert (defaults("CONV_2D")["stride_w"], defaults("DEPTHWISE_CONV_2D")["depth_multiplier"]) == (1, 1)
    assert defaults("UNIDIRECTIONAL_SEQUENCE_LSTM")["fused_activation_function"] == "TANH"


def test_bytes_of_a_custom_operator_are_its_options(tmp_path: Path) -> None:
    path = tmp_path / "custom.tflite"
    operator = Operator("CUSTOM", (0,), (1,), {"custom_options": b"\x01\x02"}, custom="Mine")
    write_file(TfliteModel([Subgraph("main", [fed("x", (1,)), fed("y", (1,))], [operator], (0,), (1,))]), path)
    back = read_back(path)
    assert back.operatorCodes[0].customCode == b"Mine"  # type: ignore[attr-defined]
    assert bytes(back.subgraphs[0].operators[0].customOptions) == b"\x01\x02"  # type: ignore[attr-defined]
