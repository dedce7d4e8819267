"""Operators that move elements without computing: shapes, axes, joining and cutting."""

from collections.abc import Mapping, Sequence

import numpy as np

from converters.importers.tflite.op import ONNX_TYPES, Op, Rule
from converters.importers.tflite.scope import Perm

_NCHW = (0, 3, 1, 2)
_END = np.iinfo(np.int64).max


def reshape(op: Op) -> None:
    """The wanted shape is an input, or an option in files that have no such input."""
    if op.has(1) and op.rank(1) == 1:
        known = op.known(1)
        zero = {"allowzero": 1} if 0 in known else {}
        op.out(
            op.add("Reshape", op.real(0), op.ints(1) if None in known else op.ints_of(op.numbers(1, "shape")), **zero)
        )
        return
    shape = op.operator.options.get("new_shape", op.result().shape)
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise op.refuse("it does not say which shape it makes")
    op.out(op.add("Reshape", op.real(0), op.ints_of([int(size) for size in shape])))


def squeeze(op: Op) -> None:
    found = op.operator.options.get("squeeze_dims", ())
    axes = [op.axis(int(axis), op.rank(0)) for axis in found] if isinstance(found, Sequence) else []
    axes = axes or [axis for axis, size in enumerate(op.sizes(0)) if size == 1]
    op.out(op.add("Squeeze", op.real(0), op.ints_of(axes)) if axes else op.real(0))


def expand_dims(op: Op) -> None:
    op.out(op.add("Unsqueeze", op.real(0), op.ints_of(op.numbers(1, "axis"))))


def transpose(op: Op) -> None:
    perm = [op.axis(axis, op.rank(0)) for axis in op.numbers(1, "order of axes")]
    op.out(op.add("Transpose", op.real(0), perm=perm))


def concatenation(op: Op) -> None:
    made = op.result()
    given = [op.tensor(position).quantization for position in range(op.count)]
    if made.dtype == "int16" and made.quantization and not all(made.quantization.same(one) for one in given):
        raise op.refuse("its 16-bit inputs have other scales than its output, which the kernel does not look at")
    perm, rank = op.order(), len(op.result().shape)
    axis = op.axis(op.option("axis", 0), rank)
    inputs = [op.real(position, perm) for position in range(op.count)]
    op.out(op.add("Concat", *inputs, axis=_moved(axis, perm)), perm)


def pack(op: Op) -> None:
    axis = op.axis(op.option("axis", 0), len(op.result().shape))
    inputs = [op.add("Unsqueeze", op.real(position), op.ints_of([axis])) for position in range(op.count)]
    op.out(op.add("Concat", *inputs, axis=axis))


def unpack(op: Op) -> None:
    axis, count = op.axis(op.option("axis", 0), op.rank(0)), len(op.operator.outputs)
    parts = op.several("Split", op.real(0), count=count, axis=axis, num_outputs=count)
    for position, part in enumerate(parts):
        op.out(op.add("Squeeze", part, op.ints_of([axis])), at=position)


def split(op: Op) -> None:
    _split(op, op.numbers(0, "axis")[0], 1, "")


def split_v(op: Op) -> None:
    lengths, axis = op.numbers(1, "lengths"), op.numbers(2, "axis")[0]
    whole = op.sizes(0)[op.axis(axis, op.rank(0))]
    if -1 in lengths and whole is not None:
        lengths[lengths.index(-1)] = whole - sum(lengths) - 1
    if min(lengths) < 0:
        raise op.refuse(f"parts of {lengths} along an axis of {whole}")
    _split(op, axis, 0, op.ints_of(lengths))


def _split(op: Op, axis: int, data: int, lengths: str) -> None:
    perm, count = op.order(data), len(op.operator.outputs)
    along = _moved(op.axis(axis, op.rank(data)), perm)
    if lengths:
        parts = op.several("Split", op.real(data, perm), lengths, count=count, axis=along)
    else:
        parts = op.several("Split", op.real(data, perm), count=count, axis=along, num_outputs=count)
    for position, part in enumerate(parts):
        op.out(part, perm, at=position)


