"""A program with chosen layouts as a TFLite subgraph: moves where needed, axes and constants as they lie."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.tflite.model import Data, Option, Quantization, Subgraph
from converters.write.tflite.builder import Builder
from converters.write.tflite.digits import (
    Digit,
    Layout,
    Symbols,
    axes_of,
    cut_alike,
    digits_of,
    entries,
    plain,
    same_bytes,
)
from converters.write.tflite.inplace import kept_apart
from converters.write.tflite.layout import AS_THE_GRAPH, Borders, Layouts, choose_layouts
from converters.write.tflite.program import (
    Axes,
    Axis,
    AxisMask,
    Body,
    OptionOrAxis,
    Order,
    PerAxis,
    Program,
    Reshaped,
    Size,
    Step,
    Transposed,
    Value,
)
from converters.write.tflite.signatures import Signature
from lepton_edge.errors import UnsupportedOperatorError

_LAZY_BYTES = 1 << 16
"""Constants from this size on are re-ordered only when they are written, one at a time."""


class Emitter:
    """Emits a program and the bodies in it; the first subgraph is the program's own."""

    def __init__(self, symbols: Symbols) -> None:
        self._made: dict[int, Subgraph] = {}
        self.layouts: list[Layouts] = []
        self._symbols = symbols

    def program(self, program: Program, borders: Borders = AS_THE_GRAPH) -> int:
        """Emit; returns the subgraph's index."""
        number = len(self.layouts)
        layouts = choose_layouts(program, self._symbols, borders)
        self.layouts.append(layouts)
        self._made[number] = _Subgraph(program, layouts, self._symbols, self).run()
        return number

    def finished(self) -> list[Subgraph]:
        """All that was emitted, by index."""
        return [self._made[number] for number in range(len(self._made))]


