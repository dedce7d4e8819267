"""Rules on shapes and axes: what an operator makes of its inputs' shapes must be what its outputs have.

A runtime computes shapes itself and lets go of the file's, so a file that says others is read differently by whoever
believes it. Only what follows from the file is looked at; open sizes (-1) agree with every size.
Source of each shape: the Prepare function of the operator's kernel, found by running it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest

from converters.tflite.model import Tensor
from converters.tflite.use import Use

Sizes = tuple[int, ...]
_OPEN = -1
_MOST = 16
"""More axes than any tensor has (8), twice for paddings."""


class _DisagreeError(Exception):
    """The inputs cannot be what the operator takes; the message is the rest of a sentence."""


class _UnknownError(Exception):
    """The file does not say what the shape will be."""


def shape_problems(use: Use) -> Iterator[str]:
    """What is wrong with the shapes of one operator's tensors."""
    expect = _EXPECTED.get(use.code)
    if expect is None:
        return
    try:
        wanted = expect(use)
    except _DisagreeError as error:
        yield str(error)
        return
    except _UnknownError:
        return
    for made in use.outputs:
        if made is not None and _known(made) and not _agree(_sizes(made), wanted):
            yield f"{made.name!r} has the shape {list(_sizes(made))}, and becomes {list(wanted)}"


def _known(tensor: Tensor) -> bool:
    """Whether the shape is said: a computed tensor of rank 0 may be one of unknown rank."""
    return tensor.data is not None or bool(tensor.shape)


def _sizes(tensor: Tensor) -> Sizes:
    return tensor.shape if tensor.signature is None else tensor.signature


def _agree(one: Sizes, other: Sizes) -> bool:
    return len(one) == len(other) and all(a == b or _OPEN in (a, b) for a, b in zip(one, other, strict=True))


def _shape(use: Use, index: int, rank: int | None = None) -> Sizes:
    tensor = use.input(index)
    if tensor is None or not _known(tensor):
        raise _UnknownError
    found = _sizes(tensor)
    if rank is not None and len(found) != rank:
        raise _DisagreeError(f"{tensor.name!r} has {len(found)} axes, the kernel takes {rank}")
    return found


def _constant(use: Use, index: int, count: int | None = None) -> list[int]:
    tensor = use.input(index)
    if tensor is None or tensor.data is None:
        raise _UnknownError
    # Looked at before it is read: a damaged file may name its weights here.
    found = math.prod(tensor.shape)
    if tensor.dtype not in {"int32", "int64"} or found > _MOST or (count is not None and found != count):
        wanted = f"{count} integers" if count is not None else f"at most {_MOST} integers"
        raise _DisagreeError(f"{tensor.name!r} has {found} elements of {tensor.dtype}, the kernel takes {wanted}")
    data = use.constant(index)
    return [] if data is None else [int(one) for one in data.reshape(-1).tolist()]


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise _DisagreeError(f"axis {axis} of {rank} axes")
    return axis % rank


def _positive(use: Use, *names: str) -> list[int]:
    found = [use.number(name) for name in names]
    wrong = {name: value for name, value in zip(names, found, strict=True) if value < 1}
    if wrong:
        raise _DisagreeError(f"options {wrong}")
    return found


def _same(use: Use) -> Sizes:
    return _shape(use, 0)


def _broadcast(use: Use) -> Sizes:
    made: list[int] = []
    shapes = [reversed(_shape(use, index)) for index in range(len(use.inputs))]
    for sizes in zip_longest(*shapes, fillvalue=1):
        closed = {size for size in sizes if size not in (1, _OPEN)}
        if len(closed) > 1:
            raise _DisagreeError(f"sizes {sorted(closed)} do not broadcast")
        made.append(closed.pop() if closed else _OPEN if _OPEN in sizes else 1)
    return tuple(reversed(made))


def _concatenation(use: Use) -> Sizes:
    shapes = [_shape(use, index) for index in range(len(use.inputs))]
    axis = _axis(use.number("axis"), len(shapes[0]))
    ours = (*shapes[0][:axis], _OPEN, *shapes[0][axis + 1 :])
    if not all(_agree(ours, shape) for shape in shapes):
        raise _DisagreeError(f"the inputs differ beside axis {axis}: {[list(shape) for shape in shapes]}")
    along = [shape[axis] for shape in shapes]
    return (*shapes[0][:axis], _OPEN if _OPEN in along else sum(along), *shapes[0][axis + 1 :])


