"""A program whose layouts are chosen, as a TFLite subgraph: moves where they are needed, axes and constants as they lie."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.tflite.model import Data, Operator, Option, Quantization, Subgraph, Tensor
from converters.tflite.versions import needed_version
from converters.write.tflite.digits import Digit, Layout, Symbols, axes_of, digits_of, entries, plain, same_bytes
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
    Step,
    Transposed,
    Value,
)
from converters.write.tflite.signatures import Signature

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
        self._tensors: list[Tensor] = []
        self._operators: list[Operator] = []
        self._held: dict[Value, dict[Layout, int]] = {}
        self._names: set[str] = set()
        self._numbers: dict[tuple[bytes, tuple[int, ...]], int] = {}

    def run(self) -> Subgraph:
        inputs = tuple(self._border_input(value) for value in self._program.inputs)
        for value in self._program.outputs:
            self._names.add(value.name)
        for step in self._program.steps:
            self._step(step, self._layouts.steps[step])
        outputs = self._border_outputs(inputs)
        return Subgraph(self._program.name, self._tensors, self._operators, inputs, outputs)

    def _border_input(self, value: Value) -> int:
        return self._new(value, self._layouts.inputs[value], name=value.name)

    def _border_outputs(self, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Each output is a tensor of its own, under the graph's name for it."""
        taken = set(inputs)
        found = []
        for value in self._program.outputs:
            layout = self._layouts.outputs.get(value) or plain(self._symbols.sizes(value.shape))
            index = self._constant(value, layout) if value.constant else self._at(value, layout)
            if index in taken or self._tensors[index].data is not None:
                index = self._copied(value, index)
            taken.add(index)
            self._rename(index, value.name)
            found.append(index)
        return tuple(found)

    def _copied(self, value: Value, source: int) -> int:
        old = self._tensors[source]
        shape = self._numbers_input(np.array(old.signature or old.shape, np.int32))
        made = self._add(Tensor(self._free(value.name), old.shape, old.dtype, old.signature, old.quantization))
        self._operator("RESHAPE", (source, shape), (made,), {"new_shape": list(old.signature or old.shape)})
        return made

    def _rename(self, index: int, name: str) -> None:
        old = self._tensors[index]
        self._tensors[index] = Tensor(
            name, old.shape, old.dtype, old.signature, old.quantization, old.data, old.variable
        )

    def _step(self, step: Step, way: Signature) -> None:
        if isinstance(step.rule, Transposed | Reshaped) and self._is_view(step, way):
            return
        inputs = [self._input(step, way, position) for position in range(len(step.inputs))]
        options = {name: self._option(option, step, way) for name, option in step.options.items()}
        options |= {name: self._option(option, step, way) for name, option in way.options}
        outputs = tuple(self._new(value, layout) for value, layout in zip(step.outputs, way.outputs, strict=True))
        if isinstance(step.rule, Reshaped):
            inputs, options = self._reshape(inputs, outputs[0])
        self._operator(step.code, tuple(inputs), outputs, options)

    def _is_view(self, step: Step, way: Signature) -> bool:
        """Let the output be the input's own tensor where both look alike in the file."""
        source, target = step.inputs[0], step.outputs[0]
        assert isinstance(source, Value)
        before = way.inputs[0] or ()
        if isinstance(step.rule, Reshaped) and self._shape(source, before) != self._shape(target, way.outputs[0]):
            return False
        index = self._constant(source, before) if source.constant else self._at(source, before)
        self._held.setdefault(target, {})[way.outputs[0]] = index
        return True

    def _reshape(self, inputs: Sequence[int], output: int) -> tuple[list[int], dict[str, Option]]:
        tensor = self._tensors[output]
        sizes = list(tensor.signature or tensor.shape)
        return [inputs[0], self._numbers_input(np.array(sizes, np.int32))], {"new_shape": sizes}

    def _input(self, step: Step, way: Signature, position: int) -> int:
        given, layout = step.inputs[position], way.inputs[position]
        if given is None:
            return -1
        if isinstance(given, Axes):
            axes = np.array(sorted(self._places(step, way, given.indices)), np.int32)
            return self._numbers_input(axes.reshape(()) if given.scalar else axes)
        if isinstance(given, PerAxis):
            return self._numbers_input(given.values[list(self._order(step, way))])
        own = layout or plain(self._symbols.sizes(given.shape))
        return self._constant(given, own) if given.constant else self._at(given, own)

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

    def _at(self, value: Value, layout: Layout) -> int:
        """The tensor of an activation in some layout; moved there, once, where it is not yet."""
        held = self._held[value]
        if layout not in held:
            source, index = next(iter(held.items()))
            alike = next((one for one in held if same_bytes(one, layout)), None)
            if alike is not None:
                held[layout] = self._viewed(value, held[alike], layout)
            else:
                held[layout] = self._moved(value, source, index, layout)
        return held[layout]

    def _viewed(self, value: Value, index: int, layout: Layout) -> int:
        """The same bytes in another shape."""
        shape, signature = self._shape(value, layout)
        if (self._tensors[index].shape, self._tensors[index].signature) == (shape, signature):
            return index
        made = self._add(self._tensor(value, layout, self._free(value.name)))
        self._operator("RESHAPE", *self._reshape_to(index, made))
        return made

    def _reshape_to(self, source: int, made: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Option]]:
        inputs, options = self._reshape([source], made)
        return tuple(inputs), (made,), options

    def _moved(self, value: Value, source: Layout, index: int, layout: Layout) -> int:
        """Transposed: digit by digit where whole axes do not do."""
        before, after = axes_of(source), axes_of(layout)
        made = self._add(self._tensor(value, layout, self._free(value.name)))
        if before is not None and after is not None and len(source) == len(before) and len(layout) == len(after):
            order = np.array([before.index(axis) for axis in after], np.int32)
            self._operator("TRANSPOSE", (index, self._numbers_input(order)), (made,))
            return made
        return self._moved_by_digits(value, source, index, layout, made)

    def _moved_by_digits(self, value: Value, source: Layout, index: int, layout: Layout, made: int) -> int:
        pieces = _common(source, layout)
        sizes = [self._open(value, digit.axis, digit.size) for digit in pieces]
        wide = self._add(self._piece(value, sizes))
        self._operator("RESHAPE", *self._reshape_to(index, wide))
        goal = _common(layout, source)
        order = np.array([pieces.index(digit) for digit in goal], np.int32)
        turned = self._add(self._piece(value, [sizes[at] for at in order]))
        self._operator("TRANSPOSE", (wide, self._numbers_input(order)), (turned,))
        self._operator("RESHAPE", *self._reshape_to(turned, made))
        return made

    def _open(self, value: Value, axis: int, size: int) -> int:
        return -1 if isinstance(value.shape[axis], str) else size

    def _piece(self, value: Value, sizes: Sequence[int]) -> Tensor:
        signature = tuple(sizes) if -1 in sizes else None
        shape = tuple(1 if size == -1 else size for size in sizes)
        return Tensor(self._free(value.name), shape, value.dtype, signature, value.quantization)

    def _new(self, value: Value, layout: Layout, name: str = "") -> int:
        index = self._add(self._tensor(value, layout, name or self._free(value.name)))
        self._held.setdefault(value, {})[layout] = index
        return index

    def _tensor(self, value: Value, layout: Layout, name: str, data: Data | None = None) -> Tensor:
        shape, signature = self._shape(value, layout)
        return Tensor(name, shape, value.dtype, signature, self._quantization(value, layout), data)

    def _shape(self, value: Value, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        sizes = [value.shape[axis] for axis in axes_of(layout) or ()]
        signature = tuple(-1 if isinstance(size, str) else size for size in sizes)
        shape = tuple(1 if isinstance(size, str) else size for size in sizes)
        return shape, signature if -1 in signature else None

    def _quantization(self, value: Value, layout: Layout) -> Quantization | None:
        """Scales per channel go with their axis, and lie in the order of its entries."""
        scales, order = value.quantization, axes_of(layout)
        if scales is None or not scales.per_channel or order is None:
            return scales
        index = entries(digits_of(layout, scales.axis), len(scales.scale))
        pick = slice(None) if index is None else index
        return Quantization(scales.scale[pick], scales.zero_point[pick], order.index(scales.axis))

    def _constant(self, value: Value, layout: Layout) -> int:
        held = self._held.setdefault(value, {})
        if layout not in held:
            rank = len(axes_of(layout) or ())
            wide = value if rank == value.rank else _widened(value, rank)
            held[layout] = self._add(self._tensor(wide, layout, self._free(value.name), _reordered(wide, layout)))
        return held[layout]

    def _numbers_input(self, array: npt.NDArray[np.generic]) -> int:
        """A small constant of integers; equal ones are one tensor."""
        key = (array.dtype.str.encode() + array.tobytes(), array.shape)
        if key not in self._numbers:
            dtype = "int64" if array.dtype == np.int64 else "int32"
            data = np.array(array, dtype, order="C")
            self._numbers[key] = self._add(Tensor(self._free("numbers"), array.shape, dtype, data=data))  # type: ignore[arg-type]
        return self._numbers[key]

    def _add(self, tensor: Tensor) -> int:
        self._names.add(tensor.name)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _free(self, name: str) -> str:
        if name not in self._names:
            return name
        count = 1
        while f"{name}_{count}" in self._names:
            count += 1
        return f"{name}_{count}"

    def _operator(
        self,
        code: str,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        options: Mapping[str, Option] | None = None,
    ) -> None:
        made = Operator(code, inputs, outputs, dict(options or {}))
        version = needed_version(made, self._tensors)
        self._operators.append(Operator(code, inputs, outputs, made.options, version))


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


def _common(layout: Layout, other: Layout) -> list[Digit]:
    """The digits of `layout`, cut where those of `other` are cut too."""
    cuts = {(digit.axis, digit.stride) for digit in other}
    made: list[Digit] = []
    for digit in layout:
        inner = sorted(
            stride for axis, stride in cuts if axis == digit.axis and digit.stride < stride < digit.stride * digit.size
        )
        ends = [digit.stride, *inner, digit.stride * digit.size]
        made += [Digit(digit.axis, low, high // low) for low, high in reversed(list(pairwise(ends)))]
    return made
