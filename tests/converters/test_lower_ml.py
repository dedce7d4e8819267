"""Operators of ai.onnx.ml in plain ones, against ONNX Runtime's own kernels for them."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from converters.importers.ml import LOWERINGS, lower_ml


def run(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def node_of(op_type: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, name="it", domain="ai.onnx.ml", **attributes)


def ml_model(node: onnx.NodeProto, kind: int, outputs: Mapping[str, int], shape: list[int | None]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind_, None) for name, kind_ in outputs.items()]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", kind, shape)], values)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741
FLOATS = np.random.default_rng(5).normal(0, 2, (7, 4)).astype(np.float32)
INTEGERS = np.random.default_rng(5).integers(0, 4, (7, 4))
HOLES = np.where(FLOATS > 2, np.nan, FLOATS).astype(np.float32)
WEIGHTS = np.random.default_rng(6).normal(0, 1, 12).tolist()
OPERATORS: Mapping[str, tuple[onnx.NodeProto, np.ndarray, Mapping[str, int]]] = {
    "LinearRegressor": (
        node_of("LinearRegressor", ["x"], ["y"], coefficients=WEIGHTS, intercepts=[0.5, 1.0, -1.0], targets=3),
        FLOATS, {"y": F},
    ),
    **{
        f"LinearClassifier {transform}": (
            node_of(
                "LinearClassifier", ["x"], ["label", "y"], coefficients=WEIGHTS, intercepts=[0.5, 1.0, -1.0],
                classlabels_ints=[3, 1, 7], post_transform=transform, multi_class=1,
            ),
            FLOATS, {"label": I, "y": F},
        )
        for transform in ("NONE", "SOFTMAX", "LOGISTIC")
    },
    **{
        f"Normalizer {norm}": (node_of("Normalizer", ["x"], ["y"], norm=norm), FLOATS, {"y": F})
        for norm in ("L1", "L2", "MAX")
    },
    "Normalizer of zeros": (node_of("Normalizer", ["x"], ["y"], norm="L2"), FLOATS * 0, {"y": F}),
    "Scaler": (node_of("Scaler", ["x"], ["y"], offset=WEIGHTS[:4], scale=WEIGHTS[4:8]), FLOATS, {"y": F}),
    "Scaler, one for all": (node_of("Scaler", ["x"], ["y"], offset=[0.5], scale=[3.0]), INTEGERS, {"y": F}),
    "Imputer": (
        node_of("Imputer", ["x"], ["y"], imputed_value_floats=WEIGHTS[:4], replaced_value_float=float("nan")),
        HOLES, {"y": F},
    ),
    "Imputer of a number": (
        node_of("Imputer", ["x"], ["y"], imputed_value_floats=[9.0], replaced_value_float=float(FLOATS[2, 1])),
        FLOATS, {"y": F},
    ),
    "Binarizer": (node_of("Binarizer", ["x"], ["y"], threshold=0.25), FLOATS, {"y": F}),
    "OneHotEncoder": (node_of("OneHotEncoder", ["x"], ["y"], cats_int64s=[2, 0, 5], zeros=1), INTEGERS, {"y": F}),
    "OneHotEncoder of floats": (
        node_of("OneHotEncoder", ["x"], ["y"], cats_int64s=[2, 0, 5], zeros=1), INTEGERS.astype(np.float32), {"y": F},
    ),
    "LabelEncoder": (
        node_of("LabelEncoder", ["x"], ["y"], keys_int64s=[2, 0, 3], values_floats=[0.5, 8.0, 1.0], default_float=-2.0),
        INTEGERS, {"y": F},
    ),
    "LabelEncoder of floats": (
        node_of("LabelEncoder", ["x"], ["y"], keys_floats=[2.0, 0.0, 3.0], values_int64s=[5, 8, 1], default_int64=-7),
        INTEGERS.astype(np.float32), {"y": I},
    ),
    "SVMRegressor": (
        node_of(
            "SVMRegressor", ["x"], ["y"], kernel_type="RBF", kernel_params=[0.2, 0.0, 3.0], support_vectors=WEIGHTS,
            coefficients=[1.0, -2.0, 0.5], n_supports=3, rho=[0.1],
        ),
        FLOATS, {"y": F},
    ),
    **{
        f"SVMClassifier {kernel}": (
            node_of(
                "SVMClassifier", ["x"], ["label", "y"], kernel_type=kernel, kernel_params=[0.2, 0.7, 3.0],
                support_vectors=WEIGHTS, coefficients=[1.0, -2.0, 0.5, 0.3, -0.6, 1.2], vectors_per_class=[1, 1, 1],
                rho=[0.1, -0.2, 0.05], classlabels_ints=[4, 0, 9],
            ),
            FLOATS, {"label": I, "y": F},
        )
        for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID")
    },
    "SVMClassifier of two": (
        node_of(
            "SVMClassifier", ["x"], ["label", "y"], kernel_type="RBF", kernel_params=[0.2, 0.7, 3.0],
            support_vectors=WEIGHTS, coefficients=[1.0, -2.0, 0.5], vectors_per_class=[1, 2], rho=[0.1],
            classlabels_ints=[4, 0],
        ),
        FLOATS, {"label": I, "y": F},
    ),
    "FeatureVectorizer": (node_of("FeatureVectorizer", ["x"], ["y"], inputdimensions=[4]), FLOATS, {"y": F}),
}  # fmt: skip


@pytest.mark.parametrize("case", OPERATORS.values(), ids=OPERATORS)
def test_operators_of_classic_machine_learning_against_onnx_runtime(
    case: tuple[onnx.NodeProto, np.ndarray, Mapping[str, int]],
) -> None:
    node, x, outputs = case
    model = ml_model(node, helper.np_dtype_to_tensor_dtype(x.dtype), outputs, [None, x.shape[1]])
    lowered = lower_ml(model, where="m")
    assert not any(node.domain for node in lowered.graph.node)
    for name, want in run(model, x).items():
        found = run(lowered, x)[name]
        assert found.shape == want.shape
        assert found.dtype == want.dtype
        np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-6)
    assert node.op_type in LOWERINGS


@pytest.mark.parametrize("shape", [[None, 4], [None, 3, 4]], ids=str)
def test_columns_are_extracted(shape: list[int | None]) -> None:
    x = np.arange(24, dtype=np.float32).reshape([-1 if size is None else size for size in shape])
    model = ml_model(node_of("ArrayFeatureExtractor", ["x", "places"], ["y"]), F, {"y": F}, shape)
    model.graph.initializer.append(helper.make_tensor("places", I, [1, 2], [3, 1]))
    lowered = lower_ml(model, where="m")
    assert not any(node.domain for node in lowered.graph.node)
    assert np.array_equal(run(lowered, x)["y"], run(model, x)["y"])


STAYS: Mapping[str, onnx.NodeProto] = {
    "labels that are names": node_of(
        "LinearClassifier", ["x"], ["label", "y"], coefficients=WEIGHTS[:8], intercepts=[0.5, 1.0],
        classlabels_strings=["a", "b"],
    ),
    "one row for two classes": node_of(
        "LinearClassifier", ["x"], ["label", "y"], coefficients=WEIGHTS[:4], intercepts=[0.5], classlabels_ints=[0, 1],
    ),
    "an unknown transform": node_of(
        "LinearClassifier", ["x"], ["label", "y"], coefficients=WEIGHTS[:8], intercepts=[0.5, 1.0],
        classlabels_ints=[0, 1], post_transform="PROBIT",
    ),
}  # fmt: skip


@pytest.mark.parametrize("node", STAYS.values(), ids=STAYS)
def test_what_cannot_be_said_plainly_stays(node: onnx.NodeProto) -> None:
    model = ml_model(node, F, {"label": I, "y": F}, [None, 4])
    assert [node.op_type for node in lower_ml(model, where="m").graph.node] == ["LinearClassifier"]