def slice_(op: Op) -> None:
    """A size of -1 reaches to the end."""
    rank = op.rank(0)
    axes = op.ints_of(range(rank))
    lengths = op.constant(2)
    if op.constant(1) is not None and lengths is not None:
        begins = op.numbers(1, "begin")
        sizes = op.numbers(2, "size")
        ends = [_END if size < 0 else begin + size for begin, size in zip(begins, sizes, strict=True)]
        op.out(op.add("Slice", op.real(0), op.ints_of(begins), op.ints_of(ends), axes))
        return
    begin, size = op.ints(1), op.ints(2)
    open_end = op.add("Less", size, op.ints_of([0]))
    end = op.add("Where", open_end, op.ints_of([_END]), op.add("Add", begin, size))
    op.out(op.add("Slice", op.real(0), begin, end, axes))


class _Cuts:
    """What a STRIDED_SLICE does to each axis of its input; bounds as numbers, or as the places of computed ones."""

    def __init__(self) -> None:
        self.axes: list[int] = []
        self.begins: list[int | str] = []
        self.ends: list[int | str] = []
        self.steps: list[int] = []
        self.dropped: list[int] = []
        self.added: list[int] = []


def strided_slice(op: Op) -> None:
    """Bits of the masks stand for entries of begin, end and strides. Source: tf.strided_slice's description."""
    cuts = _cuts(op)
    made = op.real(0)
    if cuts.axes:
        bounds = [_joined(op, one) for one in (cuts.begins, cuts.ends)]
        made = op.add("Slice", made, *bounds, op.ints_of(cuts.axes), op.ints_of(cuts.steps))
    if cuts.dropped:
        made = op.add("Squeeze", made, op.ints_of(cuts.dropped))
    if cuts.added:
        made = op.add("Unsqueeze", made, op.ints_of(cuts.added))
    op.out(made)


