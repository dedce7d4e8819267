"""Each operator of a quantised TFLite file alone, on the inputs that it has when the whole file runs.

Outputs of whole files say little: one step that flips early moves a third of all outputs by a step, and a runtime
differs from itself as much. So every operator is cut out into a file of its own, gets the inputs that it had in a run
of the whole file (hence "teacher-forced", as in training on recorded sequences), and LiteRT's answer is compared with
that of ONNX Runtime on what was read from the cut file, step by step.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from converters.importers.tflite.convert import border_names, to_onnx
from converters.importers.tflite.scope import is_steps
from converters.ort import PROVIDERS, options
from converters.tflite.model import Operator, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file
from lepton_edge.bundle.binding import Array, Arrays
from lepton_edge.runtimes import runtimes

BUILTIN, XNNPACK = "builtin", "XNNPACK"
"""LiteRT's two kernel sets."""


class Taught(NamedTuple):
    """One operator, over all inputs.

    Attributes:
        number: of the operator in the main subgraph.
        code: of the operator.
        name: of its first output.
        elements: that were compared.
        exact: share of them that are equal.
        steps: the largest difference.
    """

    number: int
    code: str
    name: str
    elements: int
    exact: float
    steps: int


def teacher_force(model: TfliteModel, inputs: Sequence[Arrays], *, kernels: str = XNNPACK) -> list[Taught]:
    """Compare every operator that gives steps (or other whole numbers); float ones are left to whole outputs, and so
    is what works on shapes alone.

    Args:
        model: the file.
        inputs: of whole runs, by the names that `border_names` gives.
        kernels: LiteRT's, that ONNX Runtime is compared with; the recording is always made with the builtin ones.

    Returns:
        In the order of the operators.
    """
    with tempfile.TemporaryDirectory(prefix="lepton-edge-") as folder:
        tensors = [_record(model, one, Path(folder)) for one in inputs]
        return [
            _taught(model, index, tensors, kernels, Path(folder))
            for index, operator in enumerate(model.main.operators)
            if _is_compared(model.main, operator)
        ]


def cut(model: TfliteModel, index: int, recorded: Sequence[Mapping[int, Array]]) -> TfliteModel:
    """One operator of the main subgraph as a file of its own, its computed inputs as the file's.

    Args:
        model: the file.
        index: of the operator.
        recorded: tensors of whole runs. Shapes are those of the runs, since a file does not hold those of open axes;
            whole numbers that were computed, such as the shape that an operator is to give, become constants.
    """
    main, operator = model.main, model.main.operators[index]
    kept = _tensors_of(operator)
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    given = {one for one in operator.inputs if one >= 0 and main.tensors[one].data is None}
    fixed = {one for one in given if _is_parameter(main.tensors[one], [run[one] for run in recorded])}
    fixed = set() if fixed == given else fixed
    tensors = [_as_run(main, old, recorded[0], fixed=old in fixed) for old in kept]
    moved = replace(
        operator,
        inputs=tuple(place[one] for one in operator.inputs),
        outputs=tuple(place[one] for one in operator.outputs),
        intermediates=(),
    )
    fed = tuple(place[one] for one in kept if one in given - fixed)
    single = Subgraph("cut", tensors, [moved], fed, moved.outputs)
    return TfliteModel([single, *model.subgraphs[1:]])


def _is_compared(main: Subgraph, operator: Operator) -> bool:
    """Whether it gives whole numbers and reads more than those without scales: what works on shapes is no arithmetic
    of a model, and what reads nothing at all is none of a run.
    """
    read = [main.tensors[one] for one in operator.inputs if one >= 0 and main.tensors[one].data is None]
    data = [one for one in read if is_steps(one) or one.dtype not in {"int32", "int64"}]
    return bool(data) and any(_whole(main, output) for output in operator.outputs)


def _tensors_of(operator: Operator) -> list[int]:
    return list(dict.fromkeys(one for one in (*operator.inputs, *operator.outputs) if one >= 0))


