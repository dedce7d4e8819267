"""scikit-learn: estimators in memory, .skops files, and pickles where they are trusted; to ONNX through skl2onnx.

scikit-learn, skl2onnx and skops are imported inside of functions: the extra `sklearn` is optional.
"""

from converters.importers.sklearn.estimator import import_estimator, is_estimator
from converters.importers.sklearn.files import import_pickle, import_skops

__all__ = ["import_estimator", "import_pickle", "import_skops", "is_estimator"]
