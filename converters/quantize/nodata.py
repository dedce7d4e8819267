"""int8 without data: weights int8, nothing known of the activations before run time.

Three forms, chosen by what was measured (ONNX Runtime 1.32, one thread):

*Product*: a matrix product with constant weights becomes MatMulInteger, whose activations are quantised at run time,
in the spelling that ONNX Runtime fuses into DynamicQuantizeMatMul with one scale a column (1.0x float's speed at
16 x 16, 1.4x to 2x from 384 x 384 on). Its weights are U8 around 128: S8 ones saturate on x86 without VNNI, though
where VNNI is, or on ARM, they are faster still (a two-layer text encoder: 0.7x the time of U8).

*Table*: an embedding is gathered as int8 rows, and only the gathered rows become float.

*Stored*: everything else keeps float arithmetic and reads `scale * float(steps)`, spelled Cast and Mul: those are
constants that every runtime folds at load, so the speed is float's (EfficientNet-Lite0: 9.2 ms, float 9.2), and
scales can be as fine as the file's size allows.
DequantizeLinear says the same, but ONNX Runtime keeps it for fusions with a QuantizeLinear that does not come here,
and runs it at every inference before convolutions that then cannot be prepared (23.2 ms). ConvInteger took 25 ms and
lost 18 of 183 right answers, as its weights have one scale a tensor.

The file shrinks to about a quarter; no promise is made on accuracy or speed.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.quantize.channels import Steps, nearest
from converters.quantize.insert import Inserter
from converters.quantize.weights import Known

Form = Literal["product", "table", "stored", "loose", "float"]
"""loose: stored, if int8 carries it well enough."""

_MIN_ELEMENTS = 1024
"""Below this, names, scales and nodes cost about as much as the bytes saved."""
_LOOSE_ERROR = 0.03
"""A constant that is no layer's weights must be carried this well, each channel against its typical value: nothing
says that its largest values matter most. Normally distributed ones are carried to 0.01."""
_WEIGHT_ERROR = 0.1
"""A layer's weights beyond this are no longer the same layer (root of squared error / squared weights, as they act
through sums); trained ones are carried to 0.01."""
_BLOCK = 64
"""Weights of one output channel of a convolution that share a scale: 6 % more bytes than one scale a channel, and the
outputs of EfficientNet-Lite0 differ by 0.053 of their spread rather than 0.068 (32: 0.057)."""
_SPREAD = 64
"""Ratio of the largest to the smallest input channel's weights from which the channels are evened out first (a net with
dead channels of a large bias differs by 0.04 rather than 1.7)."""
_ARITHMETIC = {"Add", "Div", "Einsum", "MatMul", "Mul", "Sub", "Where"}
_MOVEMENT = {"Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
"""Tables of positions are mostly sliced before they are added."""
_RECURRENT = {"GRU", "LSTM", "RNN"}
_CENTRE = 128
"""The zero point of U8 weights."""
_TOLD = 64 * 1024
"""Bytes from which a constant that stays float is worth a note."""


class Held(NamedTuple):
    """A constant's int8 form. columns: what its input channels are multiplied by, shaped to broadcast; None for 1."""

    made: Steps
    columns: npt.NDArray[np.float32] | None


class _Work(NamedTuple):
    """What the rewritings share. centre: the zero point of product weights; steps: tensor name -> its steps, their
    scale and zero point.
    """

    inserter: Inserter
    centre: int
    steps: dict[str, tuple[ir.Value, ir.Value, ir.Value]]


class DynamicResult(NamedTuple):
    """What was made.

    Attributes:
        model: a new canonical graph.
        notes: why large constants stayed float, one sentence each.
    """

    model: ir.Model
    notes: list[str]