def _reshape(use: Use) -> Sizes:
    given, made = _shape(use, 0), use.output()
    if made is None or not _known(made):
        raise _UnknownError
    wanted = _sizes(made)
    if _OPEN not in (*given, *wanted) and math.prod(given) != math.prod(wanted):
        raise _DisagreeError(f"{list(given)} has not as many elements as {list(wanted)}")
    return wanted


def _transpose(use: Use) -> Sizes:
    shape, order = _shape(use, 0), _constant(use, 1)
    axes = [_axis(axis, len(shape)) for axis in order]
    if sorted(axes) != list(range(len(shape))):
        raise _DisagreeError(f"{order} is no order of {len(shape)} axes")
    return tuple(shape[axis] for axis in axes)


def _reduction(use: Use) -> Sizes:
    shape = _shape(use, 0)
    axes = {_axis(axis, len(shape)) for axis in _constant(use, 1)}
    kept = bool(use.option("keep_dims"))
    return tuple(1 if index in axes else size for index, size in enumerate(shape) if kept or index not in axes)


def _extreme(use: Use) -> Sizes:
    shape, axes = _shape(use, 0), _constant(use, 1)
    gone = [_axis(axis, len(shape)) for axis in axes]
    return tuple(size for index, size in enumerate(shape) if index not in gone)


