"""Which older versions of an operator compute the same as the one of opset 20, for the node at hand.

The standard bumps an operator's version for every type that it newly allows and for every attribute that it adds.
A node that uses neither means the same in the version before. `SAME` lists those bumps by operator; `fits` asks the
schemas whether this node is legal in the older version; `_CONDITIONS` holds what no schema says.
Source: the changelog of the ONNX operators (docs/Changelog.md of the onnx project), read off `onnx.defs`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import onnx_ir as ir
from onnx import defs, helper

TOP = 20
"""The opset of the canonical graph."""
FLOOR = 11
"""No file is written below it: it is what ONNX Runtime 1.0, the first with a stable interface, was released with, and
operators of older opsets lack inputs (Clip, Pad, Slice, Resize) and negative axes that the canonical form has."""

_TWO = (14, 13, 7)
_ONE = (13, 11)
SAME: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _TWO),
    **dict.fromkeys(("Abs", "Ceil", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Sigmoid", "Sqrt", "Tanh"), (13, 6)),
    **dict.fromkeys(("ArgMax", "ArgMin", "Clip", "GatherND"), (13, 12, 11)),
    **dict.fromkeys(("Concat", "DepthToSpace", "Flatten", "Gather", "GatherElements", "Gemm", "Slice"), _ONE),
    **dict.fromkeys(("Erf", "IsNaN", "MatMul", "MeanVarianceNormalization", "NonZero", "Sign"), (13, 9)),
    **dict.fromkeys(("Expand", "Mean", "Sum"), (13, 8)),
    **dict.fromkeys(("Greater", "Less"), (13, 9)),
    **dict.fromkeys(("GreaterOrEqual", "LessOrEqual"), (16, 12)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (14, 7)),
    **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), _ONE),
    **dict.fromkeys(("If", "Loop"), (19, 16, 13, 11)),
    **dict.fromkeys(("LRN", "SpaceToDepth", "Transpose"), (13, 1)),
    **dict.fromkeys(("Max", "Min"), (13, 12, 8)),
    **dict.fromkeys(("PRelu", "Where"), (16, 9)),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), (20, 18)),
    **dict.fromkeys(("ScatterElements", "ScatterND"), (18, 16, 13, 11)),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), (19, 13, 10)),
    "AveragePool": (19, 11),
    "BatchNormalization": (15, 14, 9),
    "Cast": (19, 13, 9),
    "CastLike": (19, 15),
    "Constant": (19, 13, 12, 11),
    "ConstantOfShape": (20, 9),
    "CumSum": (14, 11),
    "Equal": (19, 13, 11),
    "Identity": (19, 16, 14, 13, 1),
    "IsInf": (20, 10),
    "IsNaN": (20, 13, 9),
    "LeakyRelu": (16, 6),
    "LpPool": (18, 11),
    "MaxPool": (12, 11),
    "Mod": (13, 10),
    "Pad": (19, 18, 13, 11),
    "Pow": (15, 13, 12, 7),
    "Relu": (14, 13, 6),
    "Reshape": (19, 14, 13, 5),
    "Resize": (19, 18, 13),
    "Scan": (19, 16, 11),
    "Shape": (19, 15, 13, 1),
    "Size": (19, 13, 1),
    "Split": (18, 13),
    "Tile": (13, 6),
}
"""Operator -> versions, the newest first, that compute the same for a node that is legal in each of them."""


def _last_axis(node: ir.Node) -> bool:
    """Before 13 the axes from `axis` on were taken as one: the same only where it is the last."""
    value, axis = node.inputs[0], node.attributes.get("axis")
    rank = len(value.shape) if value is not None and value.shape is not None else None
    return axis is not None and rank is not None and axis.as_int() in {-1, rank - 1}


def _per_tensor(node: ir.Node) -> bool:
    scale = node.inputs[1]
    return scale is not None and scale.shape is not None and len(scale.shape) == 0


def _text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


_CONDITIONS: Mapping[tuple[str, int], Callable[[ir.Node], bool]] = {
    ("DequantizeLinear", 10): _per_tensor,
    ("QuantizeLinear", 10): _per_tensor,
    ("Hardmax", 11): _last_axis,
    ("LogSoftmax", 11): _last_axis,
    ("Softmax", 11): _last_axis,
    ("Pad", 18): lambda node: _text(node, "mode", "constant") != "wrap",
    ("Resize", 18): lambda node: _text(node, "coordinate_transformation_mode", "half_pixel") != "half_pixel_symmetric",
    ("ScatterElements", 16): lambda node: _text(node, "reduction", "none") in {"none", "add", "mul"},
    ("ScatterND", 16): lambda node: _text(node, "reduction", "none") in {"none", "add", "mul"},
}
"""(operator, older version) -> what must hold beyond the schemas."""


@cache
def schema(op_type: str, opset: int) -> defs.OpSchema:
    """The schema in force at `opset`."""
    return defs.get_schema(op_type, opset, "")


def since(node: ir.Node, opset: int = TOP) -> int:
    """The version of the node's operator that is in force at `opset`."""
    version: int = schema(node.op_type, opset).since_version
    return version


