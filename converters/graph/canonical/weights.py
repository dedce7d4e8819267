"""Large weights kept apart while the model is still protobuf: each rewriting of a message would copy them."""

from collections.abc import Mapping

import onnx
import onnx_ir as ir

_SMALL = 4096
"""Elements up to which a constant stays inside: scales, bounds and shapes that raising an opset looks at."""


def without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Mapping[str, onnx.TensorProto]]:
    """A copy of the model in which large initialisers are inputs of their type and shape, and those initialisers."""
    light = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(light, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(light.graph, field.name, value)
    inputs = {value.name for value in light.graph.input}
    apart: dict[str, onnx.TensorProto] = {}
    for tensor in model.graph.initializer:
        if _elements(tensor) <= _SMALL or tensor.name in apart:
            light.graph.initializer.append(tensor)
            continue
        apart[tensor.name] = tensor
        if tensor.name not in inputs:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            light.graph.input.append(value)
    return light, apart


def with_weights(model: ir.Model, apart: Mapping[str, onnx.TensorProto]) -> None:
    """Turn the inputs that `without_weights` made into constants; the tensors are wrapped, not copied."""
    graph = model.graph
    held = [value for value in graph.inputs if value.name in apart]
    kept = [value for value in graph.inputs if value.name not in apart]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for value in held:
        value.const_value = ir.serde.deserialize_tensor(apart[value.name or ""])
        graph.register_initializer(value)


def _copy(target: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    place = getattr(target, name)
    if hasattr(place, "extend"):
        place.extend(value)
    elif hasattr(place, "CopyFrom"):
        place.CopyFrom(value)
    else:
        setattr(target, name, value)


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
