"""Types in .skops files that are built without --trust, though skops does not list them as harmless.

skops builds an object by `__new__` and its attributes, whose own types are judged one by one, and calls
`__setstate__` where there is one. A type stands here if all of this holds:
  it belongs to scikit-learn or numpy, and fitted public estimators hold it always;
  it is written in Python, so that no damaged attribute is an address or an index that nobody checks;
  building it runs nothing: no `__setstate__`, `__reduce__` or `__new__` of its own; functions are named, not called.

Left out for the second reason: trees (`sklearn.tree._tree.Tree`, `TreePredictor`), and neighbours' trees and
distances (`KDTree`, `BallTree`, `EuclideanDistance64`): compiled code follows indices that come from the file.

Source: skops 0.16, io/_general.py and io/_numpy.py (`ObjectNode`, `FunctionNode`, `DTypeNode`, which reads an empty
array with `allow_pickle=False`); scikit-learn 1.9.
"""

_KERNELS = (
    "CompoundKernel",
    "ConstantKernel",
    "DotProduct",
    "ExpSineSquared",
    "Exponentiation",
    "Matern",
    "PairwiseKernel",
    "Product",
    "RBF",
    "RationalQuadratic",
    "Sum",
    "WhiteKernel",
)
_SCORES = ("chi2", "f_classif", "f_regression")

HARMLESS = frozenset(
    {
        # The state of training, which no prediction reads.
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        # Inner estimators without a public name.
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        *(f"sklearn.gaussian_process.kernels.{name}" for name in _KERNELS),
        # Functions that chose features while fitting.
        *(f"sklearn.feature_selection._univariate_selection.{name}" for name in _SCORES),
        # The type of the numbers that imputers and discretisers were fitted on.
        "numpy.dtype",
    }
)
"""By module and name."""
