"""Graphs that would take more memory than any machine has are refused before something runs them.

A few bytes are enough for that: a Tile by 10**10, a Resize by 50,000, a Range of 10**11.
"""

import math

import onnx
from onnx import shape_inference

from converters.graph.operators import node_label
from converters.importers.rewriting import without_weights
from lepton_edge.errors import ModelError

MAX_ELEMENTS = 1 << 30
"""Of one tensor in a run of one sample: 4 GiB of floats, twice the 4K picture in 64 channels."""


def check_sizes(model: onnx.ModelProto, *, where: str) -> None:
    """Refuse tensors beyond all measure, as far as their sizes follow from the graph; open sizes count as 1.

    Args:
        model: a checked model; not changed.
        where: how messages name it.

    Raises:
        ModelError: naming the node that gives the tensor, and its shape.
    """
    try:
        # Not with data_prop: onnx would write such a Range out.
        inferred = shape_inference.infer_shapes(without_weights(model)).graph
    except (shape_inference.InferenceError, RuntimeError):
        return  # canonicalisation says what is wrong with it
    known = {value.name: _shape(value) for value in (*inferred.value_info, *inferred.output)}
    for node in model.graph.node:
        for name in node.output:
            if math.prod(known.get(name, [])) > MAX_ELEMENTS:
                shape = "x".join(map(str, known[name]))
                raise ModelError(
                    f"{where}: {node_label(node)} gives a tensor of {shape} elements in a run of one sample; more than "
                    f"{MAX_ELEMENTS} fit no device: is the file damaged?"
                )


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [max(dim.dim_value, 0) if dim.HasField("dim_value") else 1 for dim in value.type.tensor_type.shape.dim]
