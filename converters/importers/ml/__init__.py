"""Operators of the domain ai.onnx.ml (classic machine learning), written in those of ai.onnx where there is a way."""

from converters.importers.ml.table import LOWERINGS, lower_ml

__all__ = ["LOWERINGS", "lower_ml"]
