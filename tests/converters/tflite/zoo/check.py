"""Whether a float TFLite file answers as ONNX Runtime does on the graph that it was made from."""

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from converters.graph.canonical import canonicalise
from converters.importers import import_model
from converters.importers.keras import is_keras
from converters.model import Model
from converters.ort import session
from converters.pack import Card
from converters.write.tflite import to_tflite
from tests.converters.tflite.zoo.case import Array, Case


def built(case: Case) -> Model:
    """The network, seeded, as `load_model` gives it."""
    import torch

    random.seed(0)  # what Keras draws its seeds from
    torch.manual_seed(0)
    module = case.build()
    if is_keras(module) or not isinstance(module, torch.nn.Module):
        return Model(import_model(module), card=Card("", ""))
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    examples = tuple(case.samples(2))
    return Model(import_model(module, inputs=examples, shapes=case.open_shapes), card=Card("", ""))


def float_check(model: Model, case: Case) -> float:
    """Save as .tflite; the largest difference over the largest output, at batch 1 and, where it is open, 3.

    Raises AssertionError where names, types or shapes differ from the graph's.
    """
    reference = session(model.source.to_bytes(), optimise=False)
    names = [spec.name for spec in model.signature.inputs]
    is_open = isinstance(model.signature.inputs[0].shape[0], str)
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "x.tflite")
        interpreter = Interpreter(str(path), num_threads=1)
        worst = 0.0
        for batch in (1, 3) if is_open else (model.signature.inputs[0].shape[0],):
            arrays = [
                array.astype(one.dtype)
                for one, array in zip(model.signature.inputs, case.samples(batch, seed=batch), strict=True)
            ]
            want = reference.run(None, dict(zip(names, arrays, strict=True)))
            worst = max(worst, _gap(interpreter, names, arrays, [one.name for one in reference.get_outputs()], want))
    return worst


def _gap(
    interpreter: Interpreter,
    inputs: Sequence[str],
    arrays: Sequence[Array],
    outputs: Sequence[str],
    want: Sequence[Array],
) -> float:
    taken, given = interpreter.get_input_details(), interpreter.get_output_details()
    assert [one["name"] for one in taken] == list(inputs)
    assert [one["name"] for one in given] == list(outputs)
    for one, array in zip(taken, arrays, strict=True):
        interpreter.resize_tensor_input(one["index"], array.shape, strict=True)
    interpreter.allocate_tensors()
    for one, array in zip(taken, arrays, strict=True):
        interpreter.set_tensor(one["index"], array)
    interpreter.invoke()
    return max(_apart(interpreter.get_tensor(one["index"]), real) for one, real in zip(given, want, strict=True))


def _apart(got: Array, want: Array) -> float:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if got.dtype.kind != "f":
        return float((got != want).mean())
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-6))


def native_operators(model: Model) -> Counter[str]:
    """How often each of TFLite's operators is in the file whose borders are free; those whose answer somebody reads."""
    made, _ = to_tflite(canonicalise(model.source.model, where="x"), where="x", native=True)
    return Counter(
        operator.code
        for subgraph in made.subgraphs
        for operator in subgraph.operators
        if {*operator.outputs} & {*subgraph.outputs, *(index for one in subgraph.operators for index in one.inputs)}
    )
