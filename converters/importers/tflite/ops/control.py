"""Operators that run other subgraphs: ONNX has them as bodies, which see the values around them."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from converters.importers.tflite.graph import Graph
from converters.importers.tflite.op import ONNX_TYPES, Op, Rule
from converters.importers.tflite.scope import Scope, is_steps
from converters.tflite.model import Tensor


def if_(op: Op) -> None:
    condition = _scalar(op, op.scope.graph, op.stored(0))
    inputs = [op.stored(position) for position in range(1, op.count)]
    branches = {}
    for branch, option in (("then_branch", "then_subgraph_index"), ("else_branch", "else_subgraph_index")):
        graph = op.scope.graph.body()
        scope = op.scope.inner(op.option(option, 0), graph)
        results = _results(op, scope, inputs)
        branches[branch] = _body(branch, graph, [], _infos(scope, scope.subgraph.outputs, results))
    _give(op, op.several("If", condition, count=len(op.operator.outputs), **branches))


def while_(op: Op) -> None:
    """ONNX looks at the condition at the end of a round; the first look is before the loop."""
    inputs = [op.stored(position) for position in range(op.count)]
    condition, number = op.option("cond_subgraph_index", 0), op.option("body_subgraph_index", 0)
    first = _condition(op, op.scope.graph, condition, inputs)
    graph = op.scope.graph.body()
    scope = op.scope.inner(number, graph)
    carried = [graph.names.fresh("carried") for _ in inputs]
    results = _results(op, scope, carried)
    again = graph.add("Identity", _condition(op, graph, condition, results), wish="again")
    count, before = graph.names.fresh("round"), graph.names.fresh("running")
    head = [helper.make_tensor_value_info(count, ONNX_TYPES["int64"], [])]
    head += [helper.make_tensor_value_info(name, ONNX_TYPES["bool"], []) for name in (before, again)]
    made = _body(
        "body", graph, [*head[:2], *_infos(scope, scope.subgraph.inputs, carried)],
        [head[2], *_infos(scope, scope.subgraph.outputs, results)],
    )  # fmt: skip
    _give(op, op.several("Loop", "", first, *inputs, count=len(inputs), body=made))


def composite(op: Op) -> None:
    """A named group of operators, which is there in plain operators too."""
    scope = op.scope.inner(op.option("decomposition_subgraph_index", 0), op.scope.graph)
    _give(op, _called(op, scope, [op.stored(position) for position in range(op.count)]))


def _condition(op: Op, graph: Graph, number: int, inputs: Sequence[str]) -> str:
    return _scalar(op, graph, _called(op, op.scope.inner(number, graph), inputs)[0])


def _called(op: Op, scope: Scope, inputs: Sequence[str]) -> list[str]:
    """Read a subgraph, fed with values."""
    wanted = scope.subgraph.inputs
    if len(wanted) != len(inputs) or not scope.subgraph.outputs:
        raise op.refuse(f"it gives {len(inputs)} values to subgraph {scope.number}, which takes {len(wanted)}")
    for index, name in zip(wanted, inputs, strict=True):
        scope.bind(index, name)
    scope.read(scope)
    return [scope.stored(index) for index in scope.subgraph.outputs]


def _results(op: Op, scope: Scope, inputs: Sequence[str]) -> list[str]:
    """The same, each value by a node of the body's own."""
    return [scope.graph.add("Identity", name, wish="result") for name in _called(op, scope, inputs)]


def _scalar(op: Op, graph: Graph, name: str) -> str:
    return graph.add("Reshape", name, graph.constant(np.zeros(0, np.int64), "scalar"), wish=f"{op.code}_condition")


def _infos(scope: Scope, indices: Sequence[int], names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    tensors = [scope.tensor(index) for index in indices]
    return [_info(name, tensor, real=scope.all_real) for name, tensor in zip(names, tensors, strict=True)]


def _info(name: str, tensor: Tensor, *, real: bool) -> onnx.ValueInfoProto:
    """Of a type, but of no shape: what goes round may grow."""
    dtype = "float32" if real and is_steps(tensor) else tensor.dtype
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], None)


def _body(
    name: str, graph: Graph, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    return helper.make_graph(graph.nodes, name, inputs, outputs)


def _give(op: Op, names: Sequence[str]) -> None:
    if len(names) < len(op.operator.outputs):
        raise op.refuse(f"it has {len(op.operator.outputs)} outputs, its subgraph {len(names)}")
    for position, name in enumerate(names[: len(op.operator.outputs)]):
        op.out_stored(name, at=position)


CONTROL: Mapping[str, Rule] = {
    "IF": if_,
    "STABLEHLO_COMPOSITE": composite,
    "WHILE": while_,
}
