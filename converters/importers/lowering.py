"""Operators of newer opsets, taken back to an older one: by relabelling, or by the function that their schema gives."""

from typing import Protocol, cast

import onnx
from onnx import defs, helper

from converters.importers.functions import instantiate
from converters.importers.raising import ADAPTERS
from converters.importers.rewriting import Context, Type

STANDARD = {"", "ai.onnx"}
_OTHER_MEANING = {("GroupNormalization", 21)}
"""Version 21 has a scale per channel where 18 has one per group: the older form cannot stand for the newer."""


class _Bodies(Protocol):
    """What onnx's type stubs leave out of OpSchema."""

    function_opset_versions: list[int]
    context_dependent_function_opset_versions: list[int]

    def get_function_with_opset_version(self, version: int, /) -> bytes: ...
    def get_context_dependent_function_with_opset_version(
        self, version: int, node: bytes, types: list[bytes], /
    ) -> bytes: ...


def misfit(node: onnx.NodeProto, version: int, target: int, context: Context) -> str | None:
    """Why a node of a newer opset cannot be taken as it is by an older one; None where it can."""
    new = schema_of(node, version, context)
    if new.since_version <= target:
        return "it is withdrawn" if is_withdrawn(node, target) else None
    old = _schema_or_none(node.op_type, target)
    if old is None or (node.op_type, new.since_version) in _OTHER_MEANING:
        return f"it came with opset {new.since_version} and has no form in opset {target}"
    for entry in node.attribute:
        if entry.name not in old.attributes and not _is_default(entry, new):
            return f"its attribute {entry.name!r} came with opset {new.since_version}"
    if len(node.input) > old.max_input or len(node.output) > old.max_output:
        return f"it has inputs or outputs that came with opset {new.since_version}"
    return _wrong_type(node, old, context)


def is_withdrawn(node: onnx.NodeProto, target: int) -> bool:
    """Whether the operator is deprecated in the wanted opset without an adapter that replaces it."""
    schema = _schema_or_none(node.op_type, target) if is_standard(node) else None
    return schema is not None and schema.deprecated and (node.op_type, schema.since_version) not in ADAPTERS


def lowered(node: onnx.NodeProto, target: int) -> onnx.NodeProto:
    old = defs.get_schema(node.op_type, target, "")
    kept = [entry for entry in node.attribute if entry.name in old.attributes]
    if len(kept) == len(node.attribute):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    copy.attribute.extend(kept)
    return copy


def schema_body(node: onnx.NodeProto, version: int, context: Context) -> list[onnx.NodeProto] | None:
    """The function that an operator's schema gives for this node; None where it gives none."""
    schema = schema_of(node, version, context)
    bodies = cast("_Bodies", schema)
    typed = [at for at in bodies.context_dependent_function_opset_versions if at <= version]
    plain = [at for at in bodies.function_opset_versions if at <= version]
    if typed:
        types = [_type_bytes(context.types.get(name)) for name in node.input]
        data = bodies.get_context_dependent_function_with_opset_version(typed[-1], node.SerializeToString(), types)
    elif plain:
        data = bodies.get_function_with_opset_version(plain[-1])
    else:
        return None
    function = onnx.FunctionProto.FromString(data)
    for name, default in schema.attributes.items():
        if default.default_value.type and name not in {entry.name for entry in node.attribute}:
            node = _with(node, default.default_value)
    return instantiate(node, function, context.names) if function.node else None


def schema_of(node: onnx.NodeProto, version: int, context: Context) -> defs.OpSchema:
    schema = _schema_or_none(node.op_type, version)
    if schema is None:
        raise context.refuse(node, f"it does not exist in opset {version}: export the model again")
    return schema


def is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in STANDARD


def _schema_or_none(op_type: str, version: int) -> defs.OpSchema | None:
    try:
        schema = defs.get_schema(op_type, version, "")
    except defs.SchemaError:
        return None
    return schema


def _wrong_type(node: onnx.NodeProto, old: defs.OpSchema, context: Context) -> str | None:
    formal = list(old.inputs)
    for position, name in enumerate(node.input):
        known = context.types.get(name)
        if known is None or not formal or not known.elem_type:
            continue
        allowed = formal[min(position, len(formal) - 1)].types
        kind = f"tensor({onnx.TensorProto.DataType.Name(known.elem_type).lower()})"
        if allowed and kind not in allowed and any(each.startswith("tensor(") for each in allowed):
            return f"it takes no {kind} for {name!r} in the wanted opset"
    return None


def _is_default(entry: onnx.AttributeProto, schema: defs.OpSchema) -> bool:
    known = schema.attributes.get(entry.name)
    if known is None or not known.default_value.type:
        return False
    return bool(helper.get_attribute_value(entry) == helper.get_attribute_value(known.default_value))


def _with(node: onnx.NodeProto, entry: onnx.AttributeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.attribute.append(entry)
    return copy


def _type_bytes(known: Type | None) -> bytes:
    if known is None:
        return onnx.TypeProto().SerializeToString()  # type: ignore[no-any-return]
    made = helper.make_tensor_type_proto(known.elem_type, known.shape)
    return made.SerializeToString()  # type: ignore[no-any-return]
