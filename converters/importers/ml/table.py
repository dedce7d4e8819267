"""The table from operators of ai.onnx.ml to functions that write them in plain ones, and the walk that applies it.

What a function leaves alone (it gives None), and what has no row, stays a node of ai.onnx.ml: ONNX Runtime runs it, in
float; no other format has it. Tree ensembles are the main ones: no plain operator walks a tree.
"""

from collections.abc import Mapping

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
from converters.importers.rounds import Writer, write_out

DOMAIN = "ai.onnx.ml"
_ROUNDS = 4
"""Converters chain two or three."""

LOWERINGS: Mapping[str, Writer] = {
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
    write_out(made, _row, domain=DOMAIN, rounds=_ROUNDS, where=where)
    return made


def _row(node: onnx.NodeProto) -> Writer | None:
    return LOWERINGS.get(node.op_type) if node.domain == DOMAIN else None
