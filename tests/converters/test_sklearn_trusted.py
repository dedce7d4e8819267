"""Which types of .skops files are built without --trust."""

# ruff: noqa: E402 - what is not installed is skipped before it is imported

import types
import warnings
from collections.abc import Callable
from pathlib import Path
from pydoc import locate

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skl2onnx")
skops_io = pytest.importorskip("skops.io")

from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from converters.importers import import_model
from converters.importers.sklearn.trusted import HARMLESS
from lepton_edge.errors import ModelError

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)

LOADED: dict[str, Callable[[], object]] = {
    "network, Adam": lambda: MLPClassifier([8], max_iter=3, random_state=0),
    "network, SGD": lambda: MLPClassifier([8], solver="sgd", max_iter=3, random_state=0),
    "calibrated": lambda: CalibratedClassifierCV(LogisticRegression(), cv=2),
    "imputer": lambda: make_pipeline(SimpleImputer(), LogisticRegression()),
    "chosen features": lambda: make_pipeline(SelectKBest(k=2), LogisticRegression()),
    "Gaussian process": lambda: GaussianProcessRegressor(RBF() + WhiteKernel(), optimizer=None),
}
COMPILED: dict[str, Callable[[], object]] = {
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "neighbours": KNeighborsClassifier,
}


def dumped(estimator: object, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skops_io.dump(estimator.fit(X, Y), path)
    return path


@pytest.mark.parametrize("make", LOADED.values(), ids=LOADED)
def test_fitted_estimators_load_without_trust(make: Callable[[], object], tmp_path: Path) -> None:
    assert import_model(dumped(make(), tmp_path / "a.skops")).signature.inputs[0].name == "x"


@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
def test_what_compiled_code_would_follow_unchecked_needs_trust(make: Callable[[], object], tmp_path: Path) -> None:
    path = dumped(make(), tmp_path / "a.skops")
    with pytest.raises(ModelError, match="not known to be harmless: sklearn"):
        import_model(path)
    assert import_model(path, trust=True).signature.inputs[0].name == "x"


@pytest.mark.parametrize("name", sorted(HARMLESS - {"numpy.dtype"}))
def test_building_one_of_them_runs_nothing(name: str) -> None:
    found = locate(name)
    if isinstance(found, types.FunctionType):
        return
    assert isinstance(found, type)
    assert found.__new__ is object.__new__
    assert found.__reduce__ is object.__reduce__
    own = getattr(found, "__setstate__", None)
    assert own is None or own is BaseEstimator.__setstate__  # it warns of other versions, and updates __dict__
    assert not any(base.__dict__.get("__slots__") for base in found.__mro__)


def test_the_type_of_numbers_cannot_be_built_with_a_state_of_its_own() -> None:
    with pytest.raises(TypeError):
        np.dtype.__new__(np.dtype)
