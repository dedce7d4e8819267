"""LiteRT's kernels write over memory that is still read; the writer keeps them from it."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.tflite.model import Operator, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file
from converters.tflite.versions import with_versions
from converters.write.tflite.inplace import OVERWRITE, kept_apart

ONE_INPUT = {"SOFTMAX": {"beta": 1.0}, "RELU": {}, "TANH": {}, "RSQRT": {}, "EXP": {}}
NONE = {"fused_activation_function": "NONE"}
SHAPE, TURNED = (4, 8), (8, 4)


def net(code: str) -> Subgraph:
    """A = 3 (3 x), read as `turned` and later once more; `code` works on `turned`."""
    tensors = [
        Tensor("x", SHAPE, "float32"),
        Tensor("three", (1,), "float32", data=np.array([3], np.float32)),
        Tensor("sizes", (2,), "int32", data=np.array(TURNED, np.int32)),
        *(Tensor(name, SHAPE, "float32") for name in ("p", "a")),
        *(Tensor(name, TURNED, "float32") for name in ("turned", "worked", "y")),
        Tensor("z", SHAPE, "float32"),
    ]
    worked = Operator(code, (5,), (6,), ONE_INPUT[code]) if code in ONE_INPUT else Operator(code, (5, 1), (6,), NONE)
    operators = [
        Operator("MUL", (0, 1), (3,), NONE),
        Operator("MUL", (3, 1), (4,), NONE),
        Operator("RESHAPE", (4, 2), (5,), {"new_shape": list(TURNED)}),
        worked,
        Operator("MUL", (6, 1), (7,), NONE),
        Operator("SUB", (4, 1), (8,), NONE),
    ]
    return Subgraph("main", tensors, operators, (0,), (7, 8))


def z_of(subgraph: Subgraph, path: Path) -> np.ndarray:
    write_file(with_versions(TfliteModel([subgraph])), path)
    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    one = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kind)
    one.allocate_tensors()
    one.set_tensor(0, np.arange(32, dtype=np.float32).reshape(SHAPE))
    one.invoke()
    return one.get_tensor(8)


WANTED = 9 * np.arange(32, dtype=np.float32).reshape(SHAPE) - 3


@pytest.mark.parametrize("code", sorted(OVERWRITE | set(ONE_INPUT)))
def test_what_is_read_later_is_kept(code: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(z_of(kept_apart(net(code)), tmp_path / "net.tflite"), WANTED)


@pytest.mark.parametrize("code", sorted(OVERWRITE | set(ONE_INPUT)))
def test_a_reader_is_added_where_the_runtime_would_be_wrong_and_only_there(code: str, tmp_path: Path) -> None:
    plain = net(code)
    wrong = not np.array_equal(z_of(plain, tmp_path / "net.tflite"), WANTED)
    assert wrong == (code in OVERWRITE) == (len(kept_apart(plain).operators) > len(plain.operators))


def test_a_tensor_that_is_read_at_last_may_be_written_over() -> None:
    plain = net("ADD")
    *before, worked, product, last = plain.operators
    assert (
        len(kept_apart(Subgraph("main", plain.tensors, [*before, last, worked, product], (0,), (7, 8))).operators) == 6
    )