def _is_parameter(tensor: Tensor, runs: Sequence[Array]) -> bool:
    whole = tensor.quantization is None and tensor.dtype in {"int32", "int64"}
    return whole and all(np.array_equal(one, runs[0]) for one in runs)


def _as_run(main: Subgraph, index: int, recorded: Mapping[int, Array], *, fixed: bool) -> Tensor:
    tensor = replace(main.tensors[index], name=f"tensor_{index}", signature=None)
    if index not in recorded or tensor.data is not None:
        return tensor
    return replace(tensor, shape=recorded[index].shape, data=recorded[index] if fixed else None)


def _whole(main: Subgraph, index: int) -> bool:
    return is_steps(main.tensors[index]) or not main.tensors[index].dtype.startswith("float")


def _record(model: TfliteModel, inputs: Arrays, folder: Path) -> Mapping[int, Array]:
    """Every tensor of the main subgraph in one run."""
    interpreter = _interpreter(model, folder, BUILTIN, experimental_preserve_all_tensors=True)
    names, _ = border_names(model)
    _invoke(interpreter, {index: inputs[name] for index, name in names.items()})
    computed = {index for operator in model.main.operators for index in operator.outputs}
    return {index: interpreter.get_tensor(index) for index in (*names, *sorted(computed))}


def _interpreter(model: TfliteModel, folder: Path, kernels: str, **more: bool) -> Any:
    """An interpreter of LiteRT; the runtime's adapter shows no tensor but inputs and outputs."""
    file = folder / "part.tflite"
    write_file(model, file)
    runtimes()["litert"].load(file, threads=1, provider=kernels)  # raises our errors, and says hello once
    library = import_module("ai_edge_litert.interpreter")
    kind = library.OpResolverType
    resolver = kind.AUTO if kernels == XNNPACK else kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    made = library.Interpreter(
        model_content=file.read_bytes(), num_threads=1, experimental_op_resolver_type=resolver, **more
    )
    made.allocate_tensors()
    return made


def _invoke(interpreter: Any, inputs: Mapping[int, Array]) -> None:
    details = interpreter.get_input_details()
    for one in details:
        if tuple(one["shape"]) != inputs[one["index"]].shape:
            interpreter.resize_tensor_input(one["index"], inputs[one["index"]].shape)
    interpreter.allocate_tensors()
    for one in details:
        interpreter.set_tensor(one["index"], inputs[one["index"]])
    interpreter.invoke()


def _taught(
    model: TfliteModel, index: int, tensors: Sequence[Mapping[int, Array]], kernels: str, folder: Path
) -> Taught:
    operator = model.main.operators[index]
    alone = cut(model, index, tensors)
    interpreter = _interpreter(alone, folder, kernels)
    graph = to_onnx(alone, where=f"operator {index} ({operator.code})")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options(threads=1), providers=PROVIDERS)
    kept = _tensors_of(operator)
    fed = [kept[place] for place in alone.main.inputs]
    apart = []
    for recorded in tensors:
        arrays = [recorded[one] for one in fed]
        _invoke(interpreter, dict(zip(alone.main.inputs, arrays, strict=True)))
        got = session.run(None, {value.name: array for value, array in zip(session.get_inputs(), arrays, strict=True)})
        apart += [_steps(interpreter, alone.main, position, array) for position, array in enumerate(got)]
    every = np.concatenate([one.reshape(-1) for one in apart])
    return Taught(
        number=index,
        code=operator.code,
        name=model.main.tensors[operator.outputs[0]].name,
        elements=every.size,
        exact=float(np.mean(every == 0)) if every.size else 1.0,
        steps=int(np.max(every, initial=0)),
    )


def _steps(interpreter: Any, main: Subgraph, position: int, got: Array) -> Array:
    """How far each element of an output is from LiteRT's; nothing of one that is float."""
    index = main.outputs[position]
    if not _whole(main, index):
        return np.zeros(0, np.int64)
    want = interpreter.get_tensor(index)
    if want.shape != got.shape:
        return np.full(max(math.prod(want.shape), 1), np.iinfo(np.int64).max)
    apart: Array = np.abs(want.astype(np.int64) - got.astype(np.int64))
    return apart
