"""Nodes for the converters that take the place of skl2onnx's own: names and constants in its containers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from lepton_edge.bundle.binding import Array


class Writer:
    """Adds nodes to skl2onnx's container, each of which gives a fresh name."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def constant(self, value: Array) -> str:
        """The name of a constant."""
        name = str(self._scope.get_unique_variable_name("constant"))
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
        self._container.add_initializer(name, kind, value.shape, np.ravel(value).tolist())
        return name

    def do(self, kind: str, *inputs: str, to: str = "", outputs: int = 1, to_type: int = 0, **attributes: int) -> str:
        """Add a node of ai.onnx; the name of its last output, which is `to` where given."""
        names = [str(self._scope.get_unique_variable_name(kind)) for _ in range(outputs)]
        names[-1] = to or names[-1]
        if to_type:
            attributes["to"] = to_type
        self._container.add_node(
            kind, list(inputs), names, name=self._scope.get_unique_operator_name(kind), **attributes
        )  # fmt: skip
        return names[-1]

    def trees(self, source: str, attributes: Mapping[str, Any]) -> str:
        """Add a TreeEnsembleRegressor of ai.onnx.ml; the name of its output."""
        raw = str(self._scope.get_unique_variable_name("raw"))
        self._container.add_node(
            "TreeEnsembleRegressor", [source], [raw], op_domain="ai.onnx.ml", op_version=1,
            name=self._scope.get_unique_operator_name("TreeEnsembleRegressor"), **attributes,
        )  # fmt: skip
        return raw

    def float(self, variable: Any) -> str:
        """The name of one of skl2onnx's variables in float32."""
        if type(variable.type).__name__ == "FloatTensorType":
            return str(variable.full_name)
        return self.do("Cast", variable.full_name, to_type=TensorProto.FLOAT)
