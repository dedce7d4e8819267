"""Put a float graph into the form that the quantisers take: batch norm folded, opset 13 or later, nodes named."""

import onnx
from onnx import version_converter

from converters.graph.operators import opset
from converters.ort import first_line, simplified
from converters.source import Source
from lepton_edge.errors import NotYetSupportedError

PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear and DequantizeLinear know an axis."""


def prepare(source: Source) -> onnx.ModelProto:
    """Give a simplified copy of the graph for quantisation; `source` stays as it is.

    Raises:
        ModelError: ONNX Runtime does not take the model.
        NotYetSupportedError: an opset before 13 that ONNX's own converter cannot lift.
    """
    model = simplified(source.model, where=source.where)
    _drop_unused_domains(model)
    if opset(model) < PER_CHANNEL_OPSET:
        model = _lifted(model, source.where)
    _name_nodes(model)
    return model


def _lifted(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    try:
        lifted: onnx.ModelProto = version_converter.convert_version(model, PER_CHANNEL_OPSET)
    except (RuntimeError, version_converter.ConvertError, ValueError) as cause:
        raise NotYetSupportedError(
            f"not yet: {where} is written in opset {opset(model)}, int8 needs {PER_CHANNEL_OPSET}, and ONNX cannot "
            f"lift it ({first_line(cause)}): export the model again with a newer opset"
        ) from cause
    return lifted


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """ONNX Runtime declares all of its domains when it writes a model; other readers stumble over them."""
    used = {node.domain or "" for node in model.graph.node} | {"", "ai.onnx"}
    used |= {function.domain for function in model.functions}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: reports name nodes, and the quantiser keys tables by them."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}_{node.output[0] if node.output else ''}"
        taken.add(node.name)
