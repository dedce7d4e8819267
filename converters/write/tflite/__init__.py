"""TFLite files from canonical graphs, float or quantised, without TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from converters.tflite.check import check_model
from converters.tflite.model import Signature, Subgraph, TfliteModel
from converters.tflite.pack import write_file
from converters.tflite.versions import MAXIMA, runtime_version
from converters.write.tflite.digits import Symbols, axes_of
from converters.write.tflite.emit import Emitter
from converters.write.tflite.fuse import drop_dead, fuse_activations, open_borders
from converters.write.tflite.layout import Borders, Layouts
from converters.write.tflite.lower import lower
from converters.write.tflite.prepare import prepared
from converters.write.tflite.program import Value
from lepton_edge.bundle.manifest import Binding
from lepton_edge.errors import UnsupportedOperatorError
from lepton_edge.version import VERSION

__all__ = ["Written", "to_tflite", "write_tflite"]


@dataclass(frozen=True)
class Written:
    """What a file turned out to be.

    Attributes:
        inputs, outputs: how its tensors stand for the graph's, in the graph's order.
        min_runtime: the oldest release of the runtime that has all of its operators; "" where none is too old (LiteRT
            counts anew: its first release followed TensorFlow 2.17).
    """

    inputs: Sequence[Binding]
    outputs: Sequence[Binding]
    min_runtime: str = ""


def write_tflite(model: ir.Model, path: Path, *, native: bool = False, runtime: str = "litert") -> Written:
    """Write a TFLite file.

    Args:
        model: a canonical graph, float or with QuantizeLinear and DequantizeLinear; it is not changed.
        path: of the file, which is written whole or not at all.
        native: whether inputs and outputs may be int8, and their axes in the order that moves the fewest bytes; else
            they have the graph's names, order, shapes and types (float64 and float16 become float32).
        runtime: that is to take the file: "litert" or "tflite-runtime".

    Raises:
        UnsupportedOperatorError: lists every node that TFLite, or this runtime, cannot run.
        ModelError: the file would compute something else.
        DiskFullError, StorageError: nothing half-written is left.
    """
    made, written = to_tflite(model, where=path.name, native=native, runtime=runtime)
    write_file(made, path)
    return written


def to_tflite(
    model: ir.Model, *, where: str, native: bool = False, runtime: str = "litert"
) -> tuple[TfliteModel, Written]:
    """The file as values; see `write_tflite`."""
    program = lower(prepared(model), where=where)
    fuse_activations(program)
    drop_dead(program)
    if native:
        open_borders(program)
    emitter = Emitter(Symbols())
    emitter.program(program, Borders(native=native))
    subgraphs = emitter.finished()
    _check_versions(subgraphs, runtime, where)
    main = subgraphs[0]
    names = [[main.tensors[index].name for index in ends] for ends in (main.inputs, main.outputs)]
    signature = Signature(
        "serving_default",
        dict(zip(names[0], main.inputs, strict=True)),
        dict(zip(names[1], main.outputs, strict=True)),
    )
    made = TfliteModel(subgraphs, f"lepton-edge {VERSION}", [signature])
    check_model(made, where=where, runtime=runtime)
    operators = [operator for subgraph in subgraphs for operator in subgraph.operators]
    written = Written(
        [_binding(value, emitter.layouts[0], given=False) for value in program.inputs],
        [_binding(value, emitter.layouts[0], given=True) for value in program.outputs],
        runtime_version(operators) if runtime == "tflite-runtime" else "",
    )
    return made, written


def _check_versions(subgraphs: Sequence[Subgraph], runtime: str, where: str) -> None:
    maxima = MAXIMA[runtime]
    wrong = [
        f"{operator.code} version {operator.version}"
        for subgraph in subgraphs
        for operator in subgraph.operators
        if operator.version > maxima.get(operator.code, 0)
    ]
    if wrong:
        raise UnsupportedOperatorError(
            f"{where}: {runtime} is too old for {', '.join(dict.fromkeys(wrong))}", operator=wrong[0]
        )


def _binding(value: Value, layouts: Layouts, *, given: bool) -> Binding:
    layout = (layouts.outputs if given else layouts.inputs).get(value)
    order = None if layout is None else axes_of(layout)
    scales = value.quantization
    return Binding(
        name=value.name,
        tensor=value.name,
        dtype=value.dtype,  # type: ignore[arg-type]  # resources and strings never reach a border
        permutation=None if order is None or list(order) == sorted(order) else list(order),
        scale=None if scales is None else float(scales.scale[0]),
        zero_point=0 if scales is None else int(scales.zero_point[0]),
    )
