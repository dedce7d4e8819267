"""Graphs as text with weights from a seed, and what a pass must do to them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from converters.graph.canonical.names import name_all
from converters.graph.canonical.run import check, load
from converters.graph.canonical.table import PASSES, run_passes
from tests.converters.equality import largest_difference, random_inputs

BY_NAME = {item.name: item for item in PASSES}
Weight = tuple[int, ...] | float | list[int] | np.ndarray


@dataclass(frozen=True)
class Case:
    """One graph, the passes to run on it, and the operators that must be left."""

    text: str
    passes: Sequence[str]
    left: Mapping[str, int]
    weights: Mapping[str, Weight] = field(default_factory=dict)
    opset: int = 20
    sizes: Mapping[str, int] = field(default_factory=dict)


def graph(text: str, weights: Mapping[str, Weight] | None = None, *, opset: int = 20) -> onnx.ModelProto:
    """`(float[N,3] x) => (float[N,3] y) { y = Relu(x) }` with initialisers.

    A weight is a shape (random normal), a number (float32 scalar), a list (int64) or an array.
    """
    rng = np.random.default_rng(0)
    made: onnx.ModelProto = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {text}')
    for name, given in (weights or {}).items():
        made.graph.initializer.append(numpy_helper.from_array(_array(given, rng), name))
    for index, node in enumerate(made.graph.node):
        node.name = node.name or f"{node.op_type.lower()}{index}"
    return made


def _array(given: Weight, rng: np.random.Generator) -> np.ndarray:
    if isinstance(given, np.ndarray):
        return given
    if isinstance(given, tuple):
        return rng.standard_normal(given).astype(np.float32)
    return np.array(given, np.float32 if isinstance(given, float) else np.int64)


def counts(model: ir.Model) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph))


def run(case: Case) -> ir.Model:
    """Run the passes of a case alone, and check outputs, operators left, names and validity."""
    source = graph(case.text, case.weights, opset=case.opset)
    untouched = source.SerializeToString()
    made = load(source, where="case")
    run_passes(made, [BY_NAME[name] for name in case.passes])
    name_all(made)
    check(made, where="case")
    assert source.SerializeToString() == untouched, "the source was changed"
    assert counts(made) == dict(case.left)
    assert [value.name for value in made.graph.inputs] == [value.name for value in source.graph.input]
    assert [value.name for value in made.graph.outputs] == [value.name for value in source.graph.output]
    names = [node.name for node in made.graph]
    assert all(names)
    assert len(set(names)) == len(names)
    for batch in (1, 2):
        inputs = random_inputs(source, seed=batch, batch=batch, sizes=case.sizes)
        assert largest_difference(source, made, inputs) <= 1e-5
    return made
