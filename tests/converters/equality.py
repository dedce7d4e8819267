"""Whether two graphs compute the same: random inputs, and the largest difference of the outputs."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from converters.graph.signature import graph_inputs
from converters.ort import session

Array = npt.NDArray[np.generic]
Model = onnx.ModelProto | ir.Model

_INDEX_LIMIT = 2
"""Random integers are 0 or 1: valid as indices into nearly anything, and as flags."""


def random_inputs(
    model: Model, seed: int, *, batch: int = 1, sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """One random input per graph input: standard normal floats, integers 0 or 1, random booleans.

    Args:
        model: whose inputs to make.
        seed: of the generator.
        batch: the size of a symbolic first axis.
        sizes: of other symbolic axes, by their name; 2 where it is not given.
    """
    rng = np.random.default_rng(seed)
    proto = (
        ir.serde.serialize_model(ir.Model(_inputs_alone(model), ir_version=10))
        if isinstance(model, ir.Model)
        else model
    )
    made: dict[str, Array] = {}
    for value in graph_inputs(proto.graph):
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.dim_value > 0 else (batch if axis == 0 else (sizes or {}).get(dim.dim_param, 2))
            for axis, dim in enumerate(tensor.shape.dim)
        ]
        made[value.name] = _random(rng, shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return made


def _inputs_alone(model: ir.Model) -> ir.Graph:
    inputs = [ir.Value(name=value.name, shape=value.shape, type=value.type) for value in model.graph.inputs]
    return ir.Graph(inputs, [], nodes=[])


def _random(rng: np.random.Generator, shape: list[int], dtype: np.dtype[np.generic]) -> Array:
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, _INDEX_LIMIT, shape).astype(dtype)


def run_plain(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a graph in ONNX Runtime just as it is written: no graph optimisation."""
    proto = ir.serde.serialize_model(model) if isinstance(model, ir.Model) else model
    one = session(proto.SerializeToString(), optimise=False)
    names = [value.name for value in one.get_outputs()]
    return dict(zip(names, one.run(None, dict(inputs)), strict=True))


def largest_difference(before: Model, after: Model, inputs: Mapping[str, Array]) -> float:
    """The largest difference of any output element, relative to the largest magnitude in that output.

    Both run without graph optimisation. Infinite where outputs differ in name, shape or type, or in where they are
    not finite; 0 for equal ones. Of outputs that are not floats it is 1 where any element differs.
    """
    first, second = run_plain(before, inputs), run_plain(after, inputs)
    if list(first) != list(second):
        return float("inf")
    return max((_difference(first[name], second[name]) for name in first), default=0.0)


def _difference(one: Array, other: Array) -> float:
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if not np.issubdtype(one.dtype, np.floating):
        return 0.0 if np.array_equal(one, other) else 1.0
    first, second = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)) or not np.array_equal(
        first[~finite], second[~finite], equal_nan=True
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    gap = float(np.abs(first[finite] - second[finite]).max())
    return gap / max(float(np.abs(first[finite]).max()), 1e-12) if gap else 0.0
