"""Files of one operator, and LiteRT's answers to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.tflite.model import Operator, Quantization, Subgraph, Tensor, TfliteModel
from converters.tflite.pack import write_file
from converters.tflite.versions import needed_version
from lepton_edge.runtimes import runtimes

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """An operator on random inputs.

    Attributes:
        code: of the operator.
        inputs: a shape for a random input (floats), an array for a constant, None for an absent one.
        outputs: shapes.
        options: of the operator.
        dtypes: of the outputs, if not float32.
        feeds: arrays in the place of random inputs, by position.
        positive: whether random inputs are above 0.1.
    """

    code: str
    inputs: Sequence[tuple[int, ...] | Array | None]
    outputs: Sequence[tuple[int, ...]]
    options: Mapping[str, object] = field(default_factory=dict)
    dtypes: Sequence[str] = ()
    feeds: Mapping[int, Array] = field(default_factory=dict)
    positive: bool = False


def build(case: Case, *, steps: bool = False) -> tuple[TfliteModel, dict[str, Array]]:
    """The file, and inputs for it by name; with `steps` every float tensor that is no constant is int8."""
    rng = np.random.default_rng(1)
    tensors: list[Tensor] = []
    places: list[int] = []
    feeds: dict[str, Array] = {}
    for position, given in enumerate(case.inputs):
        if given is None:
            places.append(-1)
            continue
        places.append(len(tensors))
        if isinstance(given, tuple) or position in case.feeds:
            shape = given if isinstance(given, tuple) else given.shape
            array = case.feeds.get(position)
            if array is None:
                array = rng.normal(size=shape).astype(np.float32)
                array = np.abs(array) + np.float32(0.1) if case.positive else array
            tensor = Tensor(f"x{position}", tuple(shape), array.dtype.name)
            if steps and array.dtype == np.float32:
                tensor = Tensor(tensor.name, tensor.shape, "int8", quantization=SCALE)
                array = rng.integers(-128, 128, shape).astype(np.int8)
            feeds[f"x{position}"] = array
            tensors.append(tensor)
        else:
            tensors.append(Tensor(f"c{position}", given.shape, given.dtype.name, data=given))
    fed = tuple(index for index, tensor in enumerate(tensors) if tensor.data is None)
    first = len(tensors)
    for position, shape in enumerate(case.outputs):
        dtype = case.dtypes[position] if case.dtypes else "float32"
        quantization = SCALE if steps and dtype == "float32" else None
        tensors.append(Tensor(f"y{position}", shape, "int8" if quantization else dtype, quantization=quantization))
    outputs = tuple(range(first, len(tensors)))
    operator = Operator(case.code, tuple(places), outputs, case.options)
    version = needed_version(operator, tensors)
    operator = Operator(case.code, tuple(places), outputs, case.options, version)
    return TfliteModel([Subgraph("main", tensors, [operator], fed, outputs)]), feeds


SCALE = Quantization(np.array([0.05], np.float32), np.array([-7], np.int64))


def run_litert(model: TfliteModel, feeds: Mapping[str, Array], folder: Path, provider: str = "XNNPACK") -> list[Array]:
    write_file(model, folder / "m.tflite")
    executor = runtimes()["litert"].load(folder / "m.tflite", threads=1, provider=provider)
    got = executor.execute(feeds)
    return [got[model.main.tensors[index].name] for index in model.main.outputs]
