"""The table from operators of ai.onnx.ml to functions that write them in plain ones, and the walk that applies it.

What a function leaves alone (it gives None), and what has no row, stays a node of ai.onnx.ml: ONNX Runtime runs it, in
float; no other format has it. Tree ensembles are the main ones: no plain operator walks a tree.
"""

from collections.abc import Callable, Mapping

import onnx

from converters.importers.ml.encoders import (
    array_feature_extractor,
    binarizer,
    feature_vectorizer,
    imputer,
    label_encoder,
    one_hot_encoder,
)
from converters.importers.ml.linear import linear_classifier, linear_regressor, normalizer, scaler
from converters.importers.ml.svm import svm_classifier, svm_regressor
from converters.importers.rewriting import Context, changed, context_of, graphs

DOMAIN = "ai.onnx.ml"
_ROUNDS = 4
"""A node behind one of ai.onnx.ml has no inferred rank before that is lowered; converters chain two or three."""

Lowering = Callable[[onnx.NodeProto, Context], list[onnx.NodeProto] | None]

LOWERINGS: Mapping[str, Lowering] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "Binarizer": binarizer,
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "LabelEncoder": label_encoder,
    "LinearClassifier": linear_classifier,
    "LinearRegressor": linear_regressor,
    "Normalizer": normalizer,
    "OneHotEncoder": one_hot_encoder,
    "SVMClassifier": svm_classifier,
    "SVMRegressor": svm_regressor,
    "Scaler": scaler,
}


def lower_ml(model: onnx.ModelProto, *, where: str) -> onnx.ModelProto:
    """Write the nodes of ai.onnx.ml that have a row in the table in operators of ai.onnx (13 or newer).

    Args:
        model: a checked model; it is not changed.
        where: how messages name it.

    Returns:
        A model that computes the same, names, types and order of inputs and outputs as they were; the same object
        where it holds no such node. Nodes inside of bodies (If, Loop, Scan) stay as they are.
    """
    if not any(node.domain == DOMAIN for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for _ in range(_ROUNDS):
        if not _round(made, where):
            break
    _drop_domain(made)
    return made


def _round(model: onnx.ModelProto, where: str) -> bool:
    """Lower what can be lowered with what is known now; whether anything was."""
    context = context_of(model, where=where, infer=True)
    nodes: list[onnx.NodeProto] = []
    any_lowered = False
    for node in model.graph.node:
        found = _lowered(node, context) if node.domain == DOMAIN else None
        any_lowered |= found is not None
        nodes += [node] if found is None else found
    copies = [changed(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return any_lowered


def _lowered(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    lowering = LOWERINGS.get(node.op_type)
    made = lowering(node, context) if lowering else None
    for number, inner in enumerate(made or ()):
        if node.name and inner.op_type != "Constant":
            inner.name = context.names.fresh(f"{node.name}/{inner.op_type}_{number}")
    return made


def _drop_domain(model: onnx.ModelProto) -> None:
    if any(node.domain == DOMAIN for graph in graphs(model.graph) for node in graph.node):
        return
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