def older(node: ir.Node, version: int) -> int | None:
    """The next older version that computes the same for this node; None where there is none."""
    versions = SAME.get(node.op_type, ())
    if version not in versions[:-1]:
        return None
    lower = versions[versions.index(version) + 1]
    holds = _CONDITIONS.get((node.op_type, lower))
    return lower if fits(node, lower) and (holds is None or holds(node)) else None


def fits(node: ir.Node, version: int) -> bool:
    """Whether the node is legal in an older version, but for attributes at their defaults (see `droppable`).

    A tensor whose type is unknown is taken as one that does not fit.
    """
    old = schema(node.op_type, version)
    bound: dict[str, str] = {}
    return (
        _all_fit(node.inputs, old.inputs, old, bound)
        and _all_fit(node.outputs, old.outputs, old, bound)
        and all(name in old.attributes or droppable(node, name) for name in node.attributes)
        and all(_default_kept(node, name, old) for name in old.attributes)
    )


def droppable(node: ir.Node, name: str) -> bool:
    """Whether an attribute says only what its absence would say."""
    attribute = node.attributes[name]
    if name == "dilations":
        return all(step == 1 for step in attribute.as_ints())
    if name == "axis" and node.op_type in {"DequantizeLinear", "QuantizeLinear"}:
        return _per_tensor(node)
    known = schema(node.op_type, TOP).attributes.get(name)
    return known is not None and known.default_value.name != "" and _default(known) == attribute.value


def _default(known: defs.OpSchema.Attribute) -> object:
    value: object = helper.get_attribute_value(known.default_value)
    return value.decode() if isinstance(value, bytes) else value


def _default_kept(node: ir.Node, name: str, old: defs.OpSchema) -> bool:
    """An attribute that is absent must be allowed to be, and mean the same."""
    if name in node.attributes:
        return True
    before, now = old.attributes[name], schema(node.op_type, TOP).attributes.get(name)
    if before.required or now is None:
        return not before.required
    return bool(before.default_value == now.default_value)


def _all_fit(
    values: Sequence[ir.Value | None],
    formals: Sequence[defs.OpSchema.FormalParameter],
    old: defs.OpSchema,
    bound: dict[str, str],
) -> bool:
    """Whether every tensor stands where the older schema has one, in a type that it allows."""
    given = list(values)
    while given and (given[-1] is None or not given[-1].name):
        given.pop()
    for index, formal in enumerate(formals):
        absent = index >= len(given) or given[index] is None
        if absent and formal.option == defs.OpSchema.FormalParameterOption.Single:
            return False
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in old.type_constraints}
    for index, value in enumerate(given):
        if index >= len(formals) and not (formals and _variadic(formals[-1])):
            return False
        if value is not None and not _type_fits(value, formals[min(index, len(formals) - 1)], allowed, bound):
            return False
    return True


def _variadic(formal: defs.OpSchema.FormalParameter) -> bool:
    return bool(formal.option == defs.OpSchema.FormalParameterOption.Variadic)


def _type_fits(
    value: ir.Value, formal: defs.OpSchema.FormalParameter, allowed: dict[str, set[str]], bound: dict[str, str]
) -> bool:
    kind = type_text(value)
    if kind is None or kind not in allowed.get(formal.type_str, {formal.type_str}):
        return False
    return not formal.is_homogeneous or bound.setdefault(formal.type_str, kind) == kind


def type_text(value: ir.Value) -> str | None:
    """A tensor's type as schemas write it, such as `tensor(float)`; None for what is unknown or no tensor."""
    if not isinstance(value.type, ir.TensorType):
        return None
    return f"tensor({value.type.dtype.name.lower()})"
