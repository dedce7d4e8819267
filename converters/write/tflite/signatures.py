"""Which layouts the tensors of one step can have together, without a byte being moved."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from converters.write.tflite.digits import (
    Layout,
    Symbols,
    adapted,
    axes_of,
    digits_of,
    is_straight,
    ordered,
    plain,
    reshaped,
    resized,
    same_bytes,
    transposed,
)
from converters.write.tflite.program import (
    Choice,
    Fixed,
    OptionOrAxis,
    Reshaped,
    Rule,
    Step,
    Together,
    Transposed,
    Value,
)

Candidates = Mapping[Value, Sequence[Layout]]
Group = tuple[tuple[int, int], ...]


class Signature(NamedTuple):
    """One way to run a step.

    Attributes:
        inputs: the layout of each input; None where it is no tensor with axes of its own.
        outputs: likewise.
        options: that go with it.
    """

    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout, ...]
    options: tuple[tuple[str, OptionOrAxis], ...] = ()


def signatures(step: Step, candidates: Candidates, symbols: Symbols) -> list[Signature]:
    """The ways to run a step that follow from the layouts which its tensors may have; in a fixed order."""
    found = _RULES[type(step.rule)](step, step.rule, candidates, symbols)
    return list(dict.fromkeys(found))


def _fixed(step: Step, rule: Rule, candidates: Candidates, symbols: Symbols) -> Iterator[Signature]:
    assert isinstance(rule, Fixed)
    choices = [_tied_digits(step, rule, group, candidates) for group in rule.ties]
    for chosen in product(*choices):
        tied = list(zip(rule.ties, chosen, strict=True))
        inputs = tuple(
            _fixed_layout(value, index, rule.inputs.get(index), tied, symbols) if isinstance(value, Value) else None
            for index, value in enumerate(step.inputs)
        )
        outputs = tuple(
            _fixed_layout(value, -1 - index, rule.outputs.get(index), tied, symbols)
            for index, value in enumerate(step.outputs)
        )
        yield Signature(inputs, outputs, tuple(rule.options.items()))


def _tied_digits(
    step: Step, rule: Fixed, group: Sequence[tuple[int, int]], candidates: Candidates
) -> list[Layout | None]:
    """The orders of entries that the axes of a group may have; None: their own order."""
    found: list[Layout | None] = [None]
    for position, axis in group:
        value = step.inputs[position] if position >= 0 else step.outputs[-1 - position]
        order = rule.inputs.get(position) if position >= 0 else rule.outputs.get(-1 - position)
        if not isinstance(value, Value) or value.constant:
            continue
        found += [
            tuple(digit._replace(axis=0) for digit in digits_of(layout, axis))
            for layout in candidates.get(value, ())
            if _is_ordered(layout, order or range(value.rank)) and not is_straight(layout, axis)
        ]
    return list(dict.fromkeys(found))


def _is_ordered(layout: Layout, order: Iterable[int]) -> bool:
    """Whether whole axes follow each other so; where one of size 1 stands does not matter."""
    sizes = {digit.axis: digit.size for digit in layout}
    found = axes_of(layout)
    return found is not None and [axis for axis in found if sizes[axis] != 1] == [
        axis for axis in order if sizes[axis] != 1
    ]


def _fixed_layout(
    value: Value,
    position: int,
    order: Sequence[int] | None,
    tied: Sequence[tuple[Group, Layout | None]],
    symbols: Symbols,
) -> Layout:
    made = ordered(symbols.sizes(value.shape), range(value.rank) if order is None else order)
    for group, digits in tied:
        for place, axis in group:
            if place == position and digits is not None:
                own = [digit._replace(axis=axis) for digit in digits]
                at = next(index for index, digit in enumerate(made) if digit.axis == axis)
                made = (*made[:at], *own, *made[at + 1 :])
    return made


def _choice(step: Step, rule: Rule, candidates: Candidates, symbols: Symbols) -> Iterator[Signature]:
    assert isinstance(rule, Choice)
    for way in rule.ways:
        yield from _fixed(step, way, candidates, symbols)


def _together(step: Step, rule: Rule, candidates: Candidates, symbols: Symbols) -> Iterator[Signature]:
    assert isinstance(rule, Together)
    rank = max((value.rank for value in step.outputs), default=0)
    tensors = [value for value in (*step.inputs, *step.outputs) if isinstance(value, Value) and not value.constant]
    sizes = symbols.sizes(step.outputs[0].shape)
    frames = [plain(sizes)]
    if rule.last is not None:
        frames.append(ordered(sizes, (*(axis for axis in range(rank) if axis != rule.last), rule.last)))
    frames += [layout for value in tensors if value.rank == rank for layout in candidates.get(value, ())]
    for frame in dict.fromkeys(frames):
        order = axes_of(frame)
        if rule.last is not None and (not order or order[-1] != rule.last):
            continue
        made = _beside(step, rule, frame, symbols)
        if made is not None:
            yield made


def _beside(step: Step, rule: Together, frame: Layout, symbols: Symbols) -> Signature | None:
    inputs = [
        _one_beside(value, rule, frame, symbols) if isinstance(value, Value) else _NOTHING for value in step.inputs
    ]
    outputs = [_one_beside(value, rule, frame, symbols) for value in step.outputs]
    if None in inputs or None in outputs:
        return None
    return Signature(tuple(one or None for one in inputs), tuple(one for one in outputs if one is not None))


_NOTHING: Layout = ()


def _one_beside(value: Value, rule: Together, frame: Layout, symbols: Symbols) -> Layout | None:
    """None where the value cannot stand beside the frame."""
    sizes = symbols.sizes(value.shape)
    rank = 1 + max((digit.axis for digit in frame), default=-1)
    if value.rank < rank and all(size == 1 for size in sizes):
        return plain(sizes)
    if value.constant:
        sizes = (1,) * (rank - value.rank) + sizes
    made = adapted(frame, sizes, straight=rule.straight)
    # The last axis is gone through entry by entry: only constants beside it could follow another order.
    return None if made is not None and rule.last is not None and not is_straight(made, rule.last) else made


def _reshaped(step: Step, rule: Rule, candidates: Candidates, symbols: Symbols) -> Iterator[Signature]:
    assert isinstance(rule, Reshaped)
    source, target = step.inputs[0], step.outputs[0]
    assert isinstance(source, Value)
    old, new = symbols.sizes(source.shape), symbols.sizes(target.shape)
    rest: tuple[Layout | None, ...] = (None,) * (len(step.inputs) - 1)
    yield Signature((plain(old), *rest), (plain(new),))
    for before in candidates.get(source, ()):
        after = plain(new) if before == plain(old) else reshaped(before, old, new)
        if after is not None:
            yield Signature((before, *rest), (after,))
            for other in candidates.get(target, ()):
                if same_bytes(other, after):
                    yield Signature((before, *rest), (other,))
    for after in candidates.get(target, ()):
        back = reshaped(after, new, old)
        if back is not None and reshaped(back, old, new) is not None:
            yield Signature((back, *rest), (after,))


def _transposed(step: Step, rule: Rule, candidates: Candidates, symbols: Symbols) -> Iterator[Signature]:
    assert isinstance(rule, Transposed)
    source, target = step.inputs[0], step.outputs[0]
    assert isinstance(source, Value)
    back = tuple(rule.order.index(axis) for axis in range(len(rule.order)))
    old, new = symbols.sizes(source.shape), symbols.sizes(target.shape)
    before = [plain(old), *candidates.get(source, ())]
    before += [resized(transposed(layout, back), old) for layout in candidates.get(target, ())]
    for layout in dict.fromkeys(before):
        yield Signature((layout,), (resized(transposed(layout, rule.order), new),))


_RULES = {
    Fixed: _fixed,
    Choice: _choice,
    Together: _together,
    Reshaped: _reshaped,
    Transposed: _transposed,
}
