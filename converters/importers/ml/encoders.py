"""ai.onnx.ml: choosing, filling in and encoding features.

Source: the operators' schemas (ONNX, ai.onnx.ml 1 to 4) and, where these leave it open, ONNX Runtime 1.32.
"""

import numpy as np
import onnx
from onnx import TensorProto

from converters.importers.ml.steps import Steps, floats, has, ints, real
from converters.importers.rewriting import Context, attribute

_LARGEST_TABLE = 4096
"""Keys of a LabelEncoder; each value is compared with each of them."""


def array_feature_extractor(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Columns of X by index; a vector gives a row."""
    known = context.types.get(node.input[0])
    if known is None or known.shape is None or known.elem_type == TensorProto.STRING:
        return None
    steps = Steps(node, context)
    index = context.constants.get(node.input[1])
    if index is None:
        flat = steps.do("Reshape", node.input[1], steps.axes(-1))
    else:
        flat = steps.constant(index.reshape(-1).astype(np.int64), "index")
    source = node.input[0]
    if len(known.shape) == 1:
        source = steps.do("Unsqueeze", source, steps.axes(0))
    steps.do("Gather", source, flat, to=node.output[0], axis=-1)
    return steps.nodes


def binarizer(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """1 where X is above the threshold, else 0."""
    steps = Steps(node, context)
    threshold = steps.scalar(real(node, "threshold", 0.0), "threshold")
    above = steps.do("Greater", steps.float(node.input[0]), threshold)
    steps.float(above, to=node.output[0])
    return steps.nodes


def feature_vectorizer(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """The inputs of shapes (N, F_i) side by side, in float32; vectors stay to ai.onnx.ml."""
    if any(context.rank(name) != 2 for name in node.input):
        return None
    steps = Steps(node, context)
    steps.do("Concat", *[steps.float(name) for name in node.input], to=node.output[0], axis=1)
    return steps.nodes


def imputer(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Put a value for each feature in place of what stands for a missing one, NaN mostly."""
    kind = context.types.get(node.input[0])
    values = floats(node, "imputed_value_floats")
    if kind is None or kind.elem_type != TensorProto.FLOAT or not values.size:
        return None
    steps, x = Steps(node, context), node.input[0]
    marker = real(node, "replaced_value_float", 0.0)
    missing = steps.do("IsNaN", x) if np.isnan(marker) else steps.do("Equal", x, steps.scalar(marker, "marker"))
    steps.do("Where", missing, steps.constant(values, "values"), x, to=node.output[0])
    return steps.nodes


def one_hot_encoder(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """1 at the category of each value, shape X.shape + (categories,); zeros alone for an unknown one.

    ONNX Runtime refuses unknown ones where `zeros` is 0; a graph has no way to.
    """
    categories, known = ints(node, "cats_int64s"), context.types.get(node.input[0])
    if not categories.size or known is None or known.elem_type == TensorProto.STRING:
        return None
    steps = Steps(node, context)
    whole = steps.cast(node.input[0], TensorProto.INT64)
    apart = steps.do("Unsqueeze", whole, steps.axes(-1))
    steps.float(steps.do("Equal", apart, steps.constant(categories, "categories")), to=node.output[0])
    return steps.nodes


def label_encoder(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """A value for each key, and one for all others; between numbers alone."""
    for kind, missing in (("int64s", -1), ("floats", -0.0)):
        if has(node, f"values_{kind}"):
            values = ints(node, "values_int64s") if kind == "int64s" else floats(node, "values_floats")
            default = attribute(node, f"default_{kind[:-1]}", missing)
            break
    else:
        return None
    keys = ints(node, "keys_int64s") if has(node, "keys_int64s") else floats(node, "keys_floats")
    if not keys.size or keys.size != values.size or keys.size > _LARGEST_TABLE or np.isnan(keys).any():
        return None
    steps = Steps(node, context)
    apart = steps.do("Unsqueeze", node.input[0], steps.axes(-1))
    equal = steps.float(steps.do("Equal", apart, steps.constant(keys, "keys")))
    place = steps.do("ArgMax", equal, axis=-1, keepdims=0)
    found = steps.do("Gather", steps.constant(values, "values"), place, axis=0)
    hits = steps.do("ReduceMax", equal, steps.axes(-1), keepdims=0)
    hit = steps.do("Greater", hits, steps.scalar(0.5, "half"))
    other = steps.constant(np.asarray(default, values.dtype), "default")
    steps.do("Where", hit, found, other, to=node.output[0])
    return steps.nodes