def _joined(op: Op, bounds: Sequence[int | str]) -> str:
    """Numbers as one constant; values among them make it a computed list."""
    numbers = [one for one in bounds if isinstance(one, int)]
    if len(numbers) == len(bounds):
        return op.ints_of(numbers)
    parts = [op.ints_of([one]) if isinstance(one, int) else one for one in bounds]
    return op.add("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]


def _cuts(op: Op) -> _Cuts:
    steps, count = op.numbers(3, "strides"), len(op.known(3))
    masks = {name: op.option(f"{name}_mask", 0) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    rank, cuts = op.rank(0), _Cuts()
    axis = given = 0
    for entry, step in enumerate(steps):
        has = {name: bool(mask >> entry & 1) for name, mask in masks.items()}
        if has["ellipsis"]:
            later = sum(not masks["new_axis"] >> one & 1 for one in range(entry + 1, count))
            if rank - later <= axis:
                raise op.refuse("its ellipsis stands for no axis, which kernels take for one")
            given += rank - later - axis
            axis = rank - later
            continue
        if has["new_axis"]:
            cuts.added.append(given)
            given += 1
            continue
        if axis >= rank or not step:
            raise op.refuse(f"it cuts {count} axes of {rank} in steps of {steps}")
        bounds = _bound(op, 1, entry), _bound(op, 2, entry), step
        _cut(op, cuts, axis, bounds, has)
        given += not has["shrink_axis"]
        axis += 1
    return cuts


def _cut(op: Op, cuts: _Cuts, axis: int, bounds: tuple[int | str, int | str, int], has: Mapping[str, bool]) -> None:
    begin, end, step = bounds
    if has["begin"] and not has["shrink_axis"]:
        begin = 0 if step > 0 else _END
    if has["shrink_axis"]:
        end, step = _after(op, begin), 1
        cuts.dropped.append(axis)
    elif has["end"]:
        end = _END if step > 0 else -_END
    elif op.flag("offset"):
        end = _ahead(op, begin, end, op.sizes(0)[axis])
    elif step < 0 and _is_before(begin, op.sizes(0)[axis]):
        begin = end = 0
    if (begin, end, step) != (0, _END, 1):
        cuts.axes.append(axis)
        cuts.begins.append(begin)
        cuts.ends.append(end)
        cuts.steps.append(step)


def _is_before(begin: int | str, size: int | None) -> bool:
    """Whether it lies before the first element: going back from there is nothing, which ONNX takes for the first."""
    return isinstance(begin, int) and size is not None and begin < -size


def _bound(op: Op, position: int, entry: int) -> int | str:
    """A number, or a value of one element."""
    known = op.known(position)
    number = known[entry] if entry < len(known) else None
    if number is not None:
        return number
    return op.add("Slice", op.ints(position), op.ints_of([entry]), op.ints_of([entry + 1]))


def _after(op: Op, begin: int | str) -> int | str:
    """The end of a part of one element; behind the last one, -1, there is no number that counts from the end."""
    if isinstance(begin, int):
        return (begin + 1) or _END
    end = op.add("Add", begin, op.ints_of([1]))
    return op.add("Where", op.add("Equal", end, op.ints_of([0])), op.ints_of([_END]), end)


def _ahead(op: Op, begin: int | str, end: int | str, size: int | None) -> int:
    """The end where it is said as a distance from the begin."""
    if not isinstance(begin, int) or not isinstance(end, int) or (begin < 0 and size is None):
        raise op.refuse("its ends are computed, and count from its begins")
    start = begin + (size or 0) if begin < 0 else begin
    return max(start + end, 0)


def pad(op: Op) -> None:
    """Padding of (before, after) for each axis; with 0, or with the value of a third input."""
    found = op.constant(1)
    value = op.real(2) if op.has(2) else ""
    if value and op.shape(2):
        value = op.add("Reshape", value, op.scope.graph.constant(np.zeros(0, np.int64), "scalar"))
    if found is None:
        pads = op.add("Reshape", op.add("Transpose", op.ints(1), perm=[1, 0]), op.ints_of([-1]))
        op.out(op.add("Pad", op.real(0), pads, value))
        return
    perm = op.order(0)
    pads = op.ints_of(_pads(op, perm))
    op.out(op.add("Pad", op.real(0, perm), pads, value), perm)


def _pads(op: Op, perm: Perm) -> list[int]:
    pairs = np.asarray(op.numbers(1, "padding")).reshape(-1, 2)
    if len(pairs) != op.rank(0) or pairs.min(initial=0) < 0:
        raise op.refuse(f"a padding of {pairs.tolist()}")
    return [int(one) for one in pairs[list(perm) or slice(None)].T.reshape(-1)]


def mirror_pad(op: Op) -> None:
    """ONNX reflects without the edge; with it, elements are gathered by their places."""
    edge = int(op.option("mode", "REFLECT") == "REFLECT")
    pairs = zip(op.sizes(0), _pads(op, ())[: op.rank(0)], _pads(op, ())[op.rank(0) :], strict=True)
    if any(size is not None and max(before, after) > max(size - edge, 0) for size, before, after in pairs):
        raise op.refuse(f"a padding of {op.numbers(1, 'padding')} mirrors more of {list(op.shape(0))} than there is")
    if edge:
        perm = op.order(0)
        op.out(op.add("Pad", op.real(0, perm), op.ints_of(_pads(op, perm)), mode="reflect"), perm)
        return
    made, pads = op.real(0), _pads(op, ())
    for axis, size in enumerate(op.sizes(0)):
        before, after = pads[axis], pads[axis + op.rank(0)]
        if before or after:
            if size is None:
                raise op.refuse("it mirrors an axis of open size")
            places = np.pad(np.arange(size), (before, after), mode="symmetric")
            made = op.add("Gather", made, op.ints_of(places.tolist()), axis=axis)
    op.out(made)


def broadcast_args(op: Op) -> None:
    """The shape that two shapes broadcast to: of each pair of sizes the one that is not 1."""
    rank = max(op.shape(0)[0], op.shape(1)[0])
    a, b = (_lengthened(op, at, rank) for at in (0, 1))
    made = op.add("Where", op.add("Equal", a, op.ints_of([1])), b, a)
    kind = op.result().dtype
    op.out_stored(made if kind == "int64" else op.add("Cast", made, to=ONNX_TYPES[kind]))


def _lengthened(op: Op, position: int, rank: int) -> str:
    (count,) = op.shape(position)
    if None in op.sizes(position):
        raise op.refuse("a shape of an open number of axes")
    given = op.ints(position)
    return op.add("Concat", op.ints_of([1] * (rank - count)), given, axis=0) if rank > count else given


def matrix_diag(op: Op) -> None:
    """Rows as the diagonals of matrices that are 0 elsewhere."""
    size = op.sizes(0)[-1]
    if size is None:
        raise op.refuse("a diagonal of open length")
    x = op.add("Unsqueeze", op.real(0), op.ints_of([op.rank(0)]))
    zero = op.scope.graph.constant(np.zeros((), op.working(0)), "zero")
    op.out(op.add("Where", op.scope.graph.constant(np.eye(size, dtype=bool), "diagonal"), x, zero))


def matrix_set_diag(op: Op) -> None:
    high, wide = op.sizes(0)[-2:]
    if high is None or wide is None:
        raise op.refuse("matrices of an open size")
    short = min(high, wide)
    diagonal = op.add("Unsqueeze", op.real(1), op.ints_of([op.rank(1)]))
    if high > short:
        rest = [0] * (2 * op.rank(0))
        rest[2 * op.rank(0) - 2] = high - short
        diagonal = op.add("Pad", diagonal, op.ints_of(rest))
    mask = op.scope.graph.constant(np.eye(high, wide, dtype=bool), "diagonal")
    op.out(op.add("Where", mask, diagonal, op.real(0)))


def tile(op: Op) -> None:
    op.out(op.add("Tile", op.real(0), op.ints(1)))


def broadcast_to(op: Op) -> None:
    op.out(op.add("Expand", op.real(0), op.ints(1)))


def fill(op: Op) -> None:
    op.out(op.add("Expand", op.real(1), op.ints(0)))


def shape(op: Op) -> None:
    found = op.add("Shape", op.stored(0))
    kind = op.result().dtype
    op.out_stored(found if kind == "int64" else op.add("Cast", found, to=ONNX_TYPES[kind]))


def rank(op: Op) -> None:
    op.out_stored(op.scope.graph.constant(np.array(op.rank(0), op.result().dtype)))


def range_(op: Op) -> None:
    inputs = [op.add("Reshape", op.stored(at), op.scope.graph.constant(np.zeros(0, np.int64))) for at in range(3)]
    op.out(op.add("Range", *inputs))


def reverse(op: Op) -> None:
    axes = [op.axis(axis, op.rank(0)) for axis in op.numbers(1, "axes")]
    lists = [op.ints_of([one] * len(axes)) for one in (-1, -_END)]
    op.out(op.add("Slice", op.real(0), *lists, op.ints_of(axes), op.ints_of([-1] * len(axes))))


def reverse_sequence(op: Op) -> None:
    """ONNX has time and batch as the first two axes."""
    rank = op.rank(0)
    time, batch = (op.axis(op.option(name, 0), rank) for name in ("seq_dim", "batch_dim"))
    order = (batch, time, *(axis for axis in range(rank) if axis not in (batch, time)))
    if time == batch:
        raise op.refuse(f"axis {time} is its time and its batch")
    op.out(op.add("ReverseSequence", op.real(0, order), op.ints(1), time_axis=1, batch_axis=0), order)


def depth_to_space(op: Op) -> None:
    op.rank(0, 4)
    made = op.add("DepthToSpace", op.real(0, _NCHW), blocksize=op.option("block_size", 0), mode="DCR")
    op.out(made, _NCHW)


def space_to_depth(op: Op) -> None:
    op.rank(0, 4)
    op.out(op.add("SpaceToDepth", op.real(0, _NCHW), blocksize=op.option("block_size", 0)), _NCHW)


def space_to_batch(op: Op) -> None:
    """Pad, then cut each spatial axis into (blocks, place in the block), and move the places into the batch."""
    blocks, pairs = _blocks(op, "padding")
    count, rest = len(blocks), op.rank(0) - 1 - len(blocks)
    pads = [0, *(one for one, _ in pairs), *[0] * rest, 0, *(one for _, one in pairs), *[0] * rest]
    sizes = [size + sum(pair) for size, pair in zip(_known(op, 1, count), pairs, strict=True)]
    tail = _known(op, 1 + count, rest)
    x = op.add("Pad", op.real(0), op.ints_of(pads)) if any(pads) else op.real(0)
    cut = [part for size, block in zip(sizes, blocks, strict=True) for part in (size // block, block)]
    x = op.add("Reshape", x, op.ints_of([-1, *cut, *tail]))
    order = [*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count + 1, 2), *range(2 * count + 1, 2 * count + 1 + rest)]
    x = op.add("Transpose", x, perm=order)
    op.out(op.add("Reshape", x, op.ints_of([-1, *cut[::2], *tail])))


def batch_to_space(op: Op) -> None:
    """The other way round; crops take the place of padding."""
    blocks, crops = _blocks(op, "crops")
    count, rest = len(blocks), op.rank(0) - 1 - len(blocks)
    sizes, tail = _known(op, 1, count), _known(op, 1 + count, rest)
    x = op.add("Reshape", op.real(0), op.ints_of([*blocks, -1, *sizes, *tail]))
    pairs = [part for axis in range(count) for part in (count + 1 + axis, axis)]
    x = op.add("Transpose", x, perm=[count, *pairs, *range(2 * count + 1, 2 * count + 1 + rest)])
    whole = [size * block for size, block in zip(sizes, blocks, strict=True)]
    x = op.add("Reshape", x, op.ints_of([-1, *whole, *tail]))
    if any(map(any, crops)):
        ends = [size - after for size, (_, after) in zip(whole, crops, strict=True)]
        begins, axes = [before for before, _ in crops], range(1, count + 1)
        x = op.add("Slice", x, op.ints_of(begins), op.ints_of(ends), op.ints_of(axes))
    op.out(x)


def _blocks(op: Op, what: str) -> tuple[list[int], list[tuple[int, int]]]:
    blocks, flat = op.numbers(1, "block sizes"), op.numbers(2, what)
    if min(blocks, default=0) < 1 or len(flat) != 2 * len(blocks) or op.rank(0) <= len(blocks):
        raise op.refuse(f"blocks of {blocks} with {what} {flat}")
    return blocks, list(zip(flat[::2], flat[1::2], strict=True))


def _known(op: Op, start: int, count: int) -> list[int]:
    found = op.sizes(0)[start : start + count]
    if None in found:
        raise op.refuse("an axis that it cuts into blocks has an open size")
    return [size for size in found if size is not None]


def _moved(axis: int, perm: Perm) -> int:
    return perm.index(axis) if perm else axis


SHAPE: Mapping[str, Rule] = {
    "BATCH_TO_SPACE_ND": batch_to_space,
    "BROADCAST_ARGS": broadcast_args,
    "BROADCAST_TO": broadcast_to,
    "CONCATENATION": concatenation,
    "DEPTH_TO_SPACE": depth_to_space,
    "EXPAND_DIMS": expand_dims,
    "FILL": fill,
    "MATRIX_DIAG": matrix_diag,
    "MATRIX_SET_DIAG": matrix_set_diag,
    "MIRROR_PAD": mirror_pad,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "RANGE": range_,
    "RANK": rank,
    "RESHAPE": reshape,
    "REVERSE_SEQUENCE": reverse_sequence,
    "REVERSE_V2": reverse,
    "SHAPE": shape,
    "SLICE": slice_,
    "SPACE_TO_BATCH_ND": space_to_batch,
    "SPACE_TO_DEPTH": space_to_depth,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": squeeze,
    "STRIDED_SLICE": strided_slice,
    "TILE": tile,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}
