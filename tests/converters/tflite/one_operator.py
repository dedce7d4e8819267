"""Models of one operator, and the runtimes that run them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters.tflite.model import DType, Operator, Options, Quantization, Subgraph, Tensor, TfliteModel
from converters.tflite.versions import with_versions

OTHER_PYTHON = os.environ.get("LEPTON_TFLITE_RUNTIME_PYTHON", "")
needs_tflite_runtime = pytest.mark.skipif(
    not OTHER_PYTHON, reason="LEPTON_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime"
)

_OTHER = """
import json, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
answers = []
for job in json.loads(sys.stdin.read()):
    try:
        interpreter = Interpreter(model_path=job["path"])
        interpreter.allocate_tensors()
        if "feeds" in job:
            for entry, name in zip(interpreter.get_input_details(), sorted(job["feeds"])):
                feed = job["feeds"][name]
                interpreter.set_tensor(entry["index"], np.array(feed["values"], feed["dtype"]).reshape(feed["shape"]))
            interpreter.invoke()
        answers.append([interpreter.get_tensor(one["index"]).tolist() for one in interpreter.get_output_details()])
    except (ValueError, RuntimeError) as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def scales(scale: float | Sequence[float], zero_point: int = 0, axis: int = 0) -> Quantization:
    values = np.atleast_1d(np.asarray(scale, np.float32))
    return Quantization(values, np.full(values.shape, zero_point, np.int64), axis)


def fed(
    name: str, shape: tuple[int, ...], dtype: DType = "float32", quantization: Quantization | None = None
) -> Tensor:
    return Tensor(name, shape, dtype, quantization=quantization)


def constant(name: str, data: Any, quantization: Quantization | None = None) -> Tensor:
    array = np.asarray(data)
    return Tensor(name, array.shape, array.dtype.name, quantization=quantization, data=array)  # type: ignore[arg-type]


def model(
    code: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], options: Options | None = None
) -> TfliteModel:
    """One operator with the version that it needs."""
    tensors = [one for one in inputs if one is not None] + list(outputs)
    place = {id(one): index for index, one in enumerate(tensors)}
    operator = Operator(
        code,
        tuple(-1 if one is None else place[id(one)] for one in inputs),
        tuple(place[id(one)] for one in outputs),
        options or {},
    )
    given = tuple(place[id(one)] for one in inputs if one is not None and one.data is None)
    return with_versions(TfliteModel([Subgraph("main", tensors, [operator], given, operator.outputs)]))


def run(path: Path, *feeds: np.ndarray, builtin: bool = False) -> list[np.ndarray]:
    """Run in LiteRT, with XNNPACK or without."""
    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else OpResolverType.AUTO
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    for entry, feed in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(entry["index"], feed)
    interpreter.invoke()
    return [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]


def run_other(jobs: Sequence[tuple[Path, Mapping[str, np.ndarray] | None]]) -> list[Any]:
    """Load, and run where there are feeds (in the order of their names), in tflite-runtime; errors as their text."""
    asked = [
        {"path": str(path)}
        | (
            {}
            if feeds is None
            else {
                "feeds": {
                    name: {"values": feed.reshape(-1).tolist(), "dtype": feed.dtype.name, "shape": feed.shape}
                    for name, feed in feeds.items()
                }
            }
        )
        for path, feeds in jobs
    ]
    done = subprocess.run(
        [OTHER_PYTHON, "-c", _OTHER], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answers