def _window(use: Use, size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    if size == _OPEN:
        return _OPEN
    reach = 1 if use.option("padding") == "SAME" else (kernel - 1) * dilation + 1
    return max(0, -(-(size - reach + 1) // stride))


def _slid(use: Use, shape: Sizes, kernel: Sequence[int], *, dilated: bool) -> Sizes:
    strides = _positive(use, "stride_h", "stride_w")
    dilations = _positive(use, "dilation_h_factor", "dilation_w_factor") if dilated else [1, 1]
    return tuple(map(_window, [use] * 2, shape[1:3], kernel, strides, dilations))


def _biased(use: Use, index: int, channels: int) -> None:
    bias = use.input(index)
    if bias is not None and bias.shape and math.prod(bias.shape) != channels:
        raise _DisagreeError(f"the bias {bias.name!r} has the shape {bias.shape}, for {channels} channels")


def _convolution(use: Use) -> Sizes:
    shape, weights = _shape(use, 0, 4), _shape(use, 1, 4)
    if shape[3] != _OPEN and (weights[3] < 1 or shape[3] % weights[3]):
        raise _DisagreeError(f"weights for {weights[3]} channels, given {shape[3]}")
    _biased(use, 2, weights[0])
    return (shape[0], *_slid(use, shape, weights[1:3], dilated=True), weights[0])


def _depthwise(use: Use) -> Sizes:
    shape, weights = _shape(use, 0, 4), _shape(use, 1, 4)
    if shape[3] != _OPEN and (shape[3] < 1 or weights[3] % shape[3]):
        raise _DisagreeError(f"weights for {weights[3]} output channels, given {shape[3]} channels")
    _biased(use, 2, weights[3])
    return (shape[0], *_slid(use, shape, weights[1:3], dilated=True), weights[3])


def _pool(use: Use) -> Sizes:
    shape, kernel = _shape(use, 0, 4), _positive(use, "filter_height", "filter_width")
    return (shape[0], *_slid(use, shape, kernel, dilated=False), shape[3])


def _fully_connected(use: Use) -> Sizes:
    shape, weights, made = _shape(use, 0), _shape(use, 1, 2), use.output()
    if use.option("weights_format") != "DEFAULT":
        raise _UnknownError
    if _OPEN not in shape and (weights[1] < 1 or math.prod(shape) % weights[1]):
        raise _DisagreeError(f"weights for rows of {weights[1]}, given {list(shape)}")
    _biased(use, 2, weights[0])
    if use.option("keep_num_dims"):
        return (*shape[:-1], weights[0])
    # Kernels take any shape with as many elements; files have (rows, columns) or what the source had.
    if made is None or not _known(made):
        raise _UnknownError
    if _OPEN not in (*shape, *_sizes(made)) and math.prod(made.shape) * weights[1] != math.prod(shape) * weights[0]:
        raise _DisagreeError(f"{list(made.shape)} out of {list(shape)} by weights of {list(weights)}")
    return _sizes(made)


def _transposed_convolution(use: Use) -> Sizes:
    weights, shape = _shape(use, 1, 4), _shape(use, 2, 4)
    if _OPEN != shape[3] != weights[3]:
        raise _DisagreeError(f"weights for {weights[3]} channels, given {shape[3]}")
    _biased(use, 3, weights[0])
    return tuple(_constant(use, 0, 4))


def _product(use: Use) -> Sizes:
    first, second = list(_shape(use, 0)), list(_shape(use, 1))
    if min(len(first), len(second)) < 2:
        raise _DisagreeError("a matrix product takes at least two axes")
    if use.option("adj_x"):
        first[-2:] = first[:-3:-1]
    if use.option("adj_y"):
        second[-2:] = second[:-3:-1]
    if _OPEN not in (first[-1], second[-2]) and first[-1] != second[-2]:
        raise _DisagreeError(f"rows of {first[-1]} by columns of {second[-2]}")
    lead = [max(a, b) if _OPEN not in (a, b) else _OPEN for a, b in _aligned(first[:-2], second[:-2])]
    return (*lead, first[-2], second[-1])


def _aligned(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    pairs = list(zip_longest(reversed(first), reversed(second), fillvalue=1))
    wrong = [pair for pair in pairs if _OPEN not in pair and 1 not in pair and pair[0] != pair[1]]
    if wrong:
        raise _DisagreeError(f"sizes {sorted(wrong[0])} do not broadcast")
    return pairs[::-1]


def _pack(use: Use) -> Sizes:
    shape = _shape(use, 0)
    axis = _axis(use.number("axis"), len(shape) + 1)
    return (*shape[:axis], len(use.inputs), *shape[axis:])


def _unpack(use: Use) -> Sizes:
    shape = _shape(use, 0)
    axis = _axis(use.number("axis"), len(shape))
    if shape[axis] not in (_OPEN, len(use.outputs)):
        raise _DisagreeError(f"{len(use.outputs)} outputs of {shape[axis]} along axis {axis}")
    return shape[:axis] + shape[axis + 1 :]


def _split(use: Use) -> Sizes:
    shape, count = _shape(use, 1), _positive(use, "num_splits")[0]
    axis = _axis(_constant(use, 0, 1)[0], len(shape))
    if count != len(use.outputs) or (shape[axis] != _OPEN and shape[axis] % count):
        raise _DisagreeError(f"{count} equal parts of {shape[axis]} as {len(use.outputs)} outputs")
    return (*shape[:axis], _OPEN if shape[axis] == _OPEN else shape[axis] // count, *shape[axis + 1 :])


def _gather(use: Use) -> Sizes:
    shape, batch = _shape(use, 0), use.number("batch_dims")
    indices = use.input(1)
    if indices is None or (indices.data is None and not indices.shape):
        raise _UnknownError
    axis = _axis(use.number("axis"), len(shape))
    return (*shape[:axis], *_sizes(indices)[batch if batch >= 0 else batch + len(indices.shape) :], *shape[axis + 1 :])


def _expand_dims(use: Use) -> Sizes:
    shape = _shape(use, 0)
    axis = _axis(_constant(use, 1, 1)[0], len(shape) + 1)
    return (*shape[:axis], 1, *shape[axis:])


def _squeeze(use: Use) -> Sizes:
    shape, named = _shape(use, 0), use.operator.options.get("squeeze_dims", ())
    if not isinstance(named, Sequence) or not named:
        raise _UnknownError
    axes = {_axis(int(axis), len(shape)) for axis in named}
    wrong = [shape[axis] for axis in axes if shape[axis] not in (1, _OPEN)]
    if wrong:
        raise _DisagreeError(f"an axis of size {wrong[0]} cannot go")
    return tuple(size for index, size in enumerate(shape) if index not in axes)


def _padded(use: Use) -> Sizes:
    shape, pads = _shape(use, 0), _constant(use, 1)
    if len(pads) != 2 * len(shape):
        raise _DisagreeError(f"{len(pads)} paddings for {len(shape)} axes")
    return tuple(
        _OPEN if size == _OPEN else size + low + high
        for size, low, high in zip(shape, pads[::2], pads[1::2], strict=True)
    )


def _resized(use: Use) -> Sizes:
    shape, size = _shape(use, 0, 4), _constant(use, 1, 2)
    return (shape[0], *size, shape[3])


def _tiled(use: Use) -> Sizes:
    shape, times = _shape(use, 0), _constant(use, 1)
    if len(times) != len(shape):
        raise _DisagreeError(f"{len(times)} repeats for {len(shape)} axes")
    return tuple(_OPEN if size == _OPEN else size * count for size, count in zip(shape, times, strict=True))


def _sliced(use: Use) -> Sizes:
    shape, begin, size = _shape(use, 0), _constant(use, 1), _constant(use, 2)
    if not len(begin) == len(size) == len(shape):
        raise _DisagreeError(f"a slice of {len(begin)} and {len(size)} numbers for {len(shape)} axes")
    made = []
    for have, start, wanted in zip(shape, begin, size, strict=True):
        if have != _OPEN and not 0 <= start <= start + max(wanted, 0) <= have:
            raise _DisagreeError(f"a slice of {wanted} from {start} of {have}")
        made.append(wanted if wanted >= 0 else _OPEN if have == _OPEN else have - start)
    return tuple(made)


def _depth_to_space(use: Use) -> Sizes:
    (batch, height, width, depth), block = _shape(use, 0, 4), _positive(use, "block_size")[0]
    if depth != _OPEN and depth % (block * block):
        raise _DisagreeError(f"blocks of {block} x {block} out of {depth} channels")
    return (batch, *(_times(size, block) for size in (height, width)), _times(depth, 1, block * block))


def _space_to_depth(use: Use) -> Sizes:
    (batch, height, width, depth), block = _shape(use, 0, 4), _positive(use, "block_size")[0]
    if any(size != _OPEN and size % block for size in (height, width)):
        raise _DisagreeError(f"blocks of {block} out of {height} x {width}")
    return (batch, *(_times(size, 1, block) for size in (height, width)), _times(depth, block * block))


def _times(size: int, factor: int, divisor: int = 1) -> int:
    return _OPEN if size == _OPEN else size * factor // divisor


_Expect = Callable[[Use], Sizes]


def _rows(expect: _Expect, codes: str) -> dict[str, _Expect]:
    return dict.fromkeys(codes.split(), expect)


_EXPECTED: Mapping[str, _Expect] = {
    **_rows(_same, "ABS CAST CEIL COS CUMSUM DEQUANTIZE ELU EXP FLOOR GELU HARD_SWISH L2_NORMALIZATION LEAKY_RELU LOG"),
    **_rows(_same, "LOCAL_RESPONSE_NORMALIZATION LOGICAL_NOT LOGISTIC LOG_SOFTMAX NEG QUANTIZE RELU RELU6 RELU_0_TO_1"),
    **_rows(_same, "RELU_N1_TO_1 REVERSE_V2 ROUND RSQRT SIGN SIN SOFTMAX SQRT SQUARE TANH ZEROS_LIKE"),
    **_rows(_broadcast, "ADD ATAN2 BITWISE_XOR DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LESS LESS_EQUAL"),
    **_rows(_broadcast, "LOGICAL_AND LOGICAL_OR MAXIMUM MINIMUM MUL NOT_EQUAL POW SELECT_V2 SQUARED_DIFFERENCE SUB"),
    **_rows(_reduction, "MEAN REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM"),
    **_rows(_extreme, "ARG_MAX ARG_MIN"),
    **_rows(_pool, "AVERAGE_POOL_2D L2_POOL_2D MAX_POOL_2D"),
    **_rows(_padded, "MIRROR_PAD PAD PADV2"),
    **_rows(_resized, "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR"),
    "BATCH_MATMUL": _product,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "EXPAND_DIMS": _expand_dims,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "PACK": _pack,
    "RESHAPE": _reshape,
    "SLICE": _sliced,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SQUEEZE": _squeeze,
    "TILE": _tiled,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transposed_convolution,
    "UNPACK": _unpack,
}
