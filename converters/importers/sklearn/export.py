"""From a fitted estimator to an ONNX graph of float32 features: skl2onnx, and what it leaves to do."""

# ruff: noqa: PLC0415 - an optional package is imported by the function that needs it

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.graph.signature import BATCH
from converters.importers.quiet import quiet
from converters.importers.rewriting import context_of
from converters.importers.sklearn import hist, neighbours
from converters.importers.sklearn.answers import INPUT, SCORES, Answer
from converters.importers.tidy import tidy
from converters.ort import first_line
from lepton_edge.errors import LeptonError, UnsupportedOperatorError

_OPSET = 20
_ML_OPSET = 3
_CLASS = re.compile(r"<class '([\w.]+)'>")
_CHOICES: Sequence[Mapping[str, bool]] = (
    {"zipmap": False, "raw_scores": True},
    {"raw_scores": True},
    {"zipmap": False},
    {},
)
"""Tried in turn: each estimator takes options of its own, and skl2onnx refuses the others."""


def export(estimator: Any, features: int, *, where: str) -> onnx.ModelProto:
    """Have skl2onnx write the graph; its input is `x` of shape (N, features), its outputs are skl2onnx's.

    Raises:
        UnsupportedOperatorError: naming the estimator that cannot be converted.
    """
    for options in _choices(estimator):
        try:
            model = _converted(estimator, features, options)
        except LeptonError as error:
            raise UnsupportedOperatorError(f"{where}: {error}", operator=type(estimator).__name__) from error
        except Exception as cause:  # skl2onnx raises whatever goes wrong
            if options and "ption" in str(cause) and isinstance(cause, NameError | RuntimeError | ValueError):
                continue
            raise _unsupported(estimator, cause, where) from cause
        _keep_one_opset(model)
        return model
    raise AssertionError  # the last options are none


def _choices(estimator: Any) -> Sequence[Mapping[str, bool]]:
    """Raw scores are what a classifier without probabilities is asked for."""
    return _CHOICES[2:] if hasattr(estimator, "predict_proba") else _CHOICES


def _converted(estimator: Any, features: int, options: Mapping[str, bool]) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    with quiet(), _with_plain_scores():
        made: onnx.ModelProto = convert_sklearn(
            estimator,
            name="estimator",
            initial_types=[(INPUT, FloatTensorType([None, features]))],
            options={id(part): dict(options) for part in _chain(estimator)} if options else None,
            target_opset={"": _OPSET, "ai.onnx.ml": _ML_OPSET},
            custom_conversion_functions={**hist.converters(), **neighbours.converters()},
        )
    return made


def _chain(estimator: Any) -> Iterator[Any]:
    """An estimator, and the one in it that gives the outputs."""
    yield estimator
    if hasattr(estimator, "steps"):
        yield from _chain(estimator.steps[-1][1])
    elif hasattr(estimator, "best_estimator_"):
        yield from _chain(estimator.best_estimator_)


@contextmanager
def _with_plain_scores() -> Iterator[None]:
    """Within it skl2onnx's LinearSVC takes the option that pipelines set for each classifier in them.

    Its table of options leaves it out, and pipelines, calibrated ones too, fail on it.
    """
    from skl2onnx.common._registration import get_converter

    options = get_converter("SklearnLinearSVC").get_allowed_options()
    added = {"zipmap": [True, False, "columns"]} if "zipmap" not in options else {}
    options.update(added)
    try:
        yield
    finally:
        for name in added:
            del options[name]


def _unsupported(estimator: Any, cause: Exception, where: str) -> UnsupportedOperatorError:
    named = _CLASS.search(str(cause))
    culprit = named.group(1).rpartition(".")[2] if named else type(estimator).__name__
    reason = "it has no converter for it" if named else f"{type(cause).__name__}: {first_line(cause)}"
    return UnsupportedOperatorError(
        f"{where}: scikit-learn's {culprit} cannot be written as ONNX by skl2onnx: {reason}: use another estimator, or "
        "leave this step to the device's program",
        operator=culprit,
    )


def _keep_one_opset(model: onnx.ModelProto) -> None:
    """skl2onnx writes a domain several times over: the newest version is the one that its nodes were made for."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        versions[entry.domain] = max(versions.get(entry.domain, 0), entry.version)
    used = {node.domain for node in model.graph.node} | {function.domain for function in model.functions}
    del model.opset_import[:]
    kept = [helper.make_opsetid(*entry) for entry in versions.items() if not entry[0] or entry[0] in used]
    model.opset_import.extend(kept)
    for function in model.functions:
        needed = {entry.domain: entry for entry in function.opset_import}
        del function.opset_import[:]
        function.opset_import.extend(needed.values())


def arrange(model: onnx.ModelProto, answers: Sequence[Answer]) -> None:
    """Keep the outputs that the estimator answers for, in the answers' order and under their names; in place."""
    kept = [model.graph.output[answer.place] for answer in answers]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del model.graph.output[:]
    model.graph.output.extend(copies)
    tidy(model, [INPUT], [answer.name for answer in answers])
    model.doc_string = model.graph.doc_string = ""
    model.producer_name = model.producer_version = ""


def as_two_columns(model: onnx.ModelProto, name: str = SCORES) -> None:
    """Write the one score of two classes as two, minus it and it; in place."""
    one = _renamed(model, name)
    negative = context_of(model, where="", infer=False).names.fresh(f"{name}_negative")
    model.graph.node.extend(
        [helper.make_node("Neg", [one], [negative]), helper.make_node("Concat", [negative, one], [name], axis=1)]
    )


def reshape(model: onnx.ModelProto, name: str, shape: Sequence[int]) -> None:
    """Give an output another shape, -1 for the batch; in place."""
    plain = _renamed(model, name)
    sizes = context_of(model, where="", infer=False).constant(np.array(shape, np.int64), f"{name}_shape")
    model.graph.node.extend([sizes, helper.make_node("Reshape", [plain, sizes.output[0]], [name])])


def _renamed(model: onnx.ModelProto, output: str) -> str:
    """Free the name of an output, and the name that its value has from now on; in place."""
    plain = context_of(model, where="", infer=False).names.fresh(f"{output}_plain")
    for node in model.graph.node:
        node.output[:] = [plain if name == output else name for name in node.output]
        node.input[:] = [plain if name == output else name for name in node.input]
    return plain


def declare(model: onnx.ModelProto, shapes: Mapping[str, Sequence[tuple[int, ...]]]) -> None:
    """Declare the outputs as they were seen: skl2onnx leaves sizes out, or gives wrong ones; in place.

    Args:
        model: the graph.
        shapes: of each output, in runs of different batch sizes.
    """
    del model.graph.value_info[:]
    for value in model.graph.output:
        axes: list[int | str] = [
            size if len(set(sizes)) == 1 else BATCH if axis == 0 else f"{value.name}_{axis}"
            for axis, sizes in enumerate(zip(*shapes[value.name], strict=True))
            for size in sizes[:1]
        ]
        kind = value.type.tensor_type.elem_type or TensorProto.FLOAT
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, axes))


def undeclared(model: onnx.ModelProto) -> bytes:
    """The graph's bytes without what it claims of its outputs' shapes, to be run."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    del light.graph.value_info[:]
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    data: bytes = light.SerializeToString()
    return data