def quantize_without_data(model: ir.Model, *, signed: bool = False) -> DynamicResult:
    """Quantise the weights of a float graph, and its matrix products at run time.

    Args:
        model: canonical, at opset 20; it is not changed.
        signed: give products S8 weights, for machines that are known not to saturate.
    """
    copy = model.clone()
    inserter = Inserter(copy.graph)
    work, known = _Work(inserter, 0 if signed else _CENTRE, {}), Known()
    notes = _bodies(copy.graph)
    for value in list(copy.graph.initializers.values()):
        if not _large_float(value):
            continue
        form, reason = _form(value)
        if form != "float":
            held = _quantised(value, form, known)
            error, limit = held.made.error, _WEIGHT_ERROR
            if form == "loose":
                error, limit = _typical_error(_array(value), held.made), _LOOSE_ERROR
            if error > limit:
                reason = f"int8 would carry it with an error of {100 * error:.1f} %, {100 * limit:.0f} % is allowed"
            else:
                _HOLD[form](value, held, work)
        if reason and _array(value).nbytes >= _TOLD:
            notes.append(f"{value.name} stays float: {reason}")
    inserter.drop_unused()
    return DynamicResult(copy, notes)


def store_weights(model: ir.Model, *, keep: Collection[str] = (), known: Known | None = None) -> None:
    """Hold in int8 the weights of what a plan leaves in float arithmetic: the file shrinks, the speed stays.

    Args:
        model: a graph with QuantizeLinear and DequantizeLinear at opset 20; it is changed in place.
        keep: initialisers that stay as they are.
        known: the weights' steps, as far as plans of the same graph needed them before; the rest is added.
    """
    known = known or Known()
    inserter = Inserter(model.graph)
    work = _Work(inserter, _CENTRE, {})
    for value in list(model.graph.initializers.values()):
        if not _large_float(value) or value.name in keep:
            continue
        form, _ = _form(value)
        form = "stored" if form == "product" else form
        if form in {"stored", "table"}:
            held = _quantised(value, form, known)
            if held.made.error <= _WEIGHT_ERROR:
                _HOLD[form](value, held, work)
    inserter.drop_unused()


