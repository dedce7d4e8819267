"""Recurrent operators without inputs that say nothing."""

import onnx_ir as ir

from converters.graph.canonical.edit import Array, constant, nodes_of, producer, settled

_FIRST_STATE = 5


def drop_zero_states(model: ir.Model) -> bool:
    """Leave out the initial state of LSTM, GRU and RNN where it is zeros, which is what its absence means.

    Requires: constants folded. Ensures: no such state that is a constant of zeros, or zeros made to the batch's size by
    ConstantOfShape or Expand.
    """
    changed = False
    for node in nodes_of(model, "LSTM", "GRU", "RNN"):
        for index in (_FIRST_STATE, _FIRST_STATE + 1):
            if index < len(node.inputs) and _is_zero(node.inputs[index]):
                node.replace_input_with(index, None)
                changed = True
    return settled(model.graph, changed=changed)


def _is_zero(value: ir.Value | None) -> bool:
    array: Array | None = constant(value)
    if array is not None:
        return not array.any()
    node = producer(value, "ConstantOfShape", "Expand", "Slice", "Transpose", "Reshape", "Unsqueeze", "Squeeze")
    if node is None:
        return False
    if node.op_type != "ConstantOfShape":
        return _is_zero(node.inputs[0])
    fill = node.attributes.get("value")
    return fill is None or not fill.as_tensor().numpy().any()
