"""What a user asked of `convert`, checked before any work is done."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from converters.calibrate.ranges import Method
from converters.graph.signature import Shapes
from converters.measure.metrics import counts_in_points
from lepton_edge.errors import NotYetSupportedError, UsageError
from lepton_edge.names import check_name, is_name

DEFAULT_BUDGET = 1.0
DEFAULT_VERSION = "1"
PRECISIONS = ("8", "16")
AUTO = "auto"
METHODS = (AUTO, *get_args(Method))
_LATER_PRECISIONS = {"4", "auto"}
FORMATS = ("onnx", "tflite")


@dataclass(frozen=True)
class Request:
    """One conversion.

    Attributes:
        model: what `import_model` takes.
        out: the .lep to write.
        data: DATA, None where there are none.
        calibration: how many samples of `data` calibrate; None: 100, or half of fewer than 200.
        calibration_data: DATA of its own for calibration; then all of `data` evaluates.
        method: how ranges are chosen from the calibration statistics: one of METHODS.
        state: for recurrent models, input name by the name of the output that is fed back into it.
        budget: the drop allowed: points, or the metric's own unit.
        precision: one of PRECISIONS.
        formats: some of FORMATS.
        shapes: sizes for inputs whose axes other than the batch are symbolic.
        name, version: of the bundle; "" takes the model's file name and "1".
        evaluate, benchmark: whether to measure accuracy and speed.
        keep_all: keep variants that are not faster than float.
        inputs: example inputs of a torch module.
        trust: allow formats that can run code.
    """

    model: object
    out: Path
    data: object = None
    calibration: int | None = None
    calibration_data: object = None
    method: str = AUTO
    state: Mapping[str, str] = field(default_factory=dict)
    preprocess: Path | None = None
    labels: Path | None = None
    metric: str | None = None
    budget: float = DEFAULT_BUDGET
    precision: str = "8"
    formats: Sequence[str] = FORMATS
    shapes: Shapes = field(default_factory=dict)
    name: str = ""
    version: str = DEFAULT_VERSION
    seed: int = 0
    evaluate: bool = True
    benchmark: bool = True
    keep_all: bool = False
    inputs: object = None
    trust: bool = False

    @property
    def report(self) -> Path:
        """OUT.report.html, beside the bundle."""
        return self.out.with_name(f"{self.out.name.removesuffix('.lep')}.report.html")

    def bundle_name(self) -> str:
        """The name asked for, else one made of the model's file name."""
        if self.name:
            return self.name
        stem = Path(self.model).stem if isinstance(self.model, str | Path) else "model"
        safe = "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "-" for char in stem)
        safe = safe.lstrip("_.-")[:63]
        return safe if is_name(safe) else "model"


def check_request(request: Request) -> None:
    """Refuse what makes no sense, and what comes later.

    Raises:
        UsageError: values that contradict each other or are out of range.
        NotYetSupportedError: a precision that comes later.
    """
    check_precision(request.precision)
    if request.out.suffix != ".lep":
        raise UsageError(f"{request.out}: a bundle's name ends in .lep")
    if request.out.is_dir():
        raise UsageError(f"{request.out} is a folder: name the file to write")
    check_name(request.bundle_name(), what="bundle name")
    check_name(request.version, what="version")
    check_terms(request)


def check_terms(request: Request) -> None:
    """Raises UsageError for a format, a method, a budget or samples that make no sense."""
    check_formats(request.formats)
    check_method(request.method)
    check_budget(request.budget, request.metric)
    check_data(request)


def check_precision(precision: object) -> None:
    """Raises NotYetSupportedError or UsageError for anything but PRECISIONS."""
    text, today = str(precision), " and ".join(PRECISIONS)
    if text in _LATER_PRECISIONS:
        raise NotYetSupportedError(f"not yet: precision {text}; today: {today}")
    if text not in PRECISIONS:
        raise UsageError(f"unknown precision {text!r}; today: {today}")


def check_formats(formats: Sequence[str]) -> None:
    """Raises UsageError for formats that are unknown, or none."""
    if not formats:
        raise UsageError(f"no format: give some of {', '.join(FORMATS)}")
    for wanted in formats:
        if wanted not in FORMATS:
            raise UsageError(f"unknown format {wanted!r}: give some of {', '.join(FORMATS)}")


def check_method(method: str) -> None:
    """Raises UsageError for a way to choose ranges that is unknown."""
    if method not in METHODS:
        raise UsageError(f"unknown calibration method {method!r}: give one of {', '.join(METHODS)}")


def check_budget(budget: float, metric: str | None) -> None:
    """Raises UsageError for a budget that no drop of the metric can be compared with."""
    if counts_in_points(metric):
        if not 0 <= budget <= 100:
            raise UsageError(f"--budget {budget:g}: give points from 0 to 100")
    elif not (math.isfinite(budget) and budget >= 0):
        raise UsageError(f"--budget {budget:g}: give 0 or more, in the unit of {metric}")


def check_data(request: Request) -> None:
    """Raises UsageError for sources of samples that contradict each other, or for what needs some and has none."""
    if request.data is None and (request.calibration is not None or request.calibration_data is not None):
        raise UsageError("--calibration and --calibration-data need --data to evaluate with")
    if request.data is None and (request.method != AUTO or request.state):
        raise UsageError("--calibrate-method and --state are about calibration: give --data to calibrate with")
    if request.calibration is not None and request.calibration_data is not None:
        raise UsageError("give either --calibration or --calibration-data")
    if request.calibration is not None and request.calibration < 1:
        raise UsageError(f"--calibration {request.calibration}: give 1 or more")
    if request.calibration_data is not None and _same_path(request.data, request.calibration_data):
        raise UsageError("--calibration-data is --data itself: calibration and evaluation never share a sample")


def _same_path(one: object, other: object) -> bool:
    return (
        isinstance(one, str | Path) and isinstance(other, str | Path) and Path(one).resolve() == Path(other).resolve()
    )