class _Subgraph:
    def __init__(self, program: Program, layouts: Layouts, symbols: Symbols, emitter: Emitter) -> None:
        self._program = program
        self._layouts = layouts
        self._symbols = symbols
        self._emitter = emitter
        self._made = Builder()
        self._held: dict[Value, dict[Layout, int]] = {}

    def run(self) -> Subgraph:
        inputs = tuple(self._new(value, self._layouts.inputs[value]) for value in self._program.inputs)
        for value in self._program.outputs:
            self._made.reserve(value.name)
        for step in self._program.steps:
            self._step(step, self._layouts.steps[step])
        outputs = self._outputs(inputs)
        made = Subgraph(self._program.name, self._made.tensors, self._made.operators, inputs, outputs)
        return kept_apart(made)

    def _outputs(self, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Each output is a tensor of its own, under the graph's name for it."""
        taken = set(inputs)
        found = []
        for value in self._program.outputs:
            layout = self._layouts.outputs.get(value) or plain(self._symbols.sizes(value.shape))
            index = self._tensor(value, layout)
            if index in taken or self._made.tensors[index].data is not None:
                source, index = index, self._made.like(index, self._made.sizes(index))
                self._made.reshape(source, index)
            taken.add(index)
            self._made.rename(index, value.name)
            found.append(index)
        return tuple(found)

    def _step(self, step: Step, way: Signature) -> None:
        if isinstance(step.rule, Transposed | Reshaped) and self._is_view(step, way):
            return
        _check_constants(step)
        inputs = [self._input(step, way, position) for position in range(len(step.inputs))]
        outputs = [self._new(value, layout) for value, layout in zip(step.outputs, way.outputs, strict=True)]
        if isinstance(step.rule, Reshaped):
            self._made.reshape(inputs[0], outputs[0])
            return
        options = {name: self._option(option, step, way) for name, option in step.options.items()}
        options |= {name: self._option(option, step, way) for name, option in way.options}
        self._made.operator(step.code, inputs, outputs, options)

    def _is_view(self, step: Step, way: Signature) -> bool:
        """Let the output be the input's own tensor where both look alike in the file."""
        source, target = step.inputs[0], step.outputs[0]
        assert isinstance(source, Value)
        before, after = way.inputs[0] or (), way.outputs[0]
        if isinstance(step.rule, Reshaped) and _sizes(source, before) != _sizes(target, after):
            return False
        self._held.setdefault(target, {})[after] = self._tensor(source, before)
        return True

    def _input(self, step: Step, way: Signature, position: int) -> int:
        given, layout = step.inputs[position], way.inputs[position]
        if given is None:
            return -1
        if isinstance(given, Axes):
            axes = np.array(sorted(self._places(step, way, given.indices)), np.int32)
            return self._made.numbers(axes.reshape(()) if given.scalar else axes)
        if isinstance(given, PerAxis):
            return self._made.numbers(given.values[list(self._order(step, way))])
        return self._tensor(given, layout or plain(self._symbols.sizes(given.shape)))

    def _order(self, step: Step, way: Signature) -> Order:
        """The order of the axes of what the step works on: its first tensor input, else its output."""
        layouts = [one for one in (*way.inputs[:1], *way.outputs[:1]) if one is not None]
        order = axes_of(layouts[0]) if layouts else ()
        if order is None:
            raise AssertionError(f"{step.node}: digits of one axis lie apart")
        return order

    def _places(self, step: Step, way: Signature, axes: Sequence[int]) -> list[int]:
        order = self._order(step, way)
        return [order.index(axis) for axis in axes]

    def _option(self, option: OptionOrAxis, step: Step, way: Signature) -> Option:
        if isinstance(option, Axis):
            return self._places(step, way, [option.index])[0]
        if isinstance(option, AxisMask):
            return sum(1 << place for place in self._places(step, way, sorted(option.indices)))
        if isinstance(option, Body):
            return self._emitter.program(option.program)
        return option

    def _tensor(self, value: Value, layout: Layout) -> int:
        """The tensor of a value in some layout; moved there, once, where it is not yet."""
        held = self._held.setdefault(value, {})
        if layout not in held:
            held[layout] = self._constant(value, layout) if value.constant else self._moved(value, layout)
        return held[layout]

    def _moved(self, value: Value, layout: Layout) -> int:
        held, sizes = self._held[value], _sizes(value, layout)
        alike = next((index for one, index in held.items() if same_bytes(one, layout)), None)
        source, index = next(iter(held.items()))
        if alike is None and cut_alike(source, layout) is None:
            source = plain(self._symbols.sizes(value.shape))
            index = self._tensor(value, source)
        if alike is not None and self._made.sizes(alike) == sizes:
            return alike
        made = self._made.like(index, sizes)
        if alike is not None:
            self._made.reshape(alike, made)
        else:
            self._transposed(value, source, index, layout, made)
        return made

    def _transposed(self, value: Value, source: Layout, index: int, layout: Layout, made: int) -> None:
        """Axis by axis; digit by digit where whole axes do not do."""
        before, after = cut_alike(source, layout), cut_alike(layout, source)
        if before is None or after is None:
            raise AssertionError(f"{value.name}: cut across")
        order = [before.index(digit) for digit in after]
        if len(before) == len(source) == value.rank and len(after) == len(layout):
            self._made.transpose(index, order, made)
            return
        parts = [_open(value, digit) for digit in before]
        parted = self._made.like(index, parts)
        self._made.reshape(index, parted)
        turned = self._made.like(index, [parts[at] for at in order])
        self._made.transpose(parted, order, turned)
        self._made.reshape(turned, made)

    def _new(self, value: Value, layout: Layout) -> int:
        scales = _quantization(value, layout)
        index = self._made.tensor(value.name, _sizes(value, layout), value.dtype, scales)
        self._held.setdefault(value, {})[layout] = index
        return index

    def _constant(self, value: Value, layout: Layout) -> int:
        rank = len(axes_of(layout) or ())
        wide = value if rank == value.rank else _widened(value, rank)
        data = _reordered(wide, layout)
        return self._made.tensor(value.name, _sizes(wide, layout), value.dtype, _quantization(wide, layout), data)


def _check_constants(step: Step) -> None:
    """Raise UnsupportedOperatorError where a constant has no entries: without bytes, runtimes take it for computed."""
    for value in step.inputs:
        if isinstance(value, Value) and value.constant and 0 in value.shape:
            text = f"{step.node}: TFLite cannot hold the constant {value.name!r}, which has no entries"
            raise UnsupportedOperatorError(text, operator=step.code)


def _sizes(value: Value, layout: Layout) -> tuple[Size, ...]:
    """As they lie in the file."""
    return tuple(value.shape[axis] for axis in axes_of(layout) or ())


def _open(value: Value, digit: Digit) -> Size:
    size = value.shape[digit.axis]
    return size if isinstance(size, str) else digit.size


def _quantization(value: Value, layout: Layout) -> Quantization | None:
    """Scales per channel go with their axis, and lie in the order of its entries."""
    scales, order = value.quantization, axes_of(layout)
    if scales is None or not scales.per_channel or order is None:
        return scales
    index = entries(digits_of(layout, scales.axis), len(scales.scale))
    pick = slice(None) if index is None else index
    return Quantization(scales.scale[pick], scales.zero_point[pick], order.index(scales.axis))


def _widened(value: Value, rank: int) -> Value:
    """A constant with more axes of size 1 in front."""
    more = rank - value.rank
    scales = value.quantization
    if scales is not None and scales.per_channel:
        scales = Quantization(scales.scale, scales.zero_point, scales.axis + more)
    shape = (1,) * more + value.shape
    return Value(value.name, shape, value.dtype, scales, value.array().reshape([int(size) for size in shape]))


def _reordered(value: Value, layout: Layout) -> Data:
    """The data of a constant as they lie in the file."""
    data = value.data
    if data is None:
        raise AssertionError(f"{value.name} is no constant")
    if layout == plain([int(size) for size in value.shape]):
        return data
    order = axes_of(layout) or ()
    picks = [entries(digits_of(layout, axis), int(value.shape[axis])) for axis in range(value.rank)]
    if isinstance(data, np.ndarray) and data.nbytes < _LAZY_BYTES:
        return _arranged(data, order, picks)
    shape = ir.Shape([int(value.shape[axis]) for axis in order])
    return ir.LazyTensor(partial(_arranged_tensor, value, order, picks), dtype=_ir_type(data), shape=shape)


def _arranged(
    data: npt.NDArray[np.generic], order: Order, picks: Sequence[npt.NDArray[np.intp] | None]
) -> npt.NDArray[np.generic]:
    for axis, pick in enumerate(picks):
        if pick is not None:
            data = data.take(pick, axis)
    return np.ascontiguousarray(data.transpose(order))


def _arranged_tensor(value: Value, order: Order, picks: Sequence[npt.NDArray[np.intp] | None]) -> ir.TensorProtocol:
    return ir.Tensor(_arranged(value.array(), order, picks))


def _ir_type(data: Data) -> ir.DataType:
    return ir.DataType.from_numpy(data.dtype) if isinstance(data, np.ndarray) else data.dtype
