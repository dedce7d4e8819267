"""From an imported ONNX model to its canonical form."""

from typing import NamedTuple

import onnx
import onnx_ir as ir
from onnx import checker
from onnx_ir.passes.common import ShapeInferencePass

from converters.graph.canonical.edit import has_bodies, wrap
from converters.graph.canonical.infer import better, infer
from converters.graph.canonical.names import name_all
from converters.graph.canonical.table import run_passes
from converters.graph.canonical.weights import with_weights, without_weights
from converters.graph.signature import BATCH
from converters.importers.expand import adopt, expand
from converters.importers.ml import lower_ml
from converters.importers.opset import to_opset
from converters.ort import first_line
from lepton_edge.errors import ModelError

OPSET = 20
_SMALL = 1024
"""Bytes up to which a constant is shown to the checker; larger ones take part as inputs, by type and shape."""


class _Border(NamedTuple):
    name: str | None
    type: ir.TypeProtocol | None
    shape: ir.Shape | None


def canonicalise(model: onnx.ModelProto, *, where: str) -> ir.Model:
    """Bring a float model into canonical form (the package's modules list the forms).

    Args:
        model: as imported, weights inside; it is not changed, and the result refers to its weights.
        where: how messages name it.

    Returns:
        A graph of opset 20 that computes the same outputs: same names, types and order of inputs and outputs.

    Raises:
        ModelError, NotYetSupportedError, UnsupportedOperatorError: as `to_opset`; ModelError for an invalid graph too.
    """
    made = load(model, where=where)
    borders = [_Border(value.name, value.type, value.shape) for value in made.graph.outputs]
    run_passes(made)
    name_all(made)
    for value, border in zip(made.graph.outputs, borders, strict=True):
        value.type, value.shape = border.type or value.type, _known_best(value.shape, border.shape)
    check(made, where=where)
    return made


def _known_best(found: ir.Shape | None, declared: ir.Shape | None) -> ir.Shape | None:
    """An output's declared shape, with what is known by now of the axes that it leaves open."""
    if found is None or declared is None or len(found) != len(declared):
        return declared or found
    pairs = zip(found.dims, declared.dims, strict=True)
    return ir.Shape([size if isinstance(size, int) else better(known, size) for known, size in pairs])


def load(model: onnx.ModelProto, *, where: str) -> ir.Model:
    """What the passes start from: opset 20, of ai.onnx.ml what nothing else can write, types and shapes inferred.

    Raises as `canonicalise`.
    """
    light, weights = without_weights(model)
    plain = expand(to_opset(adopt(light), OPSET, where=where), where=where)
    made = ir.serde.deserialize_model(lower_ml(plain, where=where))
    with_weights(made, weights)
    _drop_fed_initialisers(made.graph)
    _name_axes(made.graph)
    _infer_all(made)
    return made


def _drop_fed_initialisers(graph: ir.Graph) -> None:
    """Files before IR version 4 list initialisers among the inputs; to everyone here they are constants."""
    kept = [value for value in graph.inputs if not value.is_initializer()]
    if len(kept) < len(graph.inputs):
        graph.inputs.clear()
        graph.inputs.extend(kept)


def _name_axes(graph: ir.Graph) -> None:
    """Give open axes of inputs without a name the one that the signature gives them, so that they can be compared."""
    for value in graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_axis(value, axis, size) for axis, size in enumerate(value.shape)])


def _axis(value: ir.Value, axis: int, size: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    """Some exporters write -1 for a size that they do not know."""
    known = size >= 0 if isinstance(size, int) else size.value is not None
    return size if known else ir.SymbolicDim(BATCH if axis == 0 else f"{value.name}_{axis}")


def _infer_all(model: ir.Model) -> None:
    """Forget what the file claims about types and shapes inside, and infer them anew.

    The outputs of operators of other domains keep theirs: nothing here can infer them.
    """
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            wrap(value, value.const_value)
    bodies = any(has_bodies(node) for node in model.graph)
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output() and node.domain in ("", "ai.onnx"):
                output.shape = output.type = None
    if bodies:
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
    infer(model, everything=True)


def check(model: ir.Model, *, where: str) -> None:
    """Run the full check of onnx over the graph, large constants left out so that weights are not copied.

    Raises:
        ModelError: with the checker's words; a valid model from outside never gets here.
    """
    proto = skeleton(model)
    try:
        checker.check_model(proto, full_check=True)
    except Exception as cause:
        raise ModelError(f"{where}: its canonical form is no valid ONNX graph: {first_line(cause)}") from cause


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf with its large constants turned into inputs of the same type and shape."""
    graph = model.graph
    large = [value for value in graph.initializers.values() if value.const_value and value.const_value.nbytes > _SMALL]
    for value in large:
        del graph.initializers[value.name or ""]
        graph.inputs.append(value)
    try:
        return ir.serde.serialize_model(model)
    finally:
        for value in large:
            graph.inputs.remove(value)
            graph.initializers.add(value)