def _large_float(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size >= _MIN_ELEMENTS


def _array(value: ir.Value) -> npt.NDArray[np.float32]:
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    return tensor.numpy()


def _typical_error(array: npt.NDArray[np.float32], made: Steps) -> float:
    """The worst channel's root mean squared error, as a share of the median of its values that are not 0."""
    others = tuple(axis for axis, size in enumerate(made.scale.shape) if size == 1)
    error = np.sqrt(np.square(made.steps * made.scale - array, dtype=np.float64).mean(axis=others))
    sizes = np.where(array == 0, np.nan, np.abs(array))
    empty = np.isnan(sizes).all(axis=others, keepdims=True)
    typical = np.nanmedian(np.where(empty, 1, sizes), axis=others)
    return float((error / typical).max())


def _form(value: ir.Value) -> tuple[Form, str]:
    """How a constant can be held: by what reads it. The second is the reason where it stays float."""
    uses = value.uses()
    if value.is_graph_output():
        return "float", "it is an output of the model"
    if not uses:
        return "float", ""
    if any(use.node.graph is not value.graph for use in uses):
        return "float", "it is read in the body of an If, Loop or Scan"
    if not np.isfinite(_array(value)).all():
        return "float", "it holds NaN or Inf"
    forms = {_reader_form(use.node, use.idx, value) for use in uses}
    if "float" in forms:
        readers = sorted({use.node.op_type for use in uses})
        return "float", f"{', '.join(readers)} is not known to carry int8 weights"
    # Several kinds of readers (tied embeddings) share one stored form.
    return (forms.pop(), "") if len(forms) == 1 else ("stored", "")


def _reader_form(node: ir.Node, index: int, value: ir.Value) -> Form:
    rank = len(_array(value).shape)
    if node.domain not in {"", "ai.onnx"}:
        return "float"
    if node.op_type in {"MatMul", "Gemm"} and index == 1 and rank > 1:
        return "product" if rank == 2 and _plain_gemm(node) else "stored"
    if node.op_type in {"Conv", "ConvTranspose"} and index == 1:
        return "stored"
    if node.op_type in _RECURRENT and index in {1, 2}:
        return "stored"
    if node.op_type == "Gather" and index == 0:
        return "table" if rank == 2 and not _integer(node, "axis") else "loose"
    wide = (
        sum(size > 1 for size in _array(value).shape) > 1
    )  # a single row may be a layer's bias: few bytes, much effect
    return "loose" if wide and node.op_type in _ARITHMETIC | _MOVEMENT else "float"


def _plain_gemm(node: ir.Node) -> bool:
    """Whether a Gemm is x @ W + b, as the canonical form has it."""
    factors = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    return all(factor == 1 for factor in factors) and not _integer(node, "transA") and not _integer(node, "transB")


def _integer(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0


def _quantised(value: ir.Value, form: Form, known: Known) -> Held:
    """The constant's int8 form, with scales as fine as the form can say."""
    array = _array(value)
    key = (value.name, form, *((use.node.name, use.idx) for use in value.uses()))
    if form != "stored" or any(use.node.op_type != "Conv" for use in value.uses()):
        return Held(known.steps(key, lambda: nearest(array, _axes(value, form))), None)
    columns = _columns(array)
    return Held(known.steps(key, lambda: _in_blocks(array if columns is None else array / columns)), columns)


def _in_blocks(array: npt.NDArray[np.float32]) -> Steps:
    """A convolution's weights with scales as fine as the bytes for them allow."""
    block = max(size for size in range(1, _BLOCK + 1) if array[0].size % size == 0)
    if _BLOCK / 4 <= block < array[0].size:
        return nearest(array.reshape(len(array), -1, block), [0, 1])
    return nearest(array, [0])


def _columns(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """What a convolution's weights are divided by per input channel; None where these are about as large as each other.

    Channels with large values meet small weights, which a scale that serves their neighbours too would round away.
    Near the largest, the square root is the compromise that costs the others little; far below, all is evened out.
    """
    others = (0, *range(2, array.ndim))
    rows = np.sqrt(np.square(array, dtype=np.float64).mean(axis=tuple(range(1, array.ndim)), keepdims=True))
    sizes = np.sqrt(np.square(array / np.where(rows > 0, rows, 1)).mean(axis=others, keepdims=True))
    alive = sizes[sizes > 0]
    if not alive.size or alive.max() < _SPREAD * alive.min():
        return None
    share = np.where(sizes > 0, sizes, alive.max()) / alive.max()
    factors: npt.NDArray[np.float32] = np.minimum(np.sqrt(share), np.sqrt(_SPREAD) * share).astype(np.float32)
    return factors


def _axes(value: ir.Value, form: Form) -> list[int]:
    """Along which axes each index has a scale of its own."""
    node, shape = next(iter(value.uses())).node, _array(value).shape
    if form == "table":
        return [0]
    if node.op_type == "ConvTranspose":
        # (in, out / groups, ...): with groups a column serves several channels, so the input's axis is as fine.
        return [1 if _integer(node, "group") in {0, 1} else 0]
    if node.op_type in _RECURRENT:
        return [0, 1]  # (directions, gates x hidden, ...): a scale a row
    if node.op_type in {"MatMul", "Gemm"}:
        return [axis for axis in range(len(shape)) if axis != len(shape) - 2]
    if len(shape) < 2:
        return []
    return [int(np.argmax(shape[:-1]))] if form == "loose" else [0]


def _to_products(value: ir.Value, held: Held, work: _Work) -> None:
    """MatMulInteger for every product that reads these weights, of shape (K, N)."""
    made = held.made
    shifted = (made.steps.view(np.uint8) + np.uint8(work.centre)).view(np.uint8 if work.centre else np.int8)
    weights = work.inserter.constant(f"{value.name}_int8", shifted)
    centre = work.inserter.constant("weights_zero_point", np.array(work.centre, shifted.dtype))
    scale = work.inserter.constant(f"{value.name}_scale", made.scale.reshape(-1))
    for use in list(value.uses()):
        _to_product(use.node, (weights, centre, scale), work)


def _to_product(node: ir.Node, constants: tuple[ir.Value, ir.Value, ir.Value], work: _Work) -> None:
    source, name, (weights, centre, scale) = node.inputs[0], str(node.name), constants
    if source is None:
        raise ValueError(f"{name} has no input")
    if source.name not in work.steps:
        # One quantisation serves all products that read the tensor (query, key and value of an attention).
        work.steps[str(source.name)] = work.inserter.quantize(source)
    steps, step_scale, zero_point = work.steps[str(source.name)]
    at = work.inserter.before(node)
    count = at("MatMulInteger", [steps, weights, zero_point, centre], f"{name}_count", ir.DataType.INT32)
    real = at("Cast", [count], f"{name}_real", ir.DataType.FLOAT, to=ir.DataType.FLOAT.value)
    factor = at("Mul", [step_scale, scale], f"{name}_factor", ir.DataType.FLOAT)
    result = at("Mul", [real, factor], f"{name}_scaled", ir.DataType.FLOAT)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        result = at("Add", [result, bias], f"{name}_biased", ir.DataType.FLOAT)
    at.take_over(result)


def _to_table(value: ir.Value, held: Held, work: _Work) -> None:
    """Gather int8 rows and their scales, for a table of shape (rows, columns)."""
    table = work.inserter.constant(f"{value.name}_int8", held.made.steps)
    scale = work.inserter.constant(f"{value.name}_scale", held.made.scale)
    for use in list(value.uses()):
        node, name = use.node, str(use.node.name)
        at = work.inserter.before(node)
        rows = at("Gather", [table, node.inputs[1]], f"{name}_rows", ir.DataType.INT8, axis=0)
        scales = at("Gather", [scale, node.inputs[1]], f"{name}_scales", ir.DataType.FLOAT, axis=0)
        real = at("Cast", [rows], f"{name}_real", ir.DataType.FLOAT, to=ir.DataType.FLOAT.value)
        at.take_over(at("Mul", [real, scales], f"{name}_scaled", ir.DataType.FLOAT))


def _to_stored(value: ir.Value, held: Held, work: _Work) -> None:
    """Hold the constant as int8 and have it made float at load."""
    steps = work.inserter.constant(f"{value.name}_int8", held.made.steps)
    scale = work.inserter.constant(f"{value.name}_scale", held.made.scale)
    uses, at = list(value.uses()), work.inserter.first()
    real = at("Cast", [steps], f"{value.name}_real", ir.DataType.FLOAT, to=ir.DataType.FLOAT.value)
    scaled = at("Mul", [real, scale], f"{value.name}_scaled", ir.DataType.FLOAT)
    if held.made.steps.shape != _array(value).shape:
        sizes = work.inserter.constant(f"{value.name}_shape", np.array(_array(value).shape, np.int64))
        scaled = at("Reshape", [scaled, sizes], f"{value.name}_weights", ir.DataType.FLOAT)
    if held.columns is not None:
        columns = work.inserter.constant(f"{value.name}_columns", held.columns)
        scaled = at("Mul", [scaled, columns], f"{value.name}_by_columns", ir.DataType.FLOAT)
    scaled.shape = value.shape
    for use in uses:
        use.node.replace_input_with(use.idx, scaled)


_HOLD: Mapping[Form, Callable[[ir.Value, Held, _Work], None]] = {
    "product": _to_products,
    "table": _to_table,
    "stored": _to_stored,
    "loose": _to_stored,
}


def _bodies(graph: ir.Graph) -> list[str]:
    """Notes on the large constants inside of bodies, which stay as they are."""
    held: Mapping[str, int] = {
        str(node.name): sum(
            value.const_value.nbytes
            for inner in _graphs(node)
            for value in inner.initializers.values()
            if value.const_value is not None
        )
        for node in graph
    }
    return [f"{name}: {size} bytes in its bodies stay float" for name, size in held.items() if size >= _TOLD]


def _graphs(node: ir.Node) -> list[ir.Graph]:
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        found += [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
        found += attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []
    return found + [deeper for graph in found for node in graph for deeper in _graphs(node)]
